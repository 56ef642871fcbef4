"""Curves that come by API: what is none is refused by the node that has it."""

import math

import pytest
from toy_models import call, prompt, refused

PREDICTION = call("StepwisePrediction", conditioning=prompt(0.1))[0]
NODES = {
    "StepwiseDrawnCurveGuidance": ("Guidance Curve (drawn)", {}),
    "StepwiseCrossfadePredictions": ("Crossfade Predictions", {"a": PREDICTION, "b": PREDICTION}),
    "StepwiseCurveSchedule": ("Curve", {}),
}
WRONG = {
    "no points": ({}, "curve has no points"),
    "empty": ({"points": []}, "curve is no list of points but []"),
    "number": (3, "curve is no list of points but 3"),
    "text": ("curve", "curve is no list of points but 'curve'"),
    "none": (None, "curve is no list of points but None"),
    "points are a number": ({"points": 3}, "curve is no list of points but 3"),
    "a point is a number": ([[0, 0], 1], "curve[1] is 1, not two finite numbers"),
    "three numbers": ({"points": [[0, 0, 0], [1, 1, 1]]}, "curve[0] is [0, 0, 0], not two finite numbers"),
    "one number": ([[0, 0], [1]], "curve[1] is [1], not two finite numbers"),
    "nan": ([[0, 0], [1, math.nan]], "curve[1] is [1, nan], not two finite numbers"),
    "infinite": ({"points": [[-math.inf, 0], [1, 1]]}, "curve[0] is [-inf, 0], not two finite numbers"),
    "words": ([["a", "b"]], "curve[0] is ['a', 'b'], not two finite numbers"),
    "surrogate": ([["\ud800", 0]], r"curve[0] is ['\ud800', 0], not two finite numbers"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("node", NODES)
def test_what_is_no_curve_is_refused_with_node_and_input(node, wrong):
    value, problem = WRONG[wrong]
    name, inputs = NODES[node]
    message = refused(node, curve=value, **inputs)
    assert message.startswith(name)
    assert f": {problem}. " in message
    message.encode()


@pytest.mark.parametrize("points", [[(0.0, 1.0), (1.0, 0.2)], {"points": [[0, 1], [1, 0.2]]}])
@pytest.mark.parametrize("node", NODES)
def test_curves_of_the_editor_and_bare_points_are_taken(node, points):
    assert call(node, curve=points, **NODES[node][1])
