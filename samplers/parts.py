"""Moved to solvers/open_end."""

from .renamed import renamed
from .solvers import open_end

__getattr__ = renamed(__name__, open_end)
