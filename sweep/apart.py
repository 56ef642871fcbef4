"""What servers keep apart that may share their folders: each writes under a name of its own.

ComfyUI numbers its files by a look at the folder before it computes. Two servers with one output folder would take the
same numbers, and one cell would be given the pictures of another.
"""

import re
from collections.abc import Mapping
from typing import Any

FOLDER, PREFIX = "stepwise-sweep", "filename_prefix"


def own(url: str) -> str:
    """The name of a server, as a part of file names."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", url.partition("://")[2]).strip("-")


def apart(prompt: Mapping[str, Any], url: str) -> dict[str, Any]:
    """A prompt whose nodes save in the server's own folder of the output folder."""

    def placed(node: Mapping[str, Any]) -> dict[str, Any]:
        prefix = node.get("inputs", {}).get(PREFIX)
        if not isinstance(prefix, str):
            return dict(node)
        return {**node, "inputs": {**node["inputs"], PREFIX: f"{FOLDER}/{own(url)}/{prefix}"}}

    return {number: placed(node) for number, node in prompt.items()}
