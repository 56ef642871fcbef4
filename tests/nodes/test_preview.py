"""What the page is told about a schedule is what its node gives."""

import asyncio
import base64
import contextlib
import json
import threading

import pytest
import torch
from aiohttp import ClientError, web
from aiohttp.test_utils import TestClient, TestServer
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


def served(asked):
    """What `asked(client)` returns, a coroutine with a client of a server with our route and another one."""

    async def ping(request):
        return web.Response(text="here")

    async def run():
        app = web.Application(client_max_size=100 * 2**20)
        app.router.add_post(preview.ROUTE, preview.on_question)
        app.router.add_get("/ping", ping)
        async with TestClient(TestServer(app)) as client:
            return await asked(client)

    return asyncio.run(run())


def ask(body, **headers):
    async def asked(client):
        response = await client.post(preview.ROUTE, data=body, headers=headers)
        return response.status, await response.json()

    return served(asked)


def question(**values):
    return {"node": "StepwiseCurveSchedule", "values": values}


def test_the_route_answers_and_refuses():
    values = defaults(SCHEDULES[0])
    status, told = ask(json.dumps({"node": node_id(SCHEDULES[0]), "values": values}).encode())
    assert status == 200
    assert len(told["sigmas"]) == values["steps"] + 1
    for body in (b"{", b"{}", b"[]", b'{"node": "StepwiseNoSchedule", "values": {}}'):
        status, told = ask(body)
        assert (status, list(told)) == (400, ["error"]), body


FLAT = {"points": [[0.0, 1.0], [1.0, 0.0]]}
BAD_BODIES = {
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe\x00",
    "empty": b"",
    "null": b"null",
    "values null": json.dumps({"node": "StepwiseKarrasSchedule", "values": None}).encode(),
    "values a list": json.dumps({"node": "StepwiseKarrasSchedule", "values": [1, 2]}).encode(),
    "steps text": json.dumps({"node": "StepwiseKarrasSchedule", "values": {"steps": "many"}}).encode(),
    "steps a list": json.dumps({"node": "StepwiseKarrasSchedule", "values": {"steps": [3]}}).encode(),
    "deep": b'{"node": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": b'{"node": "StepwiseKarrasSchedule", "values": {"rho": NaN}}',
    "a curve of text": json.dumps(question(curve={"points": "flat"})).encode(),
    "a curve without points": json.dumps(question(curve={})).encode(),
    "a curve that is null": json.dumps(question(curve=None)).encode(),
    "a number of 10000 digits": b'{"node": "StepwiseKarrasSchedule", "values": {"steps": ' + b"9" * 10_000 + b"}}",
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_is_no_question_is_refused(name):
    status, told = ask(BAD_BODIES[name])
    assert (status, list(told)) == (400, ["error"])


def test_the_charset_that_a_body_names_is_of_no_matter():
    body = json.dumps(question(curve=FLAT)).encode()
    assert ask(body, **{"Content-Type": "application/json; charset=klingon"})[0] == 200


@pytest.mark.parametrize(
    ("node", "values", "said"),
    [
        ("LinearQuadratic", {"linear_steps": 1e-320}, "linear_steps is 1e-320"),
        ("Flow", {"shift": 1e999}, "shift is inf"),
        ("Flow", {"shift": -1e999}, "shift is -inf"),
    ],
)
def test_numbers_of_no_use_are_refused_by_name(node, values, said):
    body = json.dumps({"node": f"Stepwise{node}Schedule", "values": values}).replace("Infinity", "1e999").encode()
    assert ask(body)[1]["error"].startswith(said)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_of_no_finite_numbers_is_refused(value):
    for trained in (Trained(VE, (1.0, value)), Trained(FLOW, (0.5, 1.0), value)):
        with pytest.raises(ValueError, match="must be finite"):
            trained_from(as_json(trained))


def test_a_large_body_is_refused_unread():
    async def asked(client):
        sent = 0

        async def endless():
            nonlocal sent
            while sent < 50 * preview.LARGEST_BODY:
                sent += 100_000
                yield bytes(100_000)

        with contextlib.suppress(ClientError):
            assert (await client.post(preview.ROUTE, data=endless())).status == 413
        return sent

    assert served(asked) < 20 * preview.LARGEST_BODY
    assert ask(bytes(preview.LARGEST_BODY + 1))[0] == 413


def test_no_more_is_computed_than_a_second_of_work(monkeypatch):
    computed = []
    monkeypatch.setattr(preview, "schedule_values", lambda schedule, trained, values: computed.append(values) or [1.0])
    points = [[i / 100, 1.0 - i / 100] for i in range(101)]
    for values in ({"steps": 10_000, "denoise": 0.01}, {"steps": 10_000, "curve": {"points": points}}):
        status, told = ask(json.dumps(question(**{"curve": FLAT, **values})).encode())
        assert (status, told) == (200, {"note": "too many steps to draw before a run"})
    assert not computed
    assert ask(json.dumps(question(steps=10_000, curve=FLAT)).encode())[1]["sigmas"] == [1.0]
    assert len(computed) == 1


def test_a_curve_is_computed_beside_the_event_loop(monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(question):
        begun.set()
        assert go_on.wait(10)
        return {"sigmas": [1.0]}

    monkeypatch.setattr(preview, "answer", slow)

    async def asked(client):
        curve = asyncio.create_task(client.post(preview.ROUTE, data=json.dumps(question()).encode()))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        text = await (await client.get("/ping")).text()
        assert not curve.done()
        go_on.set()
        return text, await (await curve).json()

    assert served(asked) == ("here", {"sigmas": [1.0]})
