"""Data whose denoiser and whose probability-flow ODE are known exactly, in float64."""

from stepwise.samplers.exact import Mixture, gaussian, mixture, relative_rms

__all__ = ["Mixture", "gaussian", "mixture", "relative_rms"]
