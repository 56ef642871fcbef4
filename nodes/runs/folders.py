"""Where states lie: in ComfyUI's output and input folders, under one rule for autosave, Save State and Load State.

The rule is the host's own: what a link inside a folder leads out of it is not in it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import folder_paths

from ...samplers import checkpoint
from ...samplers.checkpoint import STATE, Form
from ...samplers.parameters import InputError, quoted

SUFFIX = ".safetensors"
FOLDERS = ("output", "input")
# Where a prefix names a folder and no file.
STEM = "state"
# What stands in the list while there is none.
NOTHING = "no state saved yet"
TO_HAVE_ONE = "save one with Save State or autosave_every, or upload one"


def listed(form: Form = STATE) -> list[str]:
    """The states, or the files of another form, in the host's output and input folders, newest first, as the host names
    files in a folder."""
    return [name for _, name in sorted(files_of(form), reverse=True)]


def files_of(form: Form) -> Iterator[tuple[float, str]]:
    """When each was written, and its name. A file may go while this looks: a run moves and replaces its autosave."""
    for kind in FOLDERS:
        root = folder_paths.get_directory_by_type(kind)
        for folder, _, names in os.walk(root):
            for name in names:
                file = Path(folder, name)
                if name.endswith(SUFFIX) and not name.startswith("."):
                    with suppress(OSError, InputError):
                        checkpoint.peek(file, form=form)
                        yield file.stat().st_mtime, f"{file.relative_to(root).as_posix()} [{kind}]"


def found(name: Any, called: str = "state", nothing: str = NOTHING, to_have_one: str = TO_HAVE_ONE) -> Path:
    """The file behind a name of `listed`, or behind one without its folder at the end: the output folder is searched
    first. Raises InputError for anything else."""
    if not isinstance(name, str):
        raise InputError("file", f"is {quoted(name)}, which is no name", f"choose a {called} from the list")
    if name in ("", nothing):
        raise InputError("file", f"is {quoted(name)}, which names no {called}", f"{to_have_one}, and choose it")
    asked = [kind for kind in (*FOLDERS, "temp") if name.endswith(f" [{kind}]")]
    inside = [path for kind in asked or FOLDERS if (path := within(kind, name.removesuffix(f" [{kind}]")))]
    if not inside:
        problem = f"is {quoted(name)}, which is not in ComfyUI's output or input folder"
        raise InputError("file", problem, "put the file there, and choose it from the list")
    there = [path for path in inside if os.path.isfile(path)]
    if not there:
        raise InputError("file", f"is {quoted(name)}, and there is no such file", "choose one from the list")
    return there[0]


def within(kind: str, name: str) -> Path | None:
    """A file in one of the two folders; None for a name that leads out of them."""
    if not is_possible(name):
        return None
    root = folder_paths.get_directory_by_type(kind)
    path = os.path.abspath(os.path.join(root, name))
    return Path(path) if kind in FOLDERS and folder_paths.is_within_directory(root, path) else None


# What a disk without room says: the only one of its errors that may be over a minute later.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cure_of(error: OSError) -> str:
    """What to do where a file could not be written."""
    if error.errno in NO_ROOM:
        return "make room there, or choose another folder"
    if error.errno == errno.ENAMETOOLONG:
        return "give a shorter name"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder that ComfyUI may write to, or let it write there"
    return "choose another folder"


def is_possible(name: str) -> bool:
    """Whether a file can have such a name at all."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def save_new(data: bytes, filename_prefix: str, suffix: str = SUFFIX, stem: str = STEM) -> tuple[Path, str]:
    """Writes a file under the first number that nobody has, whoever else saves at the same time; it and its name."""
    for file, name in save_places(filename_prefix, suffix, stem):
        try:
            checkpoint.write(file, data, new=True)
        except FileExistsError:
            continue
        except OSError as error:
            problem = f"leads to {file.parent}, where nothing can be written ({error.strerror})"
            raise InputError("filename_prefix", problem, cure_of(error)) from None
        return file, name
    raise AssertionError("numbers do not end")


def save_places(filename_prefix: str, suffix: str = SUFFIX, stem: str = STEM) -> Iterator[tuple[Path, str]]:
    """Files to save under by the host's rule, from the first free number on, with their names as `listed` has them.

    Raises InputError for a prefix that leads out of the output folder, or to names that would not be listed.
    """
    if not is_possible(filename_prefix):
        problem = f"is {quoted(filename_prefix)}, which holds a character that no file's name can have"
        raise InputError("filename_prefix", problem, "write it with letters, numbers and / alone")
    head, tail = os.path.split(filename_prefix)
    # The host would give the file the name of its folder.
    prefix = os.path.join(head, stem) if tail in ("", ".") else filename_prefix
    folder, stem, number, subfolder = save_path(prefix, filename_prefix)
    if stem.startswith("."):
        problem = f"is {quoted(filename_prefix)}, and files whose name begins with a dot are not listed"
        raise InputError("filename_prefix", problem, "begin the name with a letter")
    while True:
        file = Path(folder, f"{stem}_{number:05}_{suffix}")
        if not os.path.lexists(file):
            yield file, f"{Path(subfolder, file.name).as_posix()} [output]"
        number += 1


def check_prefix(filename_prefix: str) -> None:
    """Raises InputError for one that `save_new` would not take, before there is anything to save."""
    next(save_places(filename_prefix))


def save_path(prefix: str, typed: str) -> tuple[str, str, int, str]:
    """The host's rule for names of saved files: folder, beginning of the name, number, and folder in the output."""
    try:
        return folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())[:4]
    except OSError as error:
        problem = f"is {quoted(typed)}, and its folder cannot be made ({error.strerror})"
        raise InputError("filename_prefix", problem, cure_of(error)) from None
    except Exception:
        # The host raises this class itself, and nothing narrower.
        problem = f"is {quoted(typed)}, which leads out of ComfyUI's output folder"
        cure = "give a name without .., without a drive, and no folder that is a link to another place"
        raise InputError("filename_prefix", problem, cure) from None
