"""Where things lie: the tree, and what is made for working on it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / ".dev"


def program(environment: str, name: str) -> Path:
    """A command of one of the virtual environments: boot, env, client."""
    return DEV / environment / (f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}")
