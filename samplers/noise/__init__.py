"""Noise that belongs to the picture it is for."""

from .addressed import SEEDS, AddressedNoise, arc, varied
from .ahead import drawn_ahead
from .brownian import BrownianNoise

__all__ = ["SEEDS", "AddressedNoise", "BrownianNoise", "arc", "drawn_ahead", "varied"]
