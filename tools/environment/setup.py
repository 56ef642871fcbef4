"""The virtual environments under .dev and the packages in them: made, repaired, pinned anew."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from .comfyui import find_comfyui
from .folders import DEV, ROOT, program
from .process import Failure, call, output, quiet, say
from .stamps import ensure, exclusive
from .system import apt_install

UV = "uv==0.13.9"

# The folder itself must not be on sys.path: our `nodes` would stand before ComfyUI's module of that name.
IMPORT_HOOK = """import sys
from importlib.util import spec_from_file_location


class Hook:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "stepwise":
            return spec_from_file_location(name, {init!r}, submodule_search_locations=[{root!r}])


sys.meta_path.append(Hook)
"""

LOCKS = {"env": ROOT / "requirements-dev.lock", "client": ROOT / "requirements-client.lock"}


def prepare(*, client: bool) -> Path:
    """Make or repair what is missing; return the ComfyUI tree."""
    with exclusive():
        make_boot()
        make_env()
        if client:
            make_client()
        return find_comfyui()


def lock(arguments: list[str]) -> None:
    """Pin what the two .in files ask for, for every platform and every Python from 3.11 on."""
    with exclusive():
        make_boot()
    for pinned in LOCKS.values():
        command = [program("boot", "uv"), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        command += ["--no-annotate", *arguments, pinned.with_suffix(".in").name, "--output-file", pinned.name]
        environment = os.environ | {"UV_CUSTOM_COMPILE_COMMAND": "python3 dev.py lock"}
        if call(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL):
            raise Failure(f"{pinned.name} could not be made; uv says why above.")
        if "://" in pinned.read_text(encoding="utf-8"):
            raise Failure(f"{pinned.name} names an address; a lock holds names and versions only.")
        say(f"{pinned.name} is up to date")


def make_boot() -> None:
    def make() -> None:
        if find_spec("ensurepip") is None:  # Debian ships it apart
            apt_install("python3-venv")
        hint = "This Python makes no virtual environment. On Debian and Ubuntu: apt-get install python3-venv. It said:"
        quiet([sys.executable, "-m", "venv", DEV / "boot"], hint)
        pip = [program("boot", "python"), "-m", "pip", "--disable-pip-version-check", "install", "--no-input", UV]
        quiet(pip, f"{UV} could not be installed. Is the package index within reach? pip said:")

    ensure("boot", program("boot", "uv"), [UV], f"installing {UV} into .dev/boot", make)


def make_env() -> None:
    def make() -> None:
        synchronise("env")
        name_pack()

    line = "installing the packages of ComfyUI and of the tests into .dev/env (about 6 GB with torch)"
    ensure("env", program("env", "python"), [locked("env"), IMPORT_HOOK], line, make)


def name_pack() -> None:
    """Make `import stepwise` mean this folder in .dev/env."""
    question = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = output([program("env", "python"), "-c", question])
    if packages is None:
        raise Failure("The Python in .dev/env does not start.")
    hook = IMPORT_HOOK.format(init=str(ROOT / "__init__.py"), root=str(ROOT))
    (Path(packages) / "stepwise_hook.py").write_text(hook, encoding="utf-8")
    (Path(packages) / "stepwise_hook.pth").write_text("import stepwise_hook\n", encoding="utf-8")


def make_client() -> None:
    line = "installing the official command-line client into .dev/client"
    ensure("client", program("client", "comfy"), [locked("client")], line, lambda: synchronise("client"))


def locked(name: str) -> str:
    return LOCKS[name].read_text(encoding="utf-8")


def synchronise(name: str) -> None:
    """Give a virtual environment exactly the packages of its lock. An existing one is changed, not rebuilt."""
    python = program(name, "python")
    if not python.exists():
        base = ["--clear", "--python", sys.executable, DEV / name]
        uv("venv", "--quiet", *base, failure=f"The virtual environment .dev/{name} could not be made.")
    failure = f"The packages of {LOCKS[name].name} could not be installed. Is the package index within reach?"
    uv("pip", "sync", "--python", python, LOCKS[name], failure=failure)


def uv(*arguments: str | Path, failure: str) -> None:
    """Run uv: with its own progress bars in a terminal, else silent unless it fails."""
    command = [program("boot", "uv"), *arguments]
    options = {"cwd": ROOT, "env": os.environ | {"UV_PYTHON_DOWNLOADS": "never"}, "stdin": subprocess.DEVNULL}
    if not sys.stderr.isatty():
        quiet(command, f"{failure} uv said:", **options)
    elif call(command, **options):
        raise Failure(f"{failure} uv says more above.")
