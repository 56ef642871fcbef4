"""The leaves of an expression, and which of them a guider has to look at."""

from collections.abc import Container, Sequence
from typing import Any

from ...samplers import Path
from ...samplers.guidance import resting
from ...samplers.guidance.evaluation import guided_in
from ...samplers.guidance.expressions import Guided, Leaf, Prediction
from .evaluators import Evaluator


def model_of(leaf: Leaf) -> Any:
    """The model that evaluates it, None for the guider's own."""
    return leaf.evaluator.model if isinstance(leaf.evaluator, Evaluator) else None


def unlike_positive(leaves: Sequence[Leaf], unwanted: Container[Leaf]) -> list[Leaf]:
    """The leaves that are like the negative prompt: those that are moved away from, but for a positive prompt that is
    evaluated in another way too."""
    wanted = [leaf.conditioning for leaf in leaves if leaf not in unwanted]
    own = [leaf for leaf in leaves if leaf in unwanted]
    return [leaf for leaf in own if leaf.evaluator is None or all(each is not leaf.conditioning for each in wanted)]


def resting_in(expression: Prediction, level: float, step: int | None, path: Path) -> list[Guided]:
    """The guidances that leave x as it is, in a step that begins at this noise level."""
    return [part for part in guided_in(expression) if resting(part.rules, part.scale, level, path, step)]


def both_sides(expression: Prediction, wanted: Container[Prediction]) -> list[Leaf]:
    """Both conditionings of each guidance in the expression that has a part in the call with one of them."""
    pairs = ((part.positive, part.negative) for part in guided_in(expression))
    return [leaf for pair in pairs if any(side in wanted for side in pair) for leaf in pair if isinstance(leaf, Leaf)]


def in_host_order(leaves: Sequence[Leaf], negatives: Container[Leaf]) -> tuple[Leaf | None, ...]:
    """First the leaf that is the host's `positive`, then its `negative` (None where there is none), then the others."""
    wanted = [leaf for leaf in leaves if leaf not in negatives]
    unwanted = [leaf for leaf in leaves if leaf in negatives]
    return (*(wanted[:1] or [None]), *(unwanted[:1] or [None]), *wanted[1:], *unwanted[1:])
