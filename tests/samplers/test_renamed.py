"""Imports of version 0.1 work for one version more, and say where the thing is now."""

import importlib

import pytest

# What the README of 0.1.0 imported, and a name of every module that has moved since.
OLD = {
    "stepwise.samplers": ("VE", "FLOW", "AddressedNoise", "advance", "run", "start"),
    "stepwise.samplers.checkpoint": ("load", "save"),
    "stepwise.samplers.schedules": ("karras",),
    "stepwise.samplers.solvers.ancestral": ("ddim",),
    "stepwise.samplers.registry": ("SOLVERS", "SCHEDULES", "GUIDANCE", "OPERATIONS"),
    "stepwise.samplers.noise": ("AddressedNoise", "varied", "arc", "SEEDS"),
}
MOVED = {
    "stepwise.samplers.solvers.multistep": ("dpmpp_2m", "dpmpp_3m", "dpmpp_2m_sde", "lms", "deis", "unipc", "history"),
    "stepwise.samplers.algebra": ("Leaf", "guided", "scale", "parts", "terms", "evaluate", "check_weight"),
    "stepwise.samplers.brownian": ("BrownianNoise", "terms"),
    "stepwise.samplers.checks": ("check_sigmas", "faults", "remarks"),
    "stepwise.samplers.combine": ("combine", "accumulate"),
    "stepwise.samplers.parts": ("open_ended", "carried_over"),
    "stepwise.samplers.sigmas": ("split_at", "joined", "parsed"),
    "stepwise.samplers.trained": ("Trained",),
    "stepwise.samplers.schedules.finish": ("finished", "fractions"),
    "stepwise.samplers.guidance.away": ("apg", "zero_star", "perp_neg"),
    "stepwise.samplers.guidance.results": ("rescale", "threshold"),
    "stepwise.samplers.guidance.combine": ("cfg",),
}


@pytest.mark.parametrize("module", OLD)
def test_what_stayed_needs_no_warning(module, recwarn):
    found = importlib.import_module(module)
    assert all(hasattr(found, name) for name in OLD[module])
    assert not recwarn.list


@pytest.mark.parametrize("module", MOVED)
def test_what_moved_is_found_under_its_old_name(module):
    old = importlib.import_module(module)
    for name in MOVED[module]:
        with pytest.warns(DeprecationWarning, match=rf"{module}\.{name} is now ([\w.]+); the old name goes") as told:
            found = getattr(old, name)
        there, _, now = str(told[0].message).split(" is now ")[1].split(";")[0].rpartition(".")
        assert getattr(importlib.import_module(there), now) is found


def test_a_name_that_never_was():
    with pytest.raises(AttributeError, match="has no attribute 'dpmpp_9m'"):
        importlib.import_module("stepwise.samplers.solvers.multistep").dpmpp_9m  # noqa: B018
