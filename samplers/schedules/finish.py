"""Moved to schedules/ends."""

from ..renamed import renamed
from . import ends

__getattr__ = renamed(__name__, ends)
