"""Brownian noise: one path per image, the same for every schedule.

The clock is the signal-to-noise ratio, tau = (alpha / sigma)^2, in which the noise of the reverse process is a Brownian
motion W: given the clean image x0, (x - alpha x0) alpha / sigma^2 = W(tau), the time inversion of the forward process,
and the noise of DDPM's step on VE is exactly t^2 (W(tau_t) - W(tau_s)). A step from s to t draws

    (W(tau_t) - W(tau_s)) / sqrt(tau_t - tau_s),

which is standard normal, and independent of the draws of all intervals that do not overlap.

The path is a function of the image's seed alone. With r = alpha / sigma, from 0 (pure noise) up without end, the axis
u = log2(1 + 16 r) is cut at the whole numbers into cells: the first ends at r = 1/16, and each further one is about an
octave. Neither the model's range nor the schedule's has a part in it. The increment over a cell is a draw of its own.
Inside the cell the path is a Brownian bridge, refined by halving (Levy's construction): between l and h, with m half
way in u,

    W(m) = W(l) + (W(h) - W(l)) (m - l) / (h - l) + sqrt((m - l) (h - m) / (h - l)) noise[l, h],    all in tau,

each noise drawn from a stream that is seeded with its place in the tree, so that nothing has to be remembered. W at a
point is then a sum of at most 8 draws, whose coefficients are plain numbers (`draws_of`).

The halving stops at 1/128 of a cell, and a noise level is rounded to the nearest such point: on VE by 0.3 percent at
most below 0.5, and by half a percent at Stable Diffusion's highest. So the clock is rounded, never the law: the
variances are those between the rounded points, increments add up, and an interval inside one point, as schedules of
many hundred steps have them, gets an independent draw.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from ..path import Path
from ..plan import Noise
from .addressed import AddressedNoise

DEPTH = 7
POINTS = 1 << DEPTH
FIRST = 1.0 / 16.0

Draws = tuple[tuple[Noise, float], ...]


def point(path: Path, sigma: float) -> int | None:
    """The point of the path at noise level `sigma`: u in units of 1/POINTS, rounded. None at 0, where u is infinite."""
    return None if sigma == 0.0 else round(POINTS * math.log2(1.0 + path.alpha(sigma) / sigma / FIRST))


def clock(place: int) -> float:
    """tau = r^2 at a point."""
    return (FIRST * (2.0 ** (place / POINTS) - 1.0)) ** 2


def increment(cell: int) -> tuple[Noise, float]:
    """The increment of the path over a cell: its draw, and its standard deviation."""
    width = clock((cell + 1) * POINTS) - clock(cell * POINTS)
    return Noise("path cell", float(cell), float(cell + 1)), math.sqrt(width)


@cache
def draws_of(place: int) -> Draws:
    """W at a point, from the beginning of its cell: addressed draws and their coefficients, none at the beginning.

    The draw of an interval counts as much as W at the point follows W in the interval's middle: a hat of height
    sqrt((m - l) (h - m) / (h - l)), zero at the ends and linear in tau.
    """
    cell = place // POINTS
    low, high = cell * POINTS, (cell + 1) * POINTS
    if place == low:
        return ()
    tau = clock(place)
    draw, std = increment(cell)
    found = [(draw, std * (tau - clock(low)) / (clock(high) - clock(low)))]
    while True:
        middle = (low + high) // 2
        below, here, above = clock(low), clock(middle), clock(high)
        hat = (tau - below) / (here - below) if place <= middle else (above - tau) / (above - here)
        std = math.sqrt((here - below) * (above - here) / (above - below))
        found.append((Noise("path bridge", low / POINTS, high / POINTS), hat * std))
        if place == middle:
            break
        low, high = (low, middle) if place < middle else (middle, high)
    return tuple(found)


class BrownianNoise:
    """Normalised increments of one Brownian path per image.

    Args:
        path: VE or FLOW, which gives a noise level its place.
        seeds, device, scale, components: as for AddressedNoise; every image, and component, has a path of its own.

    A draw that is no increment (`fresh`: LCM's, churn, Restart's) and one that re-enters an interval is independent of
    the path, as AddressedNoise draws it. The two last points of the path are remembered, two latents, since the next
    interval begins where the last one ended; what is drawn does not depend on it.
    """

    def __init__(
        self,
        path: Path,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        scale: float = 1.0,
        components: Sequence[int] = (),
    ):
        self.path, self.device = path, torch.device(device)
        self.independent = AddressedNoise(seeds, device, scale, components)
        self.remembered: OrderedDict[int, Tensor] = OrderedDict()
        # One image, kept from draw to draw: fresh memory of that size costs as much as a pass over it.
        self.scratch: Tensor | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.independent.seeds

    @property
    def scale(self) -> float:
        return self.independent.scale

    def __call__(self, address: Noise, like: Tensor) -> Tensor:
        return self.delivered(self.draw(address, self.buffer(like)), like)

    def buffer(self, like: Tensor) -> Tensor:
        return self.independent.buffer(like)

    def delivered(self, drawn: Tensor, like: Tensor) -> Tensor:
        return self.independent.delivered(drawn, like)

    def apart(self) -> "BrownianNoise":
        """The same paths from a generator of its own, for another thread."""
        own = self.independent
        return BrownianNoise(self.path, own.seeds, own.device, own.scale, own.components)

    def draw(self, address: Noise, out: Tensor) -> Tensor:
        """Draws the images of `out`, a `buffer`."""
        start, end = point(self.path, address.sigma_from), point(self.path, address.sigma_to)
        if address.fresh or address.occurrence or start is None or end is None or start >= end:
            return self.independent.draw(address, out)
        norm = self.independent.scale / math.sqrt(clock(end) - clock(start))
        return self.between(start, end, out).mul_(norm)

    def between(self, start: int, end: int, out: Tensor) -> Tensor:
        """W(end) - W(start), written into `out`."""
        first, last = self.value(start, out), self.value(end, out)
        if first is not None and last is not None:
            torch.sub(last, first, out=out)
        elif last is not None:
            out.copy_(last)
        elif first is not None:
            torch.neg(first, out=out)
        cells = range(start // POINTS, end // POINTS)
        return self.add(out, tuple(increment(cell) for cell in cells), fresh=first is None and last is None)

    def value(self, place: int, like: Tensor) -> Tensor | None:
        """W at a point, from the beginning of its cell; None where that is zero."""
        if not draws_of(place):
            return None
        known = self.remembered.get(place)
        if known is None or known.shape != like.shape:
            while len(self.remembered) > 1:
                self.remembered.popitem(last=False)
            known = self.add(torch.empty_like(like), draws_of(place), fresh=True)
            self.remembered[place] = known
        self.remembered.move_to_end(place)
        return known

    def add(self, out: Tensor, draws: Draws, fresh: bool) -> Tensor:
        """`out` plus the draws times their coefficients; what a `fresh` one holds is written over."""
        if self.scratch is None or self.scratch.shape != out.shape[1:]:
            self.scratch = torch.empty_like(out[0])
        for image, seed in zip(out, self.seeds, strict=True):
            for i, (address, value) in enumerate(draws):
                if fresh and i == 0:
                    self.independent.fill(image, seed, address, value)
                else:
                    self.independent.fill(self.scratch, seed, address)
                    image.add_(self.scratch, alpha=value)
        return out


__all__ = ("BrownianNoise",)
