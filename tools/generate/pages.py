"""Writes a help page per node, the list of all nodes, and the README's overview of them.

    python -m tools.generate.pages            with .dev/env, from the root
    python -m tools.generate.pages --check    fails when a committed file differs

Inputs, outputs, ranges and meanings come from the nodes' schemas, formulas from the docstrings, papers, orders and
model calls from the registry. The rest is written by hand in docs/pages/<NodeId>.md, which a solver shares with its
Sampler.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import ModuleType
from typing import Any

from ..environment.folders import ROOT
from ..environment.inprocess import load_comfyui
from . import generated
from .generated import Files
from .markdown import filled, table

HAND = ROOT / "docs" / "pages"
PAGES = ROOT / "web" / "docs"
README = ROOT / "README.md"
NODES = ROOT / "docs" / "nodes.md"
FORMULA = re.compile(r"\w+ = .*(?<!\bal)[.,)]$")
CITED = re.compile(r"(.* [=+] (?!\d+/\d).*?) {3}(\(.*)")
FACT = re.compile(r"^(schedule|solver|settings|formulas): (.+)\n", re.MULTILINE)

# What a socket carries, for outputs whose schema does not say.
CARRIED = {
    "SAMPLER": "The solver with these settings, for any node that takes a SAMPLER.",
    "MODEL": "The model, for any node that takes a MODEL.",
    "VAE": "Turns the model's latents into pictures and back.",
    "CONDITIONING": "What the picture should show, for the positive or negative input of a guider.",
    "IMAGE": "The picture.",
}
START = (
    ("Load Checkpoint: MODEL", "CFG Guider (Stepwise): model"),
    ("CLIP Text Encode (Prompt): CONDITIONING", "CFG Guider (Stepwise): positive"),
    ("CLIP Text Encode (Prompt): CONDITIONING", "CFG Guider (Stepwise): negative"),
    ("Load Checkpoint: MODEL", "{schedule}: model"),
)
STEP_LINKS = (
    *START,
    ("CFG Guider (Stepwise): guider", "{name}: guider"),
    ("RandomNoise: NOISE", "{name}: noise"),
    ("Empty Latent Image: LATENT", "{name}: latent_image"),
    ("{schedule}: sigmas", "{name}: sigmas"),
    ("{name}: output", "VAE Decode: samples"),
)
SAMPLER_LINKS = (
    *START,
    ("{name}: sampler", "SamplerCustomAdvanced: sampler"),
    ("CFG Guider (Stepwise): guider", "SamplerCustomAdvanced: guider"),
    ("RandomNoise: NOISE", "SamplerCustomAdvanced: noise"),
    ("Empty Latent Image: LATENT", "SamplerCustomAdvanced: latent_image"),
    ("{schedule}: sigmas", "SamplerCustomAdvanced: sigmas"),
    ("SamplerCustomAdvanced: output", "VAE Decode: samples"),
)
RULE_LINKS = (
    *START[:3],
    ("{name}: guidance", "CFG Guider (Stepwise): rule"),
    ("CFG Guider (Stepwise): guider", "DPM++ 2M: guider"),
)
SCHEDULE_LINKS = (("Load Checkpoint: MODEL", "{name}: model"), ("{name}: sigmas", "{solver}: sigmas"))
TWIN = {
    True: "It takes the steps itself, and can stop and go on from a state. {other} is the same solver as a SAMPLER.",
    False: "It is the solver as a SAMPLER, for SamplerCustomAdvanced, Sample (Stepwise) and other nodes that take one. "
    "{other} is the same solver as a node that takes the steps itself.",
}
IN_PARTS = """\
Lower `end_step` to stop early. Wire `state` into a second {name} node with the same settings, give that one a guider,
and it takes the remaining steps; `noise`, `latent_image` and `sigmas` come with the state. The result equals the run
in one piece bit for bit. The guider of the second part may have another prompt, scale or model of the same family.
**Save State** and **Load State** keep the state on disk in between.

What is wired beside a state must agree with it: `latent_image` is not looked at, a `noise` must have the state's
seed, and `sigmas` must be the state's full schedule. Where one of these, the solver or its parameters differ,
`on_mismatch` decides. `error` stops and says what differs. `fork` goes on from the present picture and says in the
log what it dropped: another solver or other parameters begin anew from there, without the history; another seed
changes the noise that is still to come; another `sigmas` gives its levels below the present one. A model of another
family is refused in any case.

