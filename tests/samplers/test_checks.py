"""A schedule that no solver may see is refused with the input's name, what is wrong, where, and the cure."""

import math

import pytest
from cases import FLOW, VE, schedules
from stepwise.samplers.parameters import InputError
from stepwise.samplers.schedules.checks import check_sigmas

BAD = {
    "empty": (VE, (), None, "sigmas is empty", "with at least 1 step"),
    "one value": (VE, (1.5,), None, "holds one value, 1.5", "with at least 1 step"),
    "NaN": (VE, (3.0, math.nan, 0.0), 1, "is nan", "finite numbers"),
    "NaN first": (VE, (math.nan, 1.0), 0, "is nan", "finite numbers"),
    "infinite": (VE, (math.inf, 1.0, 0.0), 0, "is inf", "finite numbers"),
    "negative": (VE, (2.0, 1.0, -0.5), 2, "is -0.5, below 0", "down to 0"),
    "rising": (VE, (3.0, 1.0, 2.0, 0.0), 2, "is 2, not below the value before it, 1", "descends at every step"),
    "equal": (VE, (3.0, 1.0, 1.0, 0.0), 2, "is 1, not below the value before it, 1", "descends at every step"),
    "two zeros": (VE, (3.0, 0.0, 0.0), 2, "is 0, not below the value before it, 0", "descends at every step"),
    "upside down": (VE, (0.0, 1.0), None, "go up, from 0 to 1", "turn it round last, with Reverse Sigmas"),
    "above 1 on FLOW": (FLOW, (14.6, 1.0, 0.0), 0, "is 14.6, and a flow model begins at 1", "Wire the model"),
    "in timesteps": (FLOW, (999.0, 500.0, 0.0), 0, "these look like timesteps", "Divide them by 1000"),
    "first set by hand": (FLOW, (136.0, 0.5, 0.0), 0, "is 136, and a flow model begins at 1", "Wire the model"),
    "just above 1 on FLOW": (FLOW, (1.0000001, 0.5, 0.0), 0, "a flow model begins at 1", "Wire the model"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_schedule_is_refused(name):
    path, sigmas, index, problem, cure = BAD[name]
    with pytest.raises(InputError) as caught:
        check_sigmas(path, sigmas)
    assert caught.value.name == "sigmas"
    assert caught.value.index == index
    message = str(caught.value)
    assert message.startswith("sigmas" if index is None else f"sigmas[{index}] ")
    assert problem in message
    assert cure in message
    assert message.endswith(".")


def test_the_error_carries_the_name_of_the_input():
    with pytest.raises(InputError, match=r"^first_half\[1\] is 1, not below"):
        check_sigmas(VE, (1.0, 1.0), "first_half")


@pytest.mark.parametrize("path", [VE, FLOW])
def test_every_schedule_of_the_registry_passes(path):
    for sigmas in schedules(path, (1, 2, 3, 20, 1000)).values():
        check_sigmas(path, sigmas)


def test_a_flow_schedule_may_begin_at_exactly_1():
    check_sigmas(FLOW, (1.0, 0.5))
