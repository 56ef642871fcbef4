"""Expressions whose rules are told what only the run knows."""

from dataclasses import replace

from .chain import Chain, informed
from .expressions import Clamped, Factor, Guided, Mix, Prediction, Projected, Sum, Switched, subexpressions


def asks(p: Prediction) -> bool:
    """Whether a rule in the expression has to know more of the run than its noise level."""
    return any(rule.knows for part in subexpressions(p) for rules in chains(part) for rule in rules)


def counts_steps(p: Prediction) -> bool:
    """Whether a rule in the expression goes by the number of the step."""
    return any("step" in rule.knows for part in subexpressions(p) for rules in chains(part) for rule in rules)


def chains(p: Prediction) -> tuple[Chain, ...]:
    match p:
        case Guided():
            return (p.rules,)
        case Sum():
            return tuple(factor.rules for _, factor in p.terms)
        case Mix():
            return (p.amount.rules,)
        case _:
            return ()


def told(p: Prediction, **facts: int) -> Prediction:
    """The expression with its rules `informed`. What is used several times is still one; leaves stay the same."""
    return _told(p, facts, {})


def _told(p: Prediction, facts: dict[str, int], known: dict[Prediction, Prediction]) -> Prediction:
    if p not in known:
        known[p] = _made(p, facts, known)
    return known[p]


def _made(p: Prediction, facts: dict[str, int], known: dict[Prediction, Prediction]) -> Prediction:
    def of(part: Prediction) -> Prediction:
        return _told(part, facts, known)

    def factor(given: Factor) -> Factor:
        return replace(given, rules=informed(given.rules, **facts))

    match p:
        case Sum():
            return Sum(tuple((of(term), factor(f)) for term, f in p.terms))
        case Mix():
            return Mix(of(p.a), of(p.b), factor(p.amount))
        case Guided():
            return replace(p, positive=of(p.positive), negative=of(p.negative), rules=informed(p.rules, **facts))
        case Projected():
            return replace(p, prediction=of(p.prediction), onto=of(p.onto))
        case Clamped():
            return replace(p, prediction=of(p.prediction))
        case Switched():
            return replace(p, inside=of(p.inside), outside=of(p.outside))
        case _:
            return p
