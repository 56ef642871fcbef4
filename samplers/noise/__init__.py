"""Noise that belongs to the picture it is for."""

from .addressed import SEEDS, AddressedNoise, arc, varied
from .brownian import BrownianNoise

__all__ = ["SEEDS", "AddressedNoise", "BrownianNoise", "arc", "varied"]
