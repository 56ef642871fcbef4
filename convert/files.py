"""Workflows on disk: JSON in the editor's form or the API's, and PNG files that carry either."""

import json
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST = 200 * 2**20
LARGEST_TEXT = 20 * 2**20
NO_WORKFLOW = "is neither a workflow of the editor (with a list `nodes`) nor one of the API (nodes with a `class_type`)"


class BadWorkflow(ValueError):
    """What is given is no workflow, and why."""


def load(path: Path) -> dict[str, Any]:
    """The workflow in a file. Raises BadWorkflow for a file that has none."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise BadWorkflow(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) > LARGEST:
        raise BadWorkflow(f"{path} is larger than {LARGEST // 2**20} MiB.")
    if not content.startswith(PNG):
        return parsed(content, str(path))
    texts = dict(carried(content, str(path)))
    for name in ("workflow", "prompt"):
        if name in texts:
            return parsed(texts[name], f"the {name} in {path}")
    raise BadWorkflow(f"{path} is a picture that carries no workflow.")


def parsed(content: bytes, name: str) -> dict[str, Any]:
    """Raises BadWorkflow for what is no JSON object of a workflow's form."""
    try:
        # What ComfyUI writes into pictures can hold NaN, which is no JSON: nothing stands in its place.
        data = json.loads(content, parse_constant=lambda _: None, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise BadWorkflow(f"{name} is no JSON: {error}.") from None
    if not isinstance(data, dict) or not (is_editor(data) or is_prompt(data)):
        raise BadWorkflow(f"{name} {NO_WORKFLOW}.")
    return data


def finite(digits: str) -> float | None:
    """A number of JSON; None for one beyond what floating point has, such as 1e400."""
    number = float(digits)
    return number if math.isfinite(number) else None


def is_editor(data: dict[str, Any]) -> bool:
    return isinstance(data.get("nodes"), list)


def is_prompt(data: dict[str, Any]) -> bool:
    """The API's form: every entry is a node."""
    return bool(data) and all(
        isinstance(each, dict) and isinstance(each.get("class_type"), str) for each in data.values()
    )


def carried(content: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """The texts of a PNG file, by their keywords."""
    at = len(PNG)
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        if len(body) < length:
            raise BadWorkflow(f"{name} is cut short.")
        at += length + 12
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, rest = body.partition(b"\0")
            yield keyword.decode("latin-1"), text_of(kind, rest, name)


def text_of(kind: bytes, rest: bytes, name: str) -> bytes:
    if kind == b"tEXt":
        return rest.decode("latin-1").encode()
    if kind == b"zTXt":
        return unpacked(rest[1:], name)
    packed, rest = rest[:1] == b"\1", rest[2:]
    _, _, rest = rest.partition(b"\0")
    _, _, rest = rest.partition(b"\0")
    return unpacked(rest, name) if packed else rest


def unpacked(content: bytes, name: str) -> bytes:
    """No more than the largest workflow, whatever a file claims to hold."""
    try:
        made = zlib.decompressobj().decompress(content, LARGEST_TEXT + 1)
    except zlib.error as error:
        raise BadWorkflow(f"{name} has a text that cannot be unpacked: {error}.") from None
    if len(made) > LARGEST_TEXT:
        raise BadWorkflow(f"{name} has a text of more than {LARGEST_TEXT // 2**20} MiB.")
    return made


def written(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
