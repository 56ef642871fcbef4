"""What nodes say to whoever wires the graph: errors, and text that a node shows about itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from comfy_api.latest import io
from server import PromptServer

from ...samplers.parameters import InputError


@contextmanager
def named(node: str) -> Iterator[None]:
    """Puts the node's name before what is wrong with one of its inputs."""
    try:
        yield
    except InputError as error:
        raise ValueError(f"{node}: {error}") from None


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Puts `text` under the widgets of the node being executed. Its schema must ask for the hidden unique_id."""
    hidden: Any = getattr(node, "hidden", None)
    server = getattr(PromptServer, "instance", None)
    # There is no page where nodes are executed without a server.
    if hidden is not None and server is not None:
        server.send_progress_text(text, hidden.unique_id)


def tell_page(event: str, told: Mapping[str, Any]) -> None:
    """Sends the page that has queued the prompt something while it runs."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_sync(event, dict(told), server.client_id)
