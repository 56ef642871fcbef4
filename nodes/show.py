"""Text that a node shows about itself while it is in the graph."""

from typing import Any

from comfy_api.latest import io
from server import PromptServer


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Puts `text` under the widgets of the node being executed. Its schema must ask for the hidden unique_id."""
    hidden: Any = getattr(node, "hidden", None)
    server = getattr(PromptServer, "instance", None)
    # There is no page where nodes are executed without a server.
    if hidden is not None and server is not None:
        server.send_progress_text(text, hidden.unique_id)
