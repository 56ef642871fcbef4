"""Moved to noise/brownian."""

from .noise import brownian
from .renamed import renamed

__getattr__ = renamed(__name__, brownian, terms="draws_of", Terms="Draws")
