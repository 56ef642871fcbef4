"""How a noise level maps to signal and noise: x = alpha * x0 + sigma * eps.

Two paths cover the models of the field. VE (alpha = 1) is the k-diffusion scaling in which EPS,
V-prediction, EDM and X0 models are sampled; FLOW (alpha = 1 - sigma) is rectified flow. On both the
probability-flow ODE reads dx/dsigma = (x - denoised) / sigma (Karras et al. 2022, eq. 1; on FLOW the
velocity eps - x0 is the same expression), so one solver text serves both.
"""

import math
from enum import Enum

# Where this little of the picture is left, there is none for whoever asks for a finite log-SNR: a step from there, in
# log-SNR, divides by alpha, and float32 latents have no digits left.
TINY_ALPHA = 1e-6


class Path(Enum):
    VE = "VE"
    FLOW = "FLOW"

    def __repr__(self) -> str:
        return self.value

    @property
    def sigma_max(self) -> float:
        """The largest noise level that exists on this path."""
        return math.inf if self is VE else 1.0

    def alpha(self, sigma: float) -> float:
        """Signal level at noise level `sigma`."""
        return 1.0 if self is VE else 1.0 - sigma

    def is_noise(self, sigma: float) -> bool:
        """Whether nothing of the picture is left at noise level `sigma`, or nothing that counts."""
        return self.alpha(sigma) <= TINY_ALPHA

    def lam(self, sigma: float) -> float:
        """Half log-SNR, log(alpha / sigma) (Lu et al. 2022, section 3.1): +inf at 0, -inf where alpha is 0."""
        alpha = self.alpha(sigma)
        if sigma == 0.0:
            return math.inf
        return math.log(alpha / sigma) if alpha > 0.0 else -math.inf

    def sigma(self, lam: float) -> float:
        """The noise level whose half log-SNR is `lam`."""
        return math.exp(-lam) if self is VE else 1.0 / (1.0 + math.exp(lam))

    def between(self, s: float, t: float, r: float) -> float:
        """The inner noise level at the fraction `r` of the way from `s` to `t > 0`, measured in half log-SNR.

        From where `s` is noise alone the half log-SNR has infinite length, and up to there; then the fraction is
        measured in sigma.
        """
        if self.is_noise(s) or self.is_noise(t):
            return s + r * (t - s)
        return self.sigma((1.0 - r) * self.lam(s) + r * self.lam(t))

    def towards(self, s: float, t: float) -> "Path":
        """The path in whose half log-SNR a multistep method goes from s to t: this one, but VE up to where nothing of
        the picture is left and the half log-SNR is infinite. dx/dsigma is the same on both, and on VE it is log sigma.
        """
        return Path.VE if t > s and self.is_noise(t) else self

    def gain(self, s: float, t: float) -> float:
        """Weight of a constant denoised over a step from `s` to `t`: alpha_t - alpha_s * t / s.

        It equals alpha_t * (1 - exp(-h)) with h the step in half log-SNR, and stays exact where h is infinite.
        """
        return 1.0 - t / s if self is VE else (s - t) / s

    def carry(self, s: float, t: float) -> float:
        """alpha_t / alpha_s: how the signal in x grows from s to t, for alpha_s > 0."""
        return self.alpha(t) / self.alpha(s)

    def posterior(self, s: float, t: float) -> float:
        """sigma_t / sigma_s * alpha_s / alpha_t = exp(-h): the part of the noise that a reverse step keeps."""
        return t / s * (self.alpha(s) / self.alpha(t))


VE = Path.VE
FLOW = Path.FLOW
