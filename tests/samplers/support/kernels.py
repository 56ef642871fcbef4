"""Counts what PyTorch really does, on any machine: every ATen call that moves a tensor through memory."""

from stepwise.tools.measure.counting import Kernels, makes_no_pass

__all__ = ["Kernels", "makes_no_pass"]
