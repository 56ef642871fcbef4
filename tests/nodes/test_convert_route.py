"""The route that converts the page's workflow: JSON in and out, and a clear answer to anything else."""

import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from stepwise.nodes.shared import conversion
from stepwise.nodes.shared.conversion import LARGEST_BODY, ROUTE, on_question, reply

JSON = {"Content-Type": "application/json"}
NODE = {"id": 4, "type": "KSampler", "widgets_values": [1, "fixed", 20, 7.0, "euler", "karras", 1.0]}


def ask(body, headers=JSON):
    async def run():
        app = web.Application(client_max_size=100 * 2**20)
        app.router.add_post(ROUTE, on_question)
        async with TestClient(TestServer(app)) as client:
            response = await client.post(ROUTE, data=body, headers=headers)
            return response.status, await response.json()

    return asyncio.run(run())


def test_a_workflow_comes_back_converted_with_a_report():
    status, told = ask(json.dumps({"workflow": {"nodes": [NODE], "links": []}}))
    assert status == 200
    (node,) = told["workflow"]["nodes"]
    assert node["type"] == "StepwiseKSampler"
    values = dict(zip(node["properties"]["stepwise_widgets"], node["widgets_values"], strict=True))
    expected = {"seed": 1, "control_after_generate": "fixed", "steps": 20, "cfg": 7.0, "solver": "Euler"}
    assert expected.items() <= values.items()
    assert told["report"]["classes"] == {"same picture": 1}


def test_only_the_asked_nodes_of_the_asked_graph_are_converted():
    nodes = [NODE, {**NODE, "id": 5}]
    inner = {"id": "inside", "nodes": [{**NODE}], "links": [], "inputs": [], "outputs": []}
    question = {"workflow": {"nodes": nodes, "links": [], "definitions": {"subgraphs": [inner]}}}
    _, told = ask(json.dumps(question | {"only": [["inside", "4"]]}))
    made = told["workflow"]
    assert [each["type"] for each in made["nodes"]] == ["KSampler", "KSampler"]
    assert made["definitions"]["subgraphs"][0]["nodes"][0]["type"] == "StepwiseKSampler"


@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}])
def test_what_a_form_of_another_site_can_send_is_refused(headers):
    status, told = ask(json.dumps({"workflow": {"nodes": []}}), headers)
    assert status == 415
    assert told["error"].endswith("has to be application/json.")


def test_what_is_too_large_is_refused():
    assert ask(b" " * (LARGEST_BODY + 1))[0] == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"workflow": 3}',
        b'{"workflow": {"nodes": [{"id": [], "type": "KSampler"}]}}',
        b'{"workflow": {"nodes": [{"id": 1, "type": "KSampler", "pos": {}, "size": "x", "widgets_values": [1]}]}}',
        b'{"workflow": {"nodes": [], "links": [[1]], "definitions": {"subgraphs": [3]}}}',
        b'{"workflow": {"1": {"class_type": "KSampler", "inputs": {"steps": "many", "sampler_name": []}}}}',
    ],
)
def test_no_body_is_more_than_refused(body):
    status, text = reply(body)
    assert status in (200, 400)
    told = json.loads(text)
    assert "error" in told or "report" in told


def test_any_values_of_any_type_in_a_node_are_answered():
    """Each value of a node in the place of each other type."""
    node = {"id": 1, "type": "KSamplerAdvanced", "pos": [0, 0], "size": [1, 1], "flags": {}, "order": 0, "mode": 0}
    node |= {"inputs": [{"name": "model", "type": "MODEL", "link": 1}], "outputs": [{"name": "LATENT", "links": [2]}]}
    node |= {
        "properties": {},
        "widgets_values": ["enable", 1, "fixed", 20, 7.0, "euler", "karras", 0, 10000, "disable"],
    }
    bad = (None, True, -1, 1e400, "x", [], {}, [[]], {"a": 1})
    asked = 0
    for name in node:
        for value in bad:
            body = json.dumps({"workflow": {"nodes": [{**node, name: value}], "links": [[1, 9, 0, 1, 0, "MODEL"]]}})
            assert conversion.reply(body.encode())[0] in (200, 400)
            asked += 1
    for place in range(10):
        for value in bad:
            values = [*node["widgets_values"][:place], value, *node["widgets_values"][place + 1 :]]
            body = json.dumps({"workflow": {"nodes": [{**node, "widgets_values": values}], "links": []}})
            assert conversion.reply(body.encode())[0] in (200, 400)
            asked += 1
    assert asked == len(bad) * (len(node) + 10)
