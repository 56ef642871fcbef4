"""What the page is told about a schedule is what its node gives."""

import asyncio
import base64
import json

import pytest
import torch
from aiohttp.test_utils import make_mocked_request
from stepwise.nodes.schedules import schedule_nodes
from stepwise.nodes.shared import preview
from stepwise.nodes.shared.preview import answer, as_json, schedule_values, trained_from
from stepwise.samplers import FLOW, VE
from stepwise.samplers.registry import SCHEDULES
from stepwise.samplers.schedules import trained_sigmas
from stepwise.samplers.schedules.tables import Trained

TABLE = tuple(torch.tensor(trained_sigmas()).tolist())
TRAINED = {"VE": Trained(VE, TABLE), "FLOW": Trained(FLOW, tuple(torch.linspace(0.001, 1.0, 1000).tolist()), 3.0)}
NODES = {node.SCHEDULE.id: node for node in schedule_nodes()}


def node_id(schedule):
    return f"Stepwise{schedule.id}Schedule"


def defaults(schedule):
    """What the widgets hold when the node is made, as the page sends it."""
    inputs = NODES[schedule.id].GET_SCHEMA().inputs
    values = {each.id: each.as_dict().get("default") for each in inputs if each.id != "model"}
    return json.loads(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.mark.parametrize("path", TRAINED)
def test_a_model_survives_json_bit_for_bit(path):
    trained = TRAINED[path]
    assert trained_from(json.loads(json.dumps(as_json(trained)))) == trained


def test_what_was_not_packed_is_refused():
    good = as_json(TRAINED["VE"])
    for name, value in [
        ("table", "no base64!"),
        ("table", ""),
        ("table", base64.b64encode(b"12345").decode()),
        ("table", base64.b64encode(bytes(4 * (preview.LARGEST_TABLE + 1))).decode()),
        ("path", "VP"),
        ("shift", "three"),
    ]:
        with pytest.raises(ValueError, match=r"\w"):
            trained_from({**good, name: value})
    with pytest.raises(KeyError):
        trained_from({name: good[name] for name in ("path", "table")})


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.id)
def test_the_answer_is_what_the_node_gives(schedule):
    values = defaults(schedule)
    (sigmas,) = NODES[schedule.id].execute(**values).args
    told = answer({"node": node_id(schedule), "values": values})["sigmas"]
    assert torch.equal(torch.tensor(told), sigmas)
    trained = TRAINED[schedule.paths[-1]]
    question = {"node": node_id(schedule), "values": values, "trained": as_json(trained)}
    assert answer(json.loads(json.dumps(question)))["sigmas"] == schedule_values(schedule, trained, values)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.id)
def test_the_error_is_the_nodes_own(schedule):
    values = {**defaults(schedule), "steps": 0}
    with pytest.raises(ValueError, match="steps") as raised:
        NODES[schedule.id].execute(**values)
    told = answer({"node": node_id(schedule), "values": values})["error"]
    assert str(raised.value) == f"{schedule.name} Schedule: {told}"


def ask(body):
    request = make_mocked_request("POST", preview.ROUTE)
    request._read_bytes = body
    response = asyncio.run(preview.on_question(request))
    return response.status, json.loads(response.text)


def test_the_route_answers_and_refuses():
    values = defaults(SCHEDULES[0])
    status, told = ask(json.dumps({"node": node_id(SCHEDULES[0]), "values": values}).encode())
    assert status == 200
    assert len(told["sigmas"]) == values["steps"] + 1
    for body in (b"{", b"{}", b"[]", b'{"node": "StepwiseNoSchedule", "values": {}}'):
        status, told = ask(body)
        assert (status, list(told)) == (400, ["error"]), body
    curve = json.dumps({"node": "StepwiseCurveSchedule", "values": {"curve": {"points": "flat"}}}).encode()
    assert ask(curve)[0] == 400
