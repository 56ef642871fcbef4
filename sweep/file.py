"""A sweep file: a workflow, and axes over inputs of its nodes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml

from ..convert.files import BadWorkflow, load
from .values import BadSweep, values_of

KNOWN = ("workflow", "axes", "zip", "split", "autosave_every")
KNOWN_OF_AXIS = ("input", "inputs", "values", "range", "seeds")
# The axis that a split batch makes.
PART = "part"


@dataclass(frozen=True)
class Axis:
    """`inputs`, written NODE.INPUT, all take the same of the `values`."""

    name: str
    inputs: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Split:
    """The batch of a workflow in parts of `by` pictures: `batch` is the input with their number, `noise` the node that
    gives each picture a seed of its own."""

    batch: str
    noise: str
    by: int


@dataclass(frozen=True)
class Sweep:
    """`text` is the file as it was written; `zipped` names axes that go along together."""

    text: str
    workflow: dict[str, Any]
    axes: tuple[Axis, ...]
    zipped: tuple[tuple[str, ...], ...] = ()
    split: Split | None = None
    autosave_every: int = 0

    @property
    def groups(self) -> list[list[Axis]]:
        """The axes, those that go together in one list."""
        by_name = {axis.name: axis for axis in self.axes}
        together = {name: names for names in self.zipped for name in names}
        groups: list[list[Axis]] = []
        for axis in self.axes:
            names = together.get(axis.name, (axis.name,))
            if names[0] == axis.name:
                groups.append([by_name[name] for name in names])
        return groups

    def __len__(self) -> int:
        return prod(len(group[0].values) for group in self.groups)

    def points(self) -> Iterator[dict[str, Any]]:
        """What each axis is at each cell; the last axis moves fastest."""
        along = [list(zip(*(axis.values for axis in group), strict=True)) for group in self.groups]
        names = [axis.name for group in self.groups for axis in group]
        for values in product(*along):
            yield dict(zip(names, (each for together in values for each in together), strict=True))


class Reader(yaml.SafeLoader):
    """YAML as data alone. A name that is there twice is an error here, not a value that is silently lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> Sweep:
    """The sweep in a file. Raises BadSweep for what cannot be one, with all that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.load(text, Reader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSweep(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise BadSweep(f"{path} is no YAML: {error}.") from None
    if not isinstance(data, dict):
        raise BadSweep(f"{path} is no sweep: it has no `workflow` and no `axes`.")
    problems = [f"{name!r} is none of {', '.join(KNOWN)}." for name in data if name not in KNOWN]
    workflow = workflow_of(data, path, problems)
    axes = axes_of(data.get("axes"), problems)
    split = split_of(data.get("split"), problems)
    zipped = zipped_of(data.get("zip"), {axis.name: axis for axis in axes}, problems)
    every = data.get("autosave_every", 0)
    if not isinstance(every, int) or isinstance(every, bool) or every < 0:
        problems.append(f"autosave_every is {every!r}; it is a number of steps, 0 for none.")
    if not axes and split is None and not problems:
        problems.append("there are no axes, and no split: nothing to sweep over.")
    if problems:
        raise BadSweep(*problems, rest=Sweep(text, workflow, axes) if workflow else None)
    return Sweep(text, workflow, axes, zipped, split, every)


def workflow_of(data: Mapping[str, Any], path: Path, problems: list[str]) -> dict[str, Any]:
    given = data.get("workflow")
    if not isinstance(given, str):
        problems.append("workflow is missing: name the file of a workflow, beside this one.")
        return {}
    try:
        return load(path.parent / given)
    except BadWorkflow as error:
        problems.append(f"workflow: {error}")
        return {}


def axes_of(given: Any, problems: list[str]) -> tuple[Axis, ...]:
    if not isinstance(given, dict | None):
        problems.append("axes is no list of names, each with an input and its values.")
        return ()
    made = []
    for name, axis in (given or {}).items():
        if not isinstance(axis, dict):
            problems.append(f"axes.{name}: has no input and no values.")
            continue
        unknown = [each for each in axis if each not in KNOWN_OF_AXIS]
        problems += [f"axes.{name}: {each!r} is none of {', '.join(KNOWN_OF_AXIS)}." for each in unknown]
        inputs = axis.get("inputs", [axis.get("input")])
        if not isinstance(inputs, list) or not inputs or not all(isinstance(each, str) for each in inputs):
            problems.append(f"axes.{name}: says no input; write it as NODE.INPUT, such as 3.cfg or KSampler.cfg.")
            continue
        if "input" in axis and "inputs" in axis:
            problems.append(f"axes.{name}: has input and inputs; say one of them, inputs for a list.")
        if name == PART:
            problems.append(f"axes.{PART}: the name is taken by the parts of a split batch.")
        try:
            values = values_of(axis)
        except BadSweep as error:
            problems += [f"axes.{name}: {each}." for each in error.problems]
            continue
        problems += [f"axes.{name}: {each}." for each in faults_of(axis.get("values", []))]
        made.append(Axis(str(name), tuple(inputs), values))
    return tuple(made)


def faults_of(values: list[Any]) -> Iterator[str]:
    """What is wrong with a list as it was written: YAML has more kinds of values than a prompt, which is JSON."""
    seen = set[str]()
    for value in values:
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            yield f"{value!r} cannot stand in a prompt; put a text in quotes"
            continue
        if text in seen:
            yield f"{value!r} is there twice"
        seen.add(text)


def split_of(given: Any, problems: list[str]) -> Split | None:
    if given is None:
        return None
    if not isinstance(given, dict) or set(given) != {"batch", "noise", "by"}:
        problems.append("split: needs batch (NODE.INPUT with the number of pictures), noise (NODE) and by (a number).")
        return None
    by = given["by"]
    if not isinstance(by, int) or isinstance(by, bool) or by < 1:
        problems.append(f"split: by is {by!r}; it is how many pictures a part has.")
        return None
    return Split(str(given["batch"]), str(given["noise"]), by)


def zipped_of(given: Any, axes: Mapping[str, Axis], problems: list[str]) -> tuple[tuple[str, ...], ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(names, list) and len(names) > 1 for names in given):
        problems.append("zip is a list of lists of names: [[steps, denoise]].")
        return ()
    seen: list[str] = [str(name) for names in given for name in names]
    problems += [f"zip: there is no axis {name!r}." for name in seen if name not in axes]
    problems += [f"zip: {name!r} is there twice." for name in sorted({name for name in seen if seen.count(name) > 1})]
    for names in given:
        lengths = {name: len(axes[name].values) for name in names if name in axes}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            problems.append(f"zip: axes that go together have as many values each; {told}.")
    return tuple(tuple(name for name in axes if name in map(str, names)) for names in given)
