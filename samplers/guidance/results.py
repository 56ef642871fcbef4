"""Moved to guidance/repairs."""

from ..renamed import renamed
from . import repairs

__getattr__ = renamed(__name__, repairs)
