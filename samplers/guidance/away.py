"""Moved to guidance/unconditional."""

from ..renamed import renamed
from . import unconditional

__getattr__ = renamed(__name__, unconditional)
