"""Moved to guidance/chain."""

from ..renamed import renamed
from . import chain

__getattr__ = renamed(__name__, chain)
