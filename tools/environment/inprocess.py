"""ComfyUI inside this process: with folders of its own, its modules under their own names.

`import nodes` is ComfyUI's, `import stepwise.nodes` is ours. Only for a process that has not imported ComfyUI yet.
"""

import os
import sys
import tempfile
from pathlib import Path

from .folders import DEV

# What tests/samplers must never reach: importing any of these raises there.
COMFYUI_MODULES = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server")

FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")


def load_comfyui(*options: str, cpu: bool = True) -> tempfile.TemporaryDirectory[str]:
    """Imports the ComfyUI of COMFYUI_PATH, by default the pinned one, on the `cpu` or on what device it finds; returns
    its base folder, which the caller keeps.

    The host reads its command line when it is imported, so it is shown one that says what is wanted here.
    """
    tree = Path(os.environ.get("COMFYUI_PATH") or DEV / "ComfyUI")
    if not (tree / "comfy").is_dir():
        raise SystemExit(f"There is no ComfyUI in {tree}. Run: python3 dev.py test")
    base = tempfile.TemporaryDirectory(prefix="stepwise-comfyui-")
    for folder in FOLDERS:
        (Path(base.name) / folder).mkdir()
    sys.path.insert(0, str(tree))
    given, sys.argv = sys.argv, ["comfyui", *(["--cpu"] if cpu else []), "--base-directory", base.name, *options]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
    finally:
        sys.argv = given
    # Before anything else can claim it: from here on this name is ComfyUI's.
    import nodes  # noqa: F401

    return base
