"""Moved to schedules/tables."""

from .renamed import renamed
from .schedules import published, tables

__getattr__ = renamed(__name__, tables, published)
