"""What is wrong with a workflow on the servers that are to run it, before one does."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .schema import GROWING, Input, Nodes, is_wire

# Nodes of ComfyUI itself that say themselves which names they take, whatever their list has.
OWN_WORD = frozenset({"LoadLatent", "SelectModelDevice", "SelectCLIPDevice", "SelectVAEDevice", "CustomCombo"})
READ = {"INT": int, "FLOAT": float}
ANNOTATED = ("[input]", "[output]", "[temp]")


def workflow_problems(
    prompt: Mapping[str, Any], hosts: Mapping[str, Nodes], swept: Collection[tuple[str, str]]
) -> Iterator[str]:
    """Nodes that are not installed, inputs that have nothing, and values that a server will refuse; `swept` are the
    inputs of axes, which are checked by themselves."""
    unknown = False
    for number, node in prompt.items():
        kind = node["class_type"]
        if lacking := [host for host, nodes in hosts.items() if kind not in nodes]:
            unknown = unknown or len(lacking) == len(hosts)
            yield f"workflow: node {number} is a {kind}, which is not installed{where(lacking, hosts)}."
    reached = reachable(prompt, hosts)
    if not reached and not unknown:
        yield "workflow: no node saves or shows anything; add one, such as Save Image."
    for number in reached:
        kind, inputs = prompt[number]["class_type"], prompt[number].get("inputs", {})
        refused: dict[str, list[str]] = {}
        unlisted: dict[str, list[str]] = {}
        for host, nodes in hosts.items():
            for name, one in nodes.inputs(kind, inputs).items():
                if (number, name) in swept:
                    continue
                what = f"workflow: {name} of node {number} ({kind}) "
                if problem := refusal(one, inputs, prompt, nodes.misfit(kind, one, inputs.get(name), prompt)):
                    refused.setdefault(what + problem, []).append(host)
                elif problem := not_listed(one, inputs.get(name), kind):
                    unlisted.setdefault(what + problem, []).append(host)
        core = any(nodes.is_core(kind) for nodes in hosts.values())
        # Another pack may take what its lists do not have; only where servers differ is it known not to.
        known = {problem: named for problem, named in unlisted.items() if core or len(named) < len(hosts)}
        for problem, named in (refused | known).items():
            yield f"{problem}{where(named, hosts)}."


def reachable(prompt: Mapping[str, Any], hosts: Mapping[str, Nodes]) -> list[str]:
    """The nodes that the outputs need, in the workflow's order: a server looks at no other."""
    left = [number for number, node in prompt.items() if any(on.is_output(node["class_type"]) for on in hosts.values())]
    found: set[str] = set()
    while left:
        number = left.pop()
        if number not in found:
            found.add(number)
            values = prompt[number].get("inputs", {}).values()
            left += [value[0] for value in values if is_wire(value) and value[0] in prompt]
    return [number for number in prompt if number in found]


def refusal(one: Input, inputs: Mapping[str, Any], prompt: Mapping[str, Any], misfit: str) -> str:
    """Why a server refuses what an input has in the workflow; "" where it does not. It is less strict than an axis:
    a server makes a number of "7". `misfit` is what is wrong with its wire."""
    if one.name not in inputs:
        grown = one.kind == GROWING or one.kind.startswith("COMFY_DYNAMICSLOT")
        # What belongs to a choice has its default there, and an axis may make another choice.
        nested = "." in one.name
        return "is missing, and the node needs it" if one.required and not grown and not nested else ""
    value = inputs[one.name]
    if not is_wire(value):
        if one.kind not in READ:
            return ""
        try:
            value = READ[one.kind](value)
        except (TypeError, ValueError, OverflowError):
            return f"is {value!r}, which is no number"
    problem = one.refusal(value, prompt) or misfit
    return f"is {inputs[one.name]!r}, which {problem}" if problem else ""


def not_listed(one: Input, value: Any, kind: str) -> str:
    """Where an input takes names from a list, and the value is none of them."""
    own_word = kind in OWN_WORD or any(key.endswith("_upload") for key in one.about)
    if not one.choices or value is None or is_wire(value) or own_word or str(value).endswith(ANNOTATED):
        return ""
    problem = one.refusal(value, {})
    return f"is {value!r}, which {problem}" if problem else ""


def where(named: Collection[str], hosts: Collection[str]) -> str:
    return "" if len(named) == len(hosts) else f" on {', '.join(named)}"
