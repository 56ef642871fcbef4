"""Moved to linear_combination."""

from . import linear_combination
from .renamed import renamed

__getattr__ = renamed(__name__, linear_combination)
