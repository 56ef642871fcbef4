"""What an entry of the registry says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .. import guidance
from ..adaptive import Controller
from ..guidance import expressions
from ..parameters import Parameter, Value, checked, parameters
from ..path import VE, Path
from ..plan import Plan
from ..schedules import trained_sigmas


@dataclass(frozen=True)
class Setting:
    """Parameters of a solver, and what is claimed, and proved by the tests, for them.

    order: global order of convergence on the probability-flow ODE; None where noise is added or nothing is claimed.
    noise: noise is drawn.
    calls, calls_to_zero: model calls of a step, and of the step that ends at sigma 0.
    opening: how many first steps are made otherwise, and with how many calls each; one step more where the schedule
        begins at infinite log-SNR and `log_snr` says that the method needs a finite one.
    extra_calls: model calls beside those of the steps, once the schedule reaches them.
    reaches_below: inner calls may lie below the level that the step ends at, since noise brings x back up.
    converges: the law of the result tends to the data's with more steps; not where a part has a fixed number of them.
    looks_ahead: how a step is made depends on the end or the length of the schedule beyond it.
    together: how many steps of the schedule make one of the method. A part of a schedule is gone on from between these.
    keeps_marginals: x has the noise level that the model is told, at every call.
    paths: names of the paths on which the setting exists.
    from_noise: the least order on equal steps of sigma from pure noise on FLOW, whose first steps are long in log-SNR,
        where more than two fifths of `order` are lost there.
    in_cost_table: the tables of what a step costs have a row for it; the default of a solver always has one.
    """

    params: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    order: int | None = None
    noise: bool = False
    calls: int = 1
    calls_to_zero: int = 1
    opening: tuple[int, int] = (0, 1)
    log_snr: bool = False
    extra_calls: int = 0
    reaches_below: bool = False
    converges: bool = True
    looks_ahead: bool = False
    together: int = 1
    keeps_marginals: bool = True
    paths: tuple[str, ...] = ("VE", "FLOW")
    from_noise: float | None = None
    in_cost_table: bool = False

    @property
    def upwards(self) -> bool:
        """Whether it takes ascending schedules too, from a picture to its noise, at the same order: all that add no
        noise do."""
        return not self.noise


@dataclass(frozen=True)
class Solver:
    """`id` makes the node ids, `name` is what people read; `settings` carry the claims, the default first.

    controller: of one with adaptive steps, makes of its parameters what chooses them. Its plan is that of a run that
    accepts every step of the schedule as it is.
    """

    id: str
    name: str
    plan: Callable[..., Plan]
    summary: str
    advice: str
    papers: tuple[str, ...]
    settings: tuple[Setting, ...]
    aliases: tuple[str, ...] = ()
    controller: Callable[[Mapping[str, Value]], Controller] | None = None

    @property
    def parameters(self) -> dict[str, Parameter]:
        return parameters(self.plan)

    @property
    def stochastic(self) -> bool:
        """Whether it can draw noise."""
        return any(setting.noise for setting in self.settings)

    def for_going_up(
        self, path: Path, sigmas: Sequence[float], params: Mapping[str, Value]
    ) -> Mapping[str, Value] | None:
        """What to change in `params` so that an ascending schedule can be taken: nothing where it can as they are; None
        where no change of one parameter to that of a setting `upwards` is enough."""
        down = tuple(reversed(sigmas))
        if not self.plan(path, down, **params).adds_noise:
            return {}
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        for setting in self.settings:
            for name, value in {**defaults, **setting.params}.items() if setting.upwards else ():
                if not self.plan(path, down, **{**params, name: value}).adds_noise:
                    return {name: value}
        return None


@dataclass(frozen=True)
class Schedule:
    """`takes` names what the function is given of a wired model, attributes of `Trained`; `paths` where it makes sense.

    A function that takes the `table` has no other way to get it; without a model it comes from `trained_sigmas`.
    `counts` names the parameter that a wired latent answers, with the number of its positions.
    """

    id: str
    name: str
    function: Callable[..., tuple[float, ...]]
    takes: tuple[str, ...]
    summary: str
    advice: str
    papers: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    paths: tuple[str, ...] = ("VE", "FLOW")
    counts: str = ""

    @property
    def answered(self) -> frozenset[str]:
        """The parameters that a wired model answers, whatever they are set to."""
        betas = parameters(trained_sigmas) if "table" in self.takes else ()
        return frozenset({*self.takes, *betas} - {"table", "path"})


@dataclass(frozen=True)
class Guidance:
    """A rule of guidance, see `guidance`; `kind` is None for the combination itself, which every guider makes.

    others: conditionings beside the guider's own two: input name and meaning.
    curves: parameters that are drawn: input name and meaning.
    reads, rests, avoids, knows: as in `guidance.Rule`.
    """

    id: str
    name: str
    function: Callable[..., object]
    summary: str
    advice: str
    papers: tuple[str, ...]
    kind: guidance.Kind | None = None
    others: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    curves: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reads: Callable[..., tuple[str, ...]] | None = None
    rests: Callable[..., bool] | None = None
    avoids: Callable[..., tuple[str, ...]] | None = None
    knows: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()

    def rule(self, params: Mapping[str, Any]) -> guidance.Rule:
        """The rule with these parameters, conditionings and curves; raises InputError for a parameter out of range."""
        if self.kind is None:
            raise ValueError(f"{self.id} is no rule: it is what a guider does")
        others = {name: params[name] for name in self.others}
        curves = {name: params[name] for name in self.curves}
        numbers = {name: value for name, value in params.items() if name not in {**others, **curves}}
        complete = {**checked(self.function, numbers), **curves}
        if self.kind == "scale":
            # What several parameters must be together, the function itself checks.
            self.function(1.0, 0.5, VE, **complete)
        asked = (self.reads, self.rests, self.avoids, self.knows)
        return guidance.Rule(self.kind, self.function, complete, others, *asked)


@dataclass(frozen=True)
class Operation:
    """An operation on predictions, see `guidance.expressions`.

    inputs: predictions that it takes, name and meaning.
    curves: inputs that are drawn.
    rule: what rules that set a scale do to its number; empty if it takes none. For guidance it takes all rules.
    """

    id: str
    name: str
    function: Callable[..., expressions.Prediction]
    inputs: Mapping[str, str]
    summary: str
    advice: str
    papers: tuple[str, ...] = ()
    curves: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rule: str = ""
    aliases: tuple[str, ...] = ()