With `autosave_every` above 0 the state is written after every so many steps, and on Cancel or an error in the middle,
to `stepwise/autosave_<id of the node>.safetensors` in ComfyUI's output folder; the next run of the node moves it to
`autosave_<id>_previous.safetensors` before it writes its own. After a crash load it with **Load State** and wire it
into the same node: the picture is the one that the crash prevented. A file is complete or not there. Where nothing
can be written the log says so and the run goes on."""
ORDER = """\
Order n means that steps half as long leave about 2^n times less error, without added noise. Each model call evaluates
the prompt and, unless the guidance scale is 1, the negative prompt as well. A setting that looks ahead makes a step by
where the schedule ends or how long it is: the two halves of a split schedule, wired to two nodes, may then refuse to be
joined, where `end_step` on the full schedule always works."""


@dataclass
class Hand:
    """What is written by hand: facts (`key: value` lines at the top), an introduction, and sections by title."""

    facts: dict[str, str] = field(default_factory=dict)
    intro: str = ""
    sections: dict[str, str] = field(default_factory=dict)


def hand_written(node_id: str) -> Hand:
    path = HAND / f"{node_id}.md"
    if not path.exists():
        raise SystemExit(f"{node_id} has no hand-written text: write {path.relative_to(ROOT)}")
    intro, *parts = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)
    facts = dict(FACT.findall(intro))
    intro = FACT.sub("", intro)
    titled = (part.split("\n", 1) for part in parts)
    return Hand(facts, intro.strip(), {title.strip(): text.strip() for title, text in titled})


@dataclass
class Subject:
    """A node, what the registry says of it, and what is written by hand."""

    node: Any
    schema: Any
    entry: Any
    hand: Hand

    @property
    def name(self) -> str:
        return self.schema.display_name or self.schema.node_id

    @property
    def solver(self) -> Any:
        return getattr(self.node, "SOLVER", None)

    @property
    def takes_steps(self) -> bool:
        return any(output.io_type == "STEPWISE_STATE" for output in self.schema.outputs)

    @property
    def function(self) -> Callable[..., Any] | None:
        return getattr(self.entry, "plan", None) or getattr(self.entry, "function", None)


def subject(node: Any) -> Subject:
    from stepwise.samplers.registry import GUIDANCE

    schema = node.GET_SCHEMA()
    solver = getattr(node, "SOLVER", None)
    rule = next((rule for rule in GUIDANCE if schema.node_id == f"Stepwise{rule.id}Guider"), None)
    entry = solver or getattr(node, "SCHEDULE", None) or getattr(node, "RULE", None) or rule
    entry = entry or getattr(node, "OPERATION", None)
    return Subject(node, schema, entry, hand_written(f"Stepwise{solver.id}" if solver else schema.node_id))


def number(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def input_row(declared: Any) -> list[str]:
    """Name, type, default, range and meaning of one input."""
    kind = "choice" if declared.io_type == "COMBO" else declared.io_type
    if template := getattr(declared, "template", None):
        kind = f"{template.input.io_type}, one or more"
    default = getattr(declared, "default", None)
    options = getattr(declared, "options", None)
    low, high = getattr(declared, "min", None), getattr(declared, "max", None)
    limits = ""
    if options:
        limits = ", ".join(f"`{option}`" for option in options)
        default = options[0] if default is None else default
    elif low is not None and high is not None:
        limits = f"{number(low)} to {number(high)}"
    shown = "" if default is None else f"`{default}`" if isinstance(default, str) else number(default)
    return [
        f"`{declared.id}`",
        f"{kind}, optional" if declared.optional and default is None else kind,
        shown,
        limits,
        declared.tooltip or "",
    ]


def inputs(subject: Subject) -> str:
    if not subject.schema.inputs:
        return "None: there is nothing to set.\n\n" + table(("Input", "Type", "Default", "Range", "Meaning"), [])
    rows = [input_row(declared) for declared in subject.schema.inputs]
    return table(("Input", "Type", "Default", "Range", "Meaning"), rows)


def outputs(subject: Subject) -> str:
    rows = [
        (f"`{output.display_name or output.io_type}`", output.io_type, output.tooltip or CARRIED[output.io_type])
        for output in subject.schema.outputs
    ]
    return table(("Output", "Type", "Meaning"), rows)


def pieces(paragraph: str) -> Iterator[tuple[bool, str]]:
    """Its lines, and whether each is a formula: one that begins with a name and ends as a sentence or a clause does, or
    that a citation follows after a gap."""
    before = ":"
    for line in paragraph.splitlines():
        cited = CITED.match(line) if before[-1] in ".,:;" else None
        if before[-1] in ".,:;" and (FORMULA.match(line) or (cited and line[-1] in ".)")):
            yield True, re.sub(r" {2,}", "\n", line)
        elif cited:
            yield True, cited[1]
            yield False, cited[2]
        else:
            yield False, line
        before = line


def paragraphs(function: Callable[..., Any]) -> Iterator[str]:
    """The docstring of `function` as Markdown, up to its arguments, with the formulas in fences."""
    text = re.split(r"^(?:Args|Raises|Returns):", inspect.getdoc(function) or "", flags=re.MULTILINE)[0]
    for paragraph in text.strip().split("\n\n"):
        for formula, lines in groupby(pieces(paragraph), key=lambda piece: piece[0]):
            joined = "\n".join(line for _, line in lines)
            yield f"```text\n{joined}\n```" if formula else " ".join(joined.split())


def explained(function: Callable[..., Any], named: Sequence[str]) -> list[Callable[..., Any]]:
    """The functions and classes that a docstring mentions in backticks, and those `named`, of the same module."""
    module: ModuleType = inspect.getmodule(function)
    mentioned = re.findall(r"`(\w+)`", inspect.getdoc(function) or "")
    found = (getattr(module, name, None) for name in dict.fromkeys([*mentioned, *named]))
    return [other for other in found if (inspect.isfunction(other) or inspect.isclass(other)) and other is not function]


def method(subject: Subject) -> str:
    from stepwise.samplers import solvers

    if subject.function is None:
        return ""
    named = subject.hand.facts.get("formulas", "").replace(",", " ").split()
    parts = list(paragraphs(subject.function))
    for other in explained(subject.function, named):
        parts += [f"**{other.__name__}**", *paragraphs(other)]
    if subject.solver:
        letters = next(part for part in inspect.getdoc(solvers).split("\n\n") if part.startswith("Letters"))
        parts.append(" ".join(letters.split()))
    return "\n\n".join(parts)


def calls(setting: Any) -> str:
    """Model calls a step, with those of the steps that are made otherwise."""
    parts = [str(setting.calls)]
    steps, each = setting.opening
    if steps:
        where = "the first step" if steps == 1 else f"the first {steps} steps"
        later = "; one such step more where a flow schedule begins at 1" if setting.log_snr else ""
        parts.append(f"{each} in {where}{later}")
    if setting.extra_calls:
        parts.append(f"{setting.extra_calls} more over the run")
    return ", ".join(parts)


def cost(subject: Subject) -> str:
    if subject.solver is None:
        return ""
    rows = []
    for setting in subject.solver.settings:
        names = ", ".join(f"`{name}` {number(value)}" for name, value in setting.params.items()) or "as it comes"
        order = setting.order or ("adds noise" if setting.noise else "none claimed")
        kept = "yes" if setting.keeps_marginals else "no, on purpose"
        models = "all" if len(setting.paths) == 2 else "all but flow" if setting.paths == ("VE",) else "flow only"
        ahead = "yes" if setting.looks_ahead else "no"
        rows.append((names, order, calls(setting), setting.calls_to_zero, kept, models, ahead))
    calls_head = ("Model calls a step", "In a last step to 0")
    head = ("Setting", "Order", *calls_head, "True noise level", "Models", "Looks ahead")
    return table(head, rows) + "\n" + " ".join(ORDER.split())


def in_parts(subject: Subject) -> str:
    if not (subject.solver and subject.takes_steps):
        return ""
    parts = IN_PARTS.format(name=subject.name).split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in parts)


def wiring(subject: Subject) -> str:
    """The example by hand, or the one that every node of the kind has."""
    hand = subject.hand
    if "Wiring" in hand.sections:
        return hand.sections["Wiring"]
    links = RULE_LINKS if hasattr(subject.node, "RULE") else SCHEDULE_LINKS
    if subject.solver:
        links = STEP_LINKS if subject.takes_steps else SAMPLER_LINKS
    names = {"name": subject.name, **hand.facts}
    filled = [(source.format(**names), target.format(**names)) for source, target in links]
    width = max(len(source) for source, _ in filled)
    block = "\n".join(f"{source:<{width}}  ->  {target}" for source, target in filled)
    settings = f"\n\nTo begin with: {hand.facts['settings']}." if "settings" in hand.facts else ""
    return f"```text\n{block}\n```{settings}"


def paper(text: str) -> str:
    return "- " + re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def what(subject: Subject) -> str:
    summary = subject.entry.summary if subject.entry else subject.schema.description
    parts = [summary, subject.hand.intro]
    if subject.solver:
        other = f"**{subject.solver.name}{' Sampler' if subject.takes_steps else ''}**"
        parts.append(TWIN[subject.takes_steps].format(other=other))
    return "\n\n".join(part for part in parts if part)


def page(subject: Subject) -> str:
    """The help page of one node: the sections that it has something to say in."""
    hand, entry = subject.hand, subject.entry
    advice = [entry.advice if entry else "", hand.sections.get("When to use it", "")]
    sections = {
        "When to use it": "\n\n".join(text for text in advice if text),
        "Inputs": inputs(subject),
        "Outputs": outputs(subject),
        "Wiring": wiring(subject),
        "In parts": in_parts(subject),
        **{title: text for title, text in hand.sections.items() if title not in ("When to use it", "Wiring")},
        "Accuracy and cost": cost(subject),
        "Method": method(subject),
        "Papers": "\n".join(paper(text) for text in entry.papers) if entry else "",
    }
    parts = [f"# {subject.name}", what(subject)]
    parts += [f"## {title}\n\n{text.rstrip()}" for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def node_table(subjects: Sequence[Subject]) -> str:
    """One row per node; a solver and its Sampler share theirs."""
    rows: dict[str, list[str]] = {}
    for one in subjects:
        key = one.solver.name if one.solver else one.name
        text = one.entry.summary if one.entry else one.schema.description
        row = rows.setdefault(key, ["", "", text])
        break_ = "<br>" if row[1] else ""
        row[0] += f"{break_}[{one.name}](../web/docs/{one.schema.node_id}.md)"
        row[1] += f"{break_}`{one.schema.node_id}`"
    return table(("Node", "Id", "What for"), list(rows.values()))


def group(category: str) -> str:
    """The part of the menu that a node belongs to, as a title."""
    return category.split("/")[1].capitalize()


def overview(subjects: Sequence[Subject]) -> str:
    """The names of the nodes, by part of the menu; a solver and its Sampler are named once."""
    names: dict[str, dict[str, None]] = {}
    for one in subjects:
        names.setdefault(group(one.schema.category), {})[one.solver.name if one.solver else one.name] = None
    return table(("In the menu", "Nodes"), [(title, ", ".join(found)) for title, found in names.items()])


def node_list(subjects: Sequence[Subject]) -> str:
    parts = ["# Nodes", "Each name leads to a help page that is also in the editor: select the node and press info."]
    for title in dict.fromkeys(group(one.schema.category) for one in subjects):
        parts += [f"## {title}", node_table([one for one in subjects if group(one.schema.category) == title]).rstrip()]
    return "\n\n".join(parts) + "\n"


def files(nodes: Sequence[Any]) -> Files:
    """Every generated file and what it must hold."""
    subjects = [subject(node) for node in nodes]
    made = {PAGES / f"{one.schema.node_id}.md": page(one) for one in subjects}
    made[NODES] = node_list(subjects)
    made[README] = filled(README.read_text(encoding="utf-8"), overview(subjects), "nodes")
    return made


def orphans(made: Files) -> list[str]:
    return [f"{path.relative_to(ROOT)} is the page of no node" for path in PAGES.glob("*.md") if path not in made]


def main() -> None:
    folders = load_comfyui()
    from stepwise.nodes import all_nodes

    made = files(all_nodes())
    folders.cleanup()
    generated.main(made, orphans(made))


if __name__ == "__main__":
    main()
