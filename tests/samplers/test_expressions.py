"""Expressions of predictions: identities, what they need of the model, and what never depends on the batch."""

import itertools
import math
import random

import pytest
import torch
from stepwise.samplers import FLOW, VE
from stepwise.samplers.guidance import Call, Rule, interval, rescale, scale_at
from stepwise.samplers.guidance.evaluation import check_weight, evaluate, needed, varies, weight
from stepwise.samplers.guidance.expressions import (
    Clamped,
    Guided,
    Leaf,
    Mix,
    Projected,
    Sum,
    Switched,
    add,
    clamp,
    crossfade,
    guided,
    mix,
    negatives,
    project,
    reject,
    scale,
    subexpressions,
    switch,
)
from stepwise.samplers.parameters import InputError

SHAPES = [(2, 4, 6, 6), (2, 4, 3, 5, 5), (2, 1, 90)]
SIGMA = 1.5
INTERVAL = Rule("scale", interval, {"sigma_low": 1.0, "sigma_high": 2.0, "measure": "sigma"})
A, B, C = (Leaf([name]) for name in "abc")


def tensors(shape=SHAPES[0], leaves=(A, B, C), dtype=torch.float64):
    """A value for each leaf; for the same conditioning as a negative the same."""
    generator = torch.Generator().manual_seed(2)
    made = {leaf: torch.randn(shape, generator=generator, dtype=dtype) for leaf in leaves}
    return made | {Leaf(leaf.conditioning, negative=True): value for leaf, value in made.items()}


def call_of(values, sigma=SIGMA, path=VE, components=()):
    return Call(torch.ones_like(values[A]), sigma, path, components=components)


def value(p, values=None, **call):
    values = values or tensors()
    return evaluate(p, call_of(values, **call), values)


def close(a, b, bound=1e-12):
    return ((a - b).abs().max() <= bound * (1.0 + b.abs().max())).item()


def test_guidance_by_hand_is_guidance():
    by_hand = add(B, scale(add(A, B, factor_b=-1.0), factor=7.0))
    values = tensors()
    expected = values[B] + 7.0 * (values[A] - values[B])
    assert close(value(by_hand, values), expected)
    assert close(value(guided(A, B, scale=7.0), values), expected)
    assert close(value(mix(B, A, amount=7.0), values), expected)


@pytest.mark.parametrize("s", [0.0, 0.5, 1.0, 7.5, 30.0])
def test_equal_predictions_are_what_guidance_gives_at_every_scale(s):
    values = tensors()
    assert close(value(guided(A, A, scale=s), values), values[A])
    assert value(mix(A, A, amount=s), values) is values[A]
    assert needed(mix(A, A, amount=s), SIGMA, VE) == (A,)


def test_what_has_no_part_in_the_result_is_not_needed_and_nothing_is_copied_for_it():
    values = tensors()
    cases = {
        guided(A, B, scale=1.0): A,
        guided(A, B, scale=0.0): B,
        guided(A, B, scale=7.0, rules=(INTERVAL,)): None,
        mix(A, B, amount=0.0): A,
        mix(A, B, amount=1.0): B,
        add(add(A, B), B, factor_b=-1.0): A,
        add(add(add(A, B, factor_b=0.1), B, factor_b=0.2), B, factor_b=-0.3): A,
        switch(A, B, sigma_low=1.0, sigma_high=2.0): A,
        switch(A, B, sigma_low=2.0, sigma_high=3.0): B,
        crossfade(A, B, curve=lambda u: 0.0): A,
        crossfade(A, B, curve=lambda u: 1.0): B,
    }
    for p, only in cases.items():
        if only is not None:
            assert needed(p, SIGMA, VE) == (only,)
            assert value(p, {only: values[only], A: values[A]}) is values[only]
    limited = guided(A, B, scale=7.0, rules=(INTERVAL,))
    assert needed(limited, 3.0, VE) == (A,)
    assert set(needed(limited, 1.5, VE)) == {A, B}


def test_one_conditioning_is_one_leaf():
    """Unless guidance moves from it to itself: in a role of its own a model may treat it otherwise."""
    again = Leaf(A.conditioning)
    assert needed(add(A, again, factor_a=2.0), SIGMA, VE) == (A,)
    two = add(guided(A, B, scale=3.0), add(guided(C, B, scale=2.0), B, factor_b=-1.0))
    assert set(needed(two, SIGMA, VE)) == {A, B, C}
    assert needed(add(add(A, B, factor_b=-1.0), guided(C, B, scale=0.0)), SIGMA, VE) == (A,)
    assert len(needed(guided(A, again, scale=3.0), SIGMA, VE)) == 2


