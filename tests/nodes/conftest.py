"""ComfyUI inside the test process: on the CPU, with folders of its own, and its modules under their own names.

`import nodes` is ComfyUI's, `import stepwise.nodes` is ours.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest
import stepwise
import torch

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".dev" / "ComfyUI")
FOLDERS = tempfile.TemporaryDirectory(prefix="stepwise-nodes-")


def load_comfyui(base: Path) -> None:
    """Import what reads the command line while the command line says what these tests need."""
    if not (COMFYUI / "comfy").is_dir():
        raise pytest.UsageError(f"There is no ComfyUI in {COMFYUI}. Run: python3 dev.py test")
    if Path(stepwise.__file__).parent != ROOT:
        raise pytest.UsageError(f"stepwise is {stepwise.__file__}, not this folder. Run: python3 dev.py test")
    for folder in ("custom_nodes", "input", "models", "output", "temp", "user"):
        (base / folder).mkdir()
    sys.path.insert(0, str(COMFYUI))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["comfyui", "--cpu", "--base-directory", str(base)])
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
    import nodes  # noqa: F401 - before any test, so that this name is ComfyUI's in all of them


torch.set_num_threads(2)
load_comfyui(Path(FOLDERS.name))
