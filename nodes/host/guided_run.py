"""What a guider keeps for the length of one run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...samplers.guidance import Descent
from ...samplers.guidance.expressions import Prediction
from .evaluators import Others
from .plain_calls import Prepared


@dataclass
class Run:
    """What a guider keeps for the length of one run.

    It has `evaluated` so many predictions of those that were `possible`; `fixed` are the factors of a sum of leaves
    that is the same at all calls; `prepared` is by the model, None for the guider's own, and `others` are those beside
    it; `components` are the lengths of packed latents, and `shapes` their shapes; `descent` is the memory under a
    foreign sampler; `levels` is the schedule, and `told` an expression whose rules know their step, behind the one that
    it was made of and the step.
    """

    others: Others | None = None
    components: tuple[int, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    levels: tuple[float, ...] = ()
    told: tuple[Prediction, int | None, Prediction] | None = None
    prepared: dict[Any, Prepared] = field(default_factory=dict)
    descent: Descent = field(default_factory=Descent)
    evaluated: int = 0
    possible: int = 0
    fixed: tuple[Prediction, Mapping[int, float]] | None = None
    warned: bool = False