def test_two_prompts_and_two_scales():
    """Liu et al. 2022 (composable diffusion), eq. 11: the unconditional prediction and two weighted differences."""
    values = tensors()
    p = add(guided(A, B, scale=5.0), scale(add(C, B, factor_b=-1.0), factor=2.0))
    expected = values[B] + 5.0 * (values[A] - values[B]) + 2.0 * (values[C] - values[B])
    assert close(value(p, values), expected)


def flattened(t, components):
    ends = list(itertools.accumulate(components)) if components else [t[0].numel()]
    rows = t.reshape(len(t), -1)
    return [rows[:, a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize("components", [(), (40, 50)])
@pytest.mark.parametrize("shape", SHAPES)
def test_projection_takes_a_prediction_apart(shape, components):
    if components and len(shape) != 3:
        shape = (2, 1, 90)
    values = tensors(shape)
    along, across = (value(op(A, B), values, components=components) for op in (project, reject))
    assert close(along + across, values[A])
    assert close(value(project(project(A, B), B), values, components=components), along)
    assert close(value(project(B, B), values, components=components), values[B])
    assert close(value(project(A, scale(B, factor=-3.0)), values, components=components), along)
    for part, direction in zip(flattened(across, components), flattened(values[B], components), strict=True):
        assert ((part * direction).sum(dim=1).abs() < 1e-10).all()
    zero = {**values, B: torch.zeros_like(values[B])}
    assert torch.equal(value(project(A, B), zero), zero[B])
    assert torch.equal(value(reject(A, B), zero), zero[A])


@pytest.mark.parametrize("components", [(), (40, 50)])
def test_clamping_limits_each_image_and_keeps_its_direction(components):
    values = tensors((3, 1, 90))
    values[A][1] *= 0.01
    limited = value(clamp(A, limit=0.5), values, components=components)
    for before, after in zip(flattened(values[A], components), flattened(limited, components), strict=True):
        rms = [t.square().mean(dim=1).sqrt() for t in (before, after)]
        assert close(rms[1], rms[0].clamp(max=0.5))
        assert close(after / rms[1][:, None], before / rms[0][:, None])
    assert torch.equal(limited[1], values[A][1])
    cut = value(clamp(A, limit=0.5, of="value"), values)
    assert torch.equal(cut, values[A].clamp(-0.5, 0.5))
    assert not value(clamp(A, limit=0.0), values).any()


def test_a_curve_leads_from_one_to_the_other():
    p = crossfade(A, B, curve=lambda u: u, over="sigma", sigma_start=10.0, sigma_end=2.0)
    values = tensors()
    assert close(value(p, values, sigma=6.0), 0.5 * (values[A] + values[B]))
    assert value(p, values, sigma=12.0) is values[A]
    assert value(p, values, sigma=1.0) is values[B]


class Expressions:
    """Random expressions, and their values by the plainest arithmetic."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def make(self, depth):
        r = self.random
        if depth == 0:
            return r.choice([A, B, C])
        a, b = self.make(depth - 1), self.make(depth - r.randint(1, depth))
        rules = r.choice([(), (INTERVAL,)])
        number = r.choice([0.0, 1.0, r.uniform(-2.0, 3.0)])
        return r.choice(
            [
                lambda: add(a, b, factor_a=number, factor_b=r.uniform(-1.0, 1.0)),
                lambda: scale(a, factor=number, rules=rules),
                lambda: mix(a, b, amount=number, rules=rules),
                lambda: guided(a, b, scale=abs(number), rules=rules),
                lambda: guided(a, b, scale=1.0 + abs(number), rules=(Rule("result", rescale, {"phi": 0.5}),)),
                lambda: project(a, b),
                lambda: reject(a, b),
                lambda: clamp(a, limit=0.7, of=r.choice(["rms", "value"])),
                lambda: switch(a, b, sigma_low=1.0, sigma_high=2.0, measure="sigma"),
            ]
        )()

    def value(self, p, values, call):
        def at(p):
            return self.value(p, values, call)

        def number(f):
            return scale_at(f.rules, f.value, call.sigma, call.path)

        match p:
            case Leaf():
                return values[p]
            case Sum():
                return sum(number(f) * at(term) for term, f in p.terms)
            case Mix():
                return (1.0 - number(p.amount)) * at(p.a) + number(p.amount) * at(p.b)
            case Guided():
                s = scale_at(p.rules, p.scale, call.sigma, call.path)
                result = at(p.negative) + s * (at(p.positive) - at(p.negative))
                for rule in p.rules:
                    if rule.kind == "result" and s != 1.0:
                        result = rule.function(call, result, at(p.positive), **rule.params)
                return result
            case Projected():
                a, b = at(p.prediction), at(p.onto)
                rows, other = a.reshape(len(a), -1), b.reshape(len(b), -1)
                length = (other * other).sum(1)
                ratio = torch.where(length > 0, (rows * other).sum(1) / length.where(length > 0, 1.0), 0.0)
                along = ratio.reshape(-1, *[1] * (a.ndim - 1)) * b
                return a - along if p.rejected else along
            case Clamped():
                a = at(p.prediction)
                if p.of == "value":
                    return a.clamp(-p.limit, p.limit)
                rms = a.square().mean(dim=tuple(range(1, a.ndim)), keepdim=True).sqrt()
                return a * (p.limit / rms).clamp(max=1.0).nan_to_num(1.0)
            case Switched():
                return at(p.inside if p.chosen(call.sigma, call.path) else p.outside)


RANDOM = [Expressions(seed).make(depth) for seed in range(60) for depth in (2, 4)]


@pytest.mark.parametrize("sigma", [0.6, 1.5])
@pytest.mark.parametrize("index", range(len(RANDOM)))
def test_any_expression_is_what_its_formula_says_and_needs_no_more_than_it_says(index, sigma):
    p = RANDOM[index]
    values = tensors()
    call = call_of(values, sigma=sigma)
    only = {leaf: values[leaf] for leaf in needed(p, sigma, VE)}
    kept = {leaf: tensor.clone() for leaf, tensor in only.items()}
    found = evaluate(p, call, only)
    reference = Expressions(0).value(p, values, call)
    assert close(found, reference, 1e-9) or reference.abs().max() > 1e6
    assert all(torch.equal(only[leaf], tensor) for leaf, tensor in kept.items())
    if not varies(p):
        assert torch.equal(evaluate(p, call_of(values, sigma=math.nan), only), found)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_is_the_same_alone_and_in_a_batch(shape):
    values = tensors((8, *shape[1:]), dtype=torch.float32)
    components = (40, 50) if len(shape) == 3 else ()
    for p in RANDOM[::3]:
        batch = evaluate(p, call_of(values, components=components), values)
        for i in (0, 5):
            alone = {leaf: tensor[i : i + 1] for leaf, tensor in values.items()}
            assert torch.equal(evaluate(p, call_of(alone, components=components), alone), batch[i : i + 1])


def linear(p):
    return not any(
        isinstance(part, Projected | Clamped) or (isinstance(part, Guided) and not part.linear)
        for part in subexpressions(p)
    )


def test_the_weight_says_how_a_shift_of_all_predictions_shows_in_the_result():
    cases = [p for p in RANDOM if linear(p)]
    assert len(cases) > 10
    for p, sigma in itertools.product(cases, (0.6, 1.5)):
        values = tensors()
        moved = {leaf: tensor + 3.0 for leaf, tensor in values.items()}
        shift = value(p, moved, sigma=sigma) - value(p, values, sigma=sigma)
        assert close(shift, torch.full_like(shift, 3.0 * weight(p, sigma, VE)), 1e-9)


@pytest.mark.parametrize(("p", "expected"), [(A, 1), (add(A, B, factor_b=-1.0), 0), (guided(A, B), 1), (mix(A, B), 1)])
@pytest.mark.parametrize(("onto", "direction"), [(C, False), (add(B, C, factor_b=-1.0), True)])
def test_the_parts_of_a_prediction_weigh_together_what_it_does(p, expected, onto, direction):
    along, across = weight(project(p, onto), SIGMA, VE), weight(reject(p, onto), SIGMA, VE)
    assert along + across == pytest.approx(expected)
    assert along == pytest.approx(0.0 if direction else expected)
    assert weight(clamp(p), SIGMA, FLOW) == pytest.approx(expected)


def test_what_is_no_prediction_is_refused_with_its_noise_level():
    check_weight(guided(A, B), [3.0, 1.5], VE)
    with pytest.raises(InputError, match=r"adds up to 2 predictions at sigma 3, not to one\. Let the factors add up"):
        check_weight(add(A, B), [3.0, 1.5], VE)
    with pytest.raises(InputError, match=r"is a difference of predictions at sigma 3"):
        check_weight(add(A, B, factor_b=-1.0), [3.0], VE)
    limited = scale(A, factor=0.9, rules=(INTERVAL,))
    check_weight(limited, [3.0], VE)
    with pytest.raises(InputError, match=r"adds up to 0\.9 predictions at sigma 1\.5"):
        check_weight(limited, [3.0, 1.5], VE)


def test_inputs_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="rule holds a rule that is no number"):
        scale(A, rules=(Rule("result", rescale),))
    with pytest.raises(InputError, match="sigma_low is 3, above sigma_high = 2"):
        switch(A, B, sigma_low=3.0, sigma_high=2.0)
    with pytest.raises(InputError, match="sigma_end is 2, not below sigma_start = 1"):
        crossfade(A, B, curve=lambda u: u, sigma_start=1.0, sigma_end=2.0)


def test_nothing_is_kept_of_a_call():
    """Predictions are as large as latents: none may wait for Python's collector."""
    import gc
    import weakref

    gc.disable()
    try:
        for p in RANDOM[:20]:
            values = {leaf: tensor.clone() for leaf, tensor in tensors().items()}
            found = evaluate(p, call_of(values), values)
            held = [weakref.ref(tensor) for tensor in values.values() if tensor is not found]
            del values, found
            assert not any(ref() is not None for ref in held)
    finally:
        gc.enable()


def chain_on_itself(length):
    """Projections of sums of the one before: with each use followed apart, 4 to the power of their number of visits."""
    p = A
    for _ in range(length):
        p = project(mix(p, add(p, B, factor_b=-0.5), amount=0.3), add(p, p, factor_a=0.4, factor_b=0.6))
    return p


@pytest.mark.parametrize("walk", ["weight", "needed", "evaluate", "subexpressions"])
def test_a_part_that_is_used_many_times_is_looked_at_once(walk, monkeypatch):
    """The visits grow by the same number with each link of the chain."""
    from stepwise.samplers.guidance import evaluation, expressions

    visits = []

    def counted(function):
        return lambda p, *args: (visits.append(p), function(p, *args))[1]

    monkeypatch.setattr(evaluation, "summands", counted(evaluation.summands))
    monkeypatch.setattr(evaluation, "operands", counted(evaluation.operands))
    monkeypatch.setattr(expressions, "children", counted(expressions.children))
    values = tensors()
    walks = {
        "weight": lambda p: weight(p, SIGMA, VE),
        "needed": lambda p: needed(p, SIGMA, VE),
        "evaluate": lambda p: evaluate(p, call_of(values), values),
        "subexpressions": subexpressions,
    }
    counts = []
    for length in (4, 5, 6, 60):
        visits.clear()
        walks[walk](chain_on_itself(length))
        counts.append(len(visits))
    assert counts[1] - counts[0] == counts[2] - counts[1] > 0
    assert counts[3] - counts[2] == 54 * (counts[2] - counts[1])


def test_a_shared_part_has_one_value():
    """That of the same expression made of parts of its own; and its sums cancel as theirs do."""
    values, shared = tensors(), mix(A, B, amount=0.3)
    rest = clamp(shared, limit=0.5)
    p = add(mix(shared, rest, amount=0.2), project(shared, shared), factor_b=0.0)
    own = mix(mix(A, B, amount=0.3), clamp(mix(A, B, amount=0.3), limit=0.5), amount=0.2)
    assert close(value(p, values), value(own, values))
    difference = add(shared, shared, factor_b=-1.0)
    assert needed(add(C, difference), SIGMA, VE) == (C,)


def test_the_leaves_that_an_expression_moves_away_from():
    difference = add(A, B, factor_b=-1.0)
    assert negatives(guided(A, B)) == {B}
    assert negatives(guided(mix(A, C), B)) == negatives(guided(guided(A, B), B)) == {B}
    assert negatives(guided(A, mix(B, C))) == {B, C}
    assert negatives(add(B, scale(difference, factor=5.0))) == {B}
    assert negatives(mix(A, B)) == negatives(mix(guided(A, C), guided(B, C))) - {C} == set()
    assert negatives(mix(guided(A, B), guided(B, A))) == {A, B}
    assert negatives(project(A, difference)) == set()
