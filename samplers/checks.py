"""Moved to schedules/checks."""

from .renamed import renamed
from .schedules import checks

__getattr__ = renamed(__name__, checks)
