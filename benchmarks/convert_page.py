"""ComfyUI's templates on the real page, as they are and converted.

    python benchmarks/convert_page.py          all of them: some minutes
    python benchmarks/convert_page.py --few 20  a seeded choice
    python benchmarks/convert_page.py --part 2/8   the second of eight parts, which are all of them together

For each: no node is missing that was not, every wire that leads to a node is in the prompt, the prompt of the converted
graph is what the prompt of the graph is converted to, and the server finds no fault in it that it does not find in the
prompt of the graph. tests/e2e/test_convert.py does it for forty.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

from stepwise.convert import converted
from stepwise.convert.solvers import OUTSIDE
from stepwise.tools.generate.on_page import opened, served

SEED = 14
LOAD = """async graph => {
    await app.loadGraphData(graph, true, false, app.extensionManager.workflow.activeWorkflow)
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker
    tracker.captureCanvasState ? tracker.captureCanvasState() : tracker.checkState()
}"""
SAVED = "() => JSON.parse(JSON.stringify(app.rootGraph.serialize()))"
# A node that the page does not know has no class there.
PROMPT = """async () => {
    const { output } = await app.graphToPrompt()
    for (const node of Object.values(output)) node.class_type ??= "of a pack that is not here"
    return JSON.parse(JSON.stringify(output))
}"""
# Which types of a graph and its subgraphs the page does not know.
MISSING = """() => {
    const types = graph => graph.nodes.flatMap(node => [node.type, ...(node.subgraph ? types(node.subgraph) : [])])
    return types(app.rootGraph).filter(type => !(type in LiteGraph.registered_node_types))
}"""
# What a conversion makes beside a node: its id has no meaning.
MADE = ("CFGGuider", "StepwiseCFGGuider", "RandomNoise", "StepwiseNoise")
Prompt = Mapping[str, Any]
Post = Callable[[str, Any], tuple[int, Any]]


def chosen(count: int | None) -> list[tuple[str, dict[str, Any]]]:
    """The templates in which something is converted, or a seeded choice of them."""
    from stepwise.benchmarks.convert import templates

    every = [(name, graph) for name, graph in templates().items() if converted(graph)[1].changed]
    return every if count is None else random.Random(SEED).sample(every, count)


def meaning(prompt: Prompt) -> dict[str, str]:
    """What each node of a prompt does; numbers as JavaScript has them."""

    def told(number: str) -> str:
        inputs = {name: value(each) for name, each in prompt[number]["inputs"].items()}
        return json.dumps([prompt[number]["class_type"], inputs], sort_keys=True)

    def value(each: Any) -> Any:
        if isinstance(each, list) and len(each) == 2 and isinstance(each[0], str) and each[0] in prompt:
            made = prompt[each[0]]["class_type"] in MADE
            return [told(each[0]) if made else each[0], each[1]]
        return int(each) if isinstance(each, float) and each.is_integer() else each

    return {number: told(number) for number, node in prompt.items() if node["class_type"] not in MADE}


def faults(post: Post, prompt: Prompt) -> set[str]:
    """The nodes that the server does not take."""
    status, answer = post("/prompt", {"prompt": prompt})
    if status == 200:
        post("/queue", {"clear": True})
        post("/interrupt", {})
    return set(answer.get("node_errors") or {})


def differences(page: Any, post: Post, graph: dict[str, Any]) -> list[str]:
    """What is wrong with a converted template on the page; nothing where all is well."""
    page.evaluate(LOAD, graph)
    missing, prompt, saved = set(page.evaluate(MISSING)), page.evaluate(PROMPT), page.evaluate(SAVED)
    made, report = converted(saved)
    page.evaluate(LOAD, made)
    found = [f"{kind} is missing" for kind in set(page.evaluate(MISSING)) - missing]
    now = page.evaluate(PROMPT)
    ours, expected = meaning(now), meaning(converted(prompt)[0])
    # In a prompt there are no subgraphs, and no faces of theirs on which something is chosen.
    alike = not any(each.why.endswith(OUTSIDE) for each in report.left)
    for number in {**ours, **expected} if alike else ():
        if ours.get(number) != expected.get(number):
            found.append(f"node {number} is\n  {ours.get(number)}\nwhere there should be\n  {expected.get(number)}")
    if bad := faults(post, now) - faults(post, prompt):
        found.append(f"the server refuses {', '.join(sorted(bad))}")
    return found if report.changed else ["nothing was converted"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="convert_page", description=__doc__)
    parser.add_argument("--few", type=int, help="how many, of all")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="the K-th of N parts")
    known = parser.parse_args()
    part, parts = map(int, known.part.split("/"))
    every, wrong = chosen(known.few)[part - 1 :: parts], 0
    with served() as (server, browser):
        page = opened(server, browser, False)
        for name, graph in every:
            found = differences(page, server.post, graph)
            wrong += bool(found)
            for each in found:
                print(f"{name}: {each}", flush=True)
    print(f"{len(every)} templates converted on the page, {wrong} with a difference")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
