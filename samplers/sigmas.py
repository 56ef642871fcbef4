"""Moved to schedules/editing."""

from .renamed import renamed
from .schedules import editing

__getattr__ = renamed(__name__, editing)
