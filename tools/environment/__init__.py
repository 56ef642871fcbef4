"""What dev.py stands on: processes, the folder .dev, a server, a client, a browser. The standard library is enough."""

from .setup import prepare

__all__ = ["prepare"]
