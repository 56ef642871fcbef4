"""Data whose denoiser and whose probability-flow ODE are known exactly, and what any sampler does to them."""

from .mixture import Mixture, gaussian, mixture, relative_rms

__all__ = ["Mixture", "gaussian", "mixture", "relative_rms"]
