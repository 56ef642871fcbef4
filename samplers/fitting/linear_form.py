"""What a plan without noise is, whatever solver made it: one row a call over x and the predictions so far.

    x_{n+1} = carry_n x_n + sum_j taken_{n,j} d_{n-j},      d_n = denoised(x_n, called_n)

d_n is the newest prediction, d_{n-j} that of j calls before. Every explicit method has this form, with as many earlier
predictions as it takes.
"""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

from ..parameters import InputError
from ..path import Path
from ..plan import Plan
from ..solvers.exponential_multistep import dpmpp_2m
from ..solvers.fitted import fitted, written

Base = Callable[[Path, Sequence[float]], Plan]


@dataclass(frozen=True)
class LinearForm:
    """`sigmas` are the levels of x, n + 1 of them, and `called` what the model is told in the n calls; `carry` and
    `taken` as above, each of `taken` with the newest prediction first; `opening` is the factor of x before all of them.
    `base` is the solver whose rows are taken where the levels move.

    keeps_marginals: at every call x has the noise level that the model is told: the carry is t / s, and the
        coefficients sum to 1 on the picture.
    """

    path: Path
    sigmas: tuple[float, ...]
    called: tuple[float, ...]
    carry: tuple[float, ...]
    taken: tuple[tuple[float, ...], ...]
    opening: float = 1.0
    base: Base = field(default=dpmpp_2m, compare=False, repr=False)

    @property
    def calls(self) -> int:
        return len(self.called)

    @property
    def keeps_marginals(self) -> bool:
        if self.called != self.sigmas[:-1] or self.opening != 1.0:
            return False
        steps = zip(pairwise(self.sigmas), self.carry, self.taken, strict=True)
        return all(
            math.isclose(carry, t / s, rel_tol=1e-9, abs_tol=1e-12)
            and math.isclose(sum(taken), self.path.gain(s, t), rel_tol=1e-6, abs_tol=1e-9)
            for (s, t), carry, taken in steps
        )

    @property
    def rows(self) -> str:
        """As the text that the solver `fitted` takes."""
        return written(self.path, self.sigmas, self.called, self.carry, self.taken, self.opening)

    def plan(self) -> Plan:
        """The plan that takes these steps."""
        return fitted(self.path, self.sigmas, rows=self.rows)

    @cached_property
    def asking(self) -> Plan:
        """The same model calls, each after x alone: for runs of one call."""
        alone = tuple((self.path.gain(s, t),) for s, t in pairwise(self.sigmas))
        return LinearForm(self.path, self.sigmas, self.called, self.carry, alone).plan()


def form_of(plan: Plan) -> LinearForm:
    """A plan in its linear form: each register followed as coefficients of the first x and of the predictions.

    Raises:
        InputError: it adds noise or reads the unconditional prediction, or takes a step of more than one call.
    """
    if plan.adds_noise or plan.reads_uncond or len(plan.stages) != plan.steps:
        problem = "adds noise, reads the unconditional prediction or takes steps of several calls"
        raise InputError("plan", problem, "begin from a multistep solver without noise, such as DPM++ 2M")
    calls = len(plan.stages)
    registers: dict[str, list[float]] = {"x": [1.0] + [0.0] * calls}
    carries, taken = list[float](), list[tuple[float, ...]]()
    for n, (stage, (s, t)) in enumerate(zip(plan.stages, pairwise(plan.sigmas), strict=True)):
        before = registers["x"]
        registers["denoised"] = [float(i == n + 1) for i in range(calls + 1)]
        for each in stage.rows:
            found = [0.0] * (calls + 1)
            for operand, value in each.terms:
                found = [a + value * b for a, b in zip(found, registers[str(operand)], strict=True)]
            registers[each.target] = found
        carry = t / s
        moved = [a - carry * b for a, b in zip(registers["x"], before, strict=True)]
        if abs(moved[0]) > 1e-9:
            raise InputError("plan", "does not carry x by t / s", "begin from DPM++ 2M")
        back = moved[n + 1 : 0 : -1]
        while len(back) > 1 and abs(back[-1]) < 1e-12:
            back.pop()
        carries.append(carry)
        taken.append(tuple(back))
    return LinearForm(plan.path, plan.sigmas, plan.sigmas[:-1], tuple(carries), tuple(taken))


def begin_from(path: Path, sigmas: Sequence[float], base: Base = dpmpp_2m) -> LinearForm:
    """What a fit begins from: DPM++ 2M on these levels, or another multistep solver without noise."""
    return replace(form_of(base(path, single(sigmas))), base=base)


def single(sigmas: Sequence[float]) -> tuple[float, ...]:
    """The levels as SIGMAS have them, in float32."""
    return tuple(struct.unpack("f", struct.pack("f", sigma))[0] for sigma in sigmas)
