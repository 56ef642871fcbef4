"""Parameters are declared once, in signatures; everything else reads them there."""

import inspect
import math
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from cases import CASES, SCHEDULES, SOLVERS
from stepwise.samplers.parameters import InputError, Param, checked, parameters, quoted
from stepwise.samplers.registry import GUIDANCE

FUNCTIONS = {
    f"{kind}.{entry.id}": function
    for kind, table, attribute in (
        ("solver", SOLVERS, "plan"),
        ("schedule", SCHEDULES, "function"),
        ("guidance", GUIDANCE, "function"),
    )
    for entry in table
    if (function := getattr(entry, attribute))
}
POSITIONAL = {"path", "sigmas", "table", "steps", "call", "scale", "sigma", "denoised", "cond", "uncond"}
EVERY = [
    pytest.param(function, p, id=f"{name}.{p.name}")
    for name, function in FUNCTIONS.items()
    for p in parameters(function).values()
]
NUMBERS = [value for value in EVERY if not value.values[1].choices and value.values[1].kind in (int, float)]
CHOICES = [value for value in EVERY if value.values[1].choices]


def sample(
    x: float,
    *,
    eta: Annotated[float, Param("Share of noise.", 0.0, 1.0, 0.01)] = 0.5,
    steps: Annotated[int, Param("Number of steps.", 1)] = 20,
    time: Annotated[Literal["a", "b"], Param("Variable.")] = "a",
    exact: Annotated[bool, Param("Whether exact.")] = True,
    hidden: int = 3,
) -> None: ...


def test_parameters_are_what_the_signature_says():
    found = parameters(sample)
    assert list(found) == ["eta", "steps", "time", "exact"]
    eta, steps, time, exact = found.values()
    assert (eta.kind, eta.default, eta.meaning, eta.min, eta.max, eta.step) == (
        float,
        0.5,
        "Share of noise.",
        0.0,
        1.0,
        0.01,
    )
    assert (steps.kind, steps.default, steps.min, steps.max) == (int, 20, 1, math.inf)
    assert (time.kind, time.default, time.choices) == (str, "a", ("a", "b"))
    assert (exact.kind, exact.default, exact.choices) == (bool, True, ())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_keyword_parameter_of_the_registry_is_declared(name):
    """With a default, so that a node can be made from it; the rest are the path, the schedule, the table, what a
    schedule takes of a model, the shape of a drawn one, what a plan or a rule of guidance knows of its run, the call,
    the predictions, and what a rule of guidance gets by name from sockets of its own."""
    function = FUNCTIONS[name]
    sockets = {name for entry in GUIDANCE if entry.function is function for name in {**entry.others, **entry.curves}}
    declared = parameters(function)
    taken = {taken for entry in SCHEDULES if entry.function is function for taken in entry.takes}
    taken |= {"shape", "highest", "began", "below", "core_from", "core_to"}
    taken |= {known for entry in GUIDANCE if entry.function is function for known in entry.knows}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in declared and parameter.name in taken:
            assert parameter.default is not inspect.Parameter.empty or parameter.name == "table"
        elif parameter.name in sockets:
            assert parameter.default is inspect.Parameter.empty
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            assert parameter.name in declared
            assert declared[parameter.name].default is parameter.default
            assert parameter.default is not inspect.Parameter.empty
        else:
            assert parameter.name in POSITIONAL


@pytest.mark.parametrize(("function", "parameter"), EVERY)
def test_a_parameter_has_a_meaning_and_a_default_in_range(function, parameter):
    assert parameter.meaning.endswith(".")
    assert "  " not in parameter.meaning
    assert isinstance(parameter.default, parameter.kind)
    assert type(parameter.read(parameter.default)) is parameter.kind
    assert checked(function, {})[parameter.name] == parameter.default


@pytest.mark.parametrize(("function", "parameter"), NUMBERS)
def test_a_number_out_of_range_is_refused(function, parameter):
    """Both ends belong to the range; beyond either, and NaN, the error names the parameter, the value and the range."""
    for edge in (parameter.min, parameter.max):
        assert checked(function, {parameter.name: edge})[parameter.name] == edge
    outside = [value for value in (parameter.min - 1, parameter.max + 1) if math.isfinite(value)]
    for value in (*outside, math.nan):
        with pytest.raises(InputError) as caught:
            checked(function, {parameter.name: value})
        message = str(caught.value)
        assert message.startswith(f"{parameter.name} is {value!r}, out of range. ")
        assert f"from {parameter.min:g} to {parameter.max:g}" in message


@pytest.mark.parametrize(("function", "parameter"), CHOICES)
def test_an_unknown_choice_is_refused(function, parameter):
    for choice in parameter.choices:
        assert checked(function, {parameter.name: choice})[parameter.name] == choice
    with pytest.raises(InputError) as caught:
        checked(function, {parameter.name: "none of these"})
    message = str(caught.value)
    assert message.startswith(f"{parameter.name} is 'none of these'. Choose one of ")
    assert all(choice in message for choice in parameter.choices)


WRONG = {
    float: ("x", "0.5", None, [], (1.0,), {}, True, b"1", 1j, math.inf, 10**400),
    int: ("x", "3", None, [], {}, True, math.inf, -math.inf, 10**400),
    bool: ("maybe", "true", 1, 0.0, None),
    str: (3, None, True, [], {}),
}


@pytest.mark.parametrize(("function", "parameter"), EVERY)
def test_a_value_of_another_kind_is_refused(function, parameter):
    for value in WRONG[parameter.kind]:
        with pytest.raises(InputError) as caught:
            checked(function, {parameter.name: value})
        assert str(caught.value).startswith(f"{parameter.name} is {quoted(value)}")


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5), Fraction(1, 2)], ids=type)
def test_a_number_of_any_library_becomes_pythons(number):
    assert [type(each) for each in checked(sample, {"eta": number, "steps": 3.0}).values()] == [float, int, str, bool]
    assert checked(sample, {"eta": number})["eta"] == 0.5
    assert type(checked(sample, {"steps": np.int64(3)})["steps"]) is int


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_unknown_parameter_is_refused(name):
    """And the error lists those there are."""
    function = FUNCTIONS[name]
    with pytest.raises(InputError) as caught:
        checked(function, {"no_such": 1.0})
    assert str(caught.value).startswith("no_such is not a parameter here. Known are ")
    assert all(known in str(caught.value) for known in parameters(function) or ["none"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_settings_of_the_registry_are_values_that_exist(case):
    checked(case.solver.plan, case.setting.params)


@pytest.mark.parametrize("entry", SOLVERS, ids=lambda entry: entry.id)
def test_the_first_setting_is_the_default(entry):
    """What a new node does is what the first claims are for."""
    defaults = {name: parameter.default for name, parameter in entry.parameters.items()}
    assert entry.settings[0].params.items() <= defaults.items()


def test_names_are_unique():
    for table in (SOLVERS, SCHEDULES, GUIDANCE):
        for attribute in ("id", "name"):
            values = [getattr(entry, attribute) for entry in table]
            assert len(set(values)) == len(values)
