"""What nodes say to whoever wires the graph: errors, and text that a node shows about itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from comfy_api.latest import io
from server import PromptServer

from ...samplers.parameters import InputError

# For a node that makes itself what others have wired: by the input of those, its own name for it, and the cure, if that
# is another one.
Words = Mapping[str, tuple[str, str | None]]
AS_WIRED: Words = MappingProxyType({})


@contextmanager
def named(node: str, words: Words = AS_WIRED) -> Iterator[None]:
    """Puts the node's name before what is wrong with one of its inputs."""
    try:
        yield
    except InputError as error:
        name, cure = words.get(error.name, (error.name, None))
        reworded = InputError(name, error.problem, cure or error.cure, error.index)
        raise ValueError(f"{node}: {reworded}") from None


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
