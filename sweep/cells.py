"""The cells of a sweep: each a whole prompt, and what is wrong with any of them before one runs."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .checks import workflow_problems
from .editor import Prompt, prompt_of
from .file import PART, Axis, Split, Sweep
from .schema import DYNAMIC, Nodes, is_wire
from .values import MOST, BadSweep

# A node and one of its inputs.
Place = tuple[str, str]
AUTOSAVE = "autosave_every"
# What Noise (Stepwise) counts on from picture to picture.
SEED, SEED_STEP, SEEDS, VARIATION = "seed", "seed_step", "seeds", "variation_seed"
ALL_SEEDS = 2**64


@dataclass(frozen=True)
class Cell:
    """`point` says what each axis is; `key` is a digest of both."""

    number: int
    point: Mapping[str, Any]
    prompt: Prompt

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(f"{written(self.point)}\n{written(self.prompt)}".encode()).hexdigest()


def listed(noise: Mapping[str, Any]) -> list[str]:
    """The seeds that a node of noise lists."""
    return [each for each in re.split(r"[,;\s]+", str(noise.get(SEEDS, ""))) if each]


def written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


class Cells:
    """The cells of a sweep on servers that have these nodes.

    Raises BadSweep with all that is wrong: nodes and inputs that are not there, values that an input does not take,
    on whichever of the servers.
    """

    def __init__(self, sweep: Sweep, hosts: Mapping[str, Mapping[str, Any]]) -> None:
        self.sweep = sweep
        self.hosts = {name: Nodes(info) for name, info in hosts.items()}
        self.nodes = next(iter(self.hosts.values()))
        self.prompt = prompt_of(sweep.workflow, self.nodes.info)
        self.problems: list[str] = []
        self.places = {axis.name: self.places_of(axis) for axis in sweep.axes}
        self.check_workflow()
        self.parts: tuple[tuple[int, int], ...] = self.parts_of(sweep.split) if sweep.split else ()
        for axis in sweep.axes:
            self.check_values(axis)
        if len(self) > MOST:
            self.problems.append(f"that makes {len(self)} cells, and a sweep has at most {MOST}.")
        if self.problems:
            raise BadSweep(*dict.fromkeys(self.problems))

    def __len__(self) -> int:
        return len(self.sweep) * max(len(self.parts), 1)

    def __iter__(self) -> Iterator[Cell]:
        number = 0
        for point in self.sweep.points():
            prompt = self.autosaved(self.filled(point))
            for part in range(max(len(self.parts), 1)):
                if self.parts:
                    yield Cell(number, {**point, PART: part}, self.part(prompt, *self.parts[part]))
                else:
                    yield Cell(number, point, prompt)
                number += 1

    # What a prompt becomes at a point.

    def filled(self, point: Mapping[str, Any]) -> Prompt:
        made = dict(self.prompt)
        touched: dict[str, set[str]] = {}
        for name, value in point.items():
            for node, wanted in self.places[name]:
                made[node] = {**made[node], "inputs": {**made[node].get("inputs", {}), wanted: value}}
                touched.setdefault(node, set()).add(wanted)
        for node, names in touched.items():
            made[node] = {**made[node], "inputs": self.settled(made[node], names)}
        return made

    def settled(self, node: Mapping[str, Any], changed: set[str]) -> dict[str, Any]:
        """The inputs of a node after some were set: under a choice that was made anew, those that it has."""
        values = dict(node["inputs"])
        declared = self.nodes.inputs(node["class_type"], values)
        for name in changed:
            if name in declared and declared[name].kind == DYNAMIC:
                before = f"{name}."
                inner = {each: one for each, one in declared.items() if each.startswith(before)}
                values = {each: value for each, value in values.items() if not each.startswith(before) or each in inner}
                needed = {each: one.default for each, one in inner.items() if one.required and one.typed}
                values = {**needed, **values}
        return values

    def autosaved(self, prompt: Prompt) -> Prompt:
        """With the sweep's autosave_every in the nodes that can save and do not yet."""
        every = self.sweep.autosave_every
        made = dict(prompt)
        for number, node in prompt.items():
            inputs = node.get("inputs", {})
            if every and not inputs.get(AUTOSAVE) and self.nodes.takes(node["class_type"], AUTOSAVE):
                made[number] = {**node, "inputs": {**inputs, AUTOSAVE: every}}
        return made

    def part(self, prompt: Prompt, first: int, last: int) -> Prompt:
        """The pictures from `first` on, before `last`, with the seeds that they have in the whole batch."""
        split = self.sweep.split
        assert split is not None
        (batch, wanted), noise = self.place(split.batch), self.node(split.noise)
        inputs = dict(prompt[noise]["inputs"])
        inputs[SEEDS] = ", ".join(listed(inputs)[first:last])
        # Seeds begin again after the largest, as they do in the whole batch.
        inputs[SEED] = (inputs.get(SEED, 0) + first * inputs.get(SEED_STEP, 1)) % ALL_SEEDS
        inputs[VARIATION] = (inputs.get(VARIATION, 0) + first) % ALL_SEEDS
        sized = {**prompt[batch], "inputs": {**prompt[batch]["inputs"], wanted: last - first}}
        return {**prompt, batch: sized, noise: {**prompt[noise], "inputs": inputs}}

    # What is asked for, found in the workflow.

    def node(self, name: str) -> str:
        """The id of a node that is named by its id, its title or its kind. Raises BadSweep."""
        if name in self.prompt:
            return name
        for known in (self.title, self.kind, lambda number: self.nodes.title(self.kind(number))):
            found = [number for number in self.prompt if known(number) == name]
            if len(found) > 1:
                raise BadSweep(f"{len(found)} nodes are called {name!r}: name one by its id, {' or '.join(found)}")
            if found:
                return found[0]
        raise BadSweep(f"there is no node {name!r} in the workflow")

    def title(self, number: str) -> str:
        meta = self.prompt[number].get("_meta")
        return str(meta.get("title", "")) if isinstance(meta, dict) else ""

    def kind(self, number: str) -> str:
        return self.prompt[number]["class_type"]

    def place(self, text: str) -> Place:
        """The node and the input of NODE.INPUT; both may have dots in them. Raises BadSweep."""
        dots = [place for place, letter in enumerate(text) if letter == "."]
        faults = []
        for dot in dots:
            try:
                node = self.node(text[:dot])
            except BadSweep as error:
                faults.append(str(error))
                continue
            wanted = text[dot + 1 :]
            if self.kind(node) not in self.nodes or self.nodes.takes(self.kind(node), wanted):
                return node, wanted
            names = ", ".join(self.nodes.inputs(self.kind(node), self.prompt[node].get("inputs", {})))
            faults = [f"{text[:dot]} has no input {wanted!r}; it has {names}"]
            break
        raise BadSweep(faults[0] if faults else f"{text!r} has no dot; write NODE.INPUT")

    def places_of(self, axis: Axis) -> list[Place]:
        found = []
        for text in axis.inputs:
            try:
                found.append(self.place(text))
            except BadSweep as error:
                self.problems.append(f"axes.{axis.name}: {error}.")
        return found

    def parts_of(self, split: Split) -> tuple[tuple[int, int], ...]:
        try:
            (node, wanted), noise = self.place(split.batch), self.node(split.noise)
        except BadSweep as error:
            self.problems.append(f"split: {error}.")
            return ()
        size = self.prompt[node]["inputs"].get(wanted)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            self.problems.append(f"split: {split.batch} is {size!r}, and no number of pictures.")
            return ()
        if not self.nodes.takes(self.kind(noise), SEED_STEP):
            told = f"{split.noise} gives one seed to the whole batch; take Noise (Stepwise), with one for each"
            self.problems.append(f"split: {told}.")
            return ()
        given = self.prompt[noise]["inputs"]
        wired = [f"{noise}.{name}" for name in (SEED, SEED_STEP, SEEDS, VARIATION) if is_wire(given.get(name))]
        if wired:
            self.problems.append(f"split: {wired[0]} comes by a wire; write it into the node.")
            return ()
        for name in (SEED, SEED_STEP, VARIATION):
            if type(value := given.get(name, 0)) is not int:
                self.problems.append(f"split: {noise}.{name} is {value!r}, and no whole number.")
                return ()
        for axis, places in self.places.items():
            if (node, wanted) in places:
                self.problems.append(f"split: axes.{axis} sets {split.batch}, the number of pictures that is split.")
        lists = [axis.values for axis in self.sweep.axes if (noise, SEEDS) in self.places[axis.name]]
        for text in lists[0] if lists else [given.get(SEEDS, "")]:
            if (number := len(listed({SEEDS: text}))) not in (0, size):
                self.problems.append(f"split: {split.noise} lists {number} seeds, and the batch has {size} pictures.")
        return tuple((first, min(first + split.by, size)) for first in range(0, size, split.by))

    # What is wrong.

    def check_workflow(self) -> None:
        swept: dict[Place, str] = {}
        for name, places in self.places.items():
            for place in places:
                if (other := swept.setdefault(place, name)) != name:
                    self.problems.append(f"axes.{name}: sets {'.'.join(place)}, which axes.{other} sets too.")
        self.problems += workflow_problems(self.prompt, self.hosts, swept)
        if self.sweep.autosave_every and not any(
            self.nodes.takes(node["class_type"], AUTOSAVE) for node in self.prompt.values()
        ):
            self.problems.append("autosave_every: no node of the workflow can save on the way; 0 is for none.")

    def check_values(self, axis: Axis) -> None:
        """Each value at each of its places, on each server."""
        for node, wanted in self.places[axis.name]:
            told: dict[str, list[str]] = {}
            for host, nodes in self.hosts.items():
                declared = nodes.inputs(self.kind(node), {}, every=True).get(wanted)
                if declared is None:
                    continue
                # A list of files may be longer by the time that it is asked for; what is to be known now is known now.
                for value in axis.values:
                    misfit = nodes.misfit(self.kind(node), declared, value, self.prompt)
                    if refused := declared.refusal(value, self.prompt) or misfit:
                        told.setdefault(f"axes.{axis.name}: {value!r} for {node}.{wanted} {refused}", []).append(host)
            for problem, hosts in told.items():
                where = "" if len(hosts) == len(self.hosts) else f" (on {', '.join(hosts)})"
                self.problems.append(f"{problem}{where}.")
