"""The sections of a help page."""

import inspect
import re
from typing import Any

from .docstrings import explained, paragraphs
from .subjects import Subject

# What a socket carries, for outputs whose schema does not say.
CARRIED = {
    "SAMPLER": "The solver with these settings, for any node that takes a SAMPLER.",
    "MODEL": "The model, for any node that takes a MODEL.",
    "VAE": "Turns the model's latents into pictures and back.",
    "CONDITIONING": "What the picture should show, for the positive or negative input of a guider.",
    "IMAGE": "The picture.",
}
TWIN = {
    True: "It takes the steps itself, and can stop and go on from a state. {other} is the same solver as a SAMPLER.",
    False: "It is the solver as a SAMPLER, for SamplerCustomAdvanced, Sample (Stepwise) and other nodes that take one. "
    "{other} is the same solver as a node that takes the steps itself.",
}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
STOP = """\
Lower `end_step` to stop early. Wire `state` into a second {name} node with the same settings, give that one a guider,
and it takes the remaining steps; `noise`, `latent_image` and `sigmas` come with the state. The result equals the run
in one piece bit for bit. The guider of the second part may have another prompt, scale or model of the same family.
**Save State** and **Load State** keep the state on disk in between.

`start_step` may stay as it was in the node that began the run, or be 0: the run goes on where the state stands.

To go on from a pause the first part must not begin anew, so set RandomNoise's `control after generate` to fixed: as it
comes, it moves the seed after every run. A node that paused says so on its face ("stopped at step 10 of 20, seed 7"),
and warns there, naming the input, when the next run would begin anew."""
IN_PARTS = """\
What is wired beside a state must agree with it, but for two inputs: `latent_image` is not used, and the state's
seed counts, whatever seed `noise` has; another one is said in the node and in the log. `sigmas` must be the state's
full schedule. Where it, the solver or its parameters differ, `on_mismatch` decides. `error` stops and says what
differs. `strict` stops for another seed of `noise` too. `fork` goes on from the present picture and says what it
dropped: another solver or other parameters begin anew from there, without the history; another seed changes the noise
that is still to come; another `sigmas` gives its levels below the present one. A model of another family is refused in
any case.

The latent of a run that stopped early still has noise in it. It carries a mark, `stepwise_unfinished`, which ComfyUI's
nodes copy along: where such a latent is wired to `latent_image` and given noise again, the step node says that its
state is what to wire.

With `autosave_every` above 0 the state is written after every so many steps, and on Cancel or an error in the middle,
to a file in the folder `stepwise` of ComfyUI's output folder: its name is `autosave_`, the workflow, the title of the
node, its id and the run. After Cancel or an error the node and the log say "saved at step 321 of 1000" and the file's
name; **Go on from it** in the node, or **Go on from the autosave** in its context menu, places **Load State** with
that file and wires it: the picture is the one that the run would have made. Each run of a node has a file of its own.
The files of its last three runs are kept, and any that a Load State of the graph names; the older ones are removed
when a new run first saves. A run is another one if anything is that it begins with or that leads to its guider: seed,
latent, schedule, solver, model, prompts, guidance. A file is complete or not there. Whatever goes wrong in saving, the
log says so and the run goes on.

What patches and guiders of other packs remember from step to step is looked for in what Python can reach from them, and
goes into the state where it is made of numbers, text, lists and tensors of up to eight latents. What changed and cannot
be carried is named in the log and by **Inspect State**."""
ORDER = """\
Order n means that steps half as long leave about 2^n times less error, without added noise. Each model call evaluates
the prompt and, unless the guidance scale is 1, the negative prompt as well. A setting that looks ahead makes a step by
where the schedule ends or how long it is: the two halves of a split schedule, wired to two nodes, may then refuse to be
joined, where `end_step` on the full schedule always works."""


def what(subject: Subject) -> str:
    summary = subject.entry.summary if subject.entry else subject.schema.description
    parts = [summary, subject.hand.intro]
    if subject.solver:
        other = f"**{subject.solver.name}{' Sampler' if subject.takes_steps else ''}**"
        parts.append(TWIN[subject.takes_steps].format(other=other))
    return "\n\n".join(part for part in parts if part)


def number(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def kind_of(declared: Any) -> str:
    """What an input takes, in brackets: its type or its choices, its range, and what it is when nobody sets it."""
    default = getattr(declared, "default", None)
    # Which files there are is of this machine.
    listed = () if declared.id == "file" else getattr(declared, "options", None) or ()
    options = [getattr(option, "key", option) for option in listed]
    parts = []
    if template := getattr(declared, "template", None):
        parts.append(f"{template.input.io_type}, one or more")
    elif options:
        parts.append(", ".join(f"`{option}`" for option in options))
        default = options[0] if default is None else default
    elif declared.io_type in ("COMBO", DYNAMIC):
        parts.append("choice")
    else:
        parts.append(declared.io_type)
    low, high = getattr(declared, "min", None), getattr(declared, "max", None)
    if low is not None and high is not None:
        parts[0] += f", {number(low)} to {number(high)}"
    if default not in (None, "") and declared.io_type != "CURVE":
        parts.append(f"default `{default}`" if isinstance(default, str) else f"default {number(default)}")
    elif declared.optional:
        parts.append("optional")
    return f"({'; '.join(parts)})"


def bullet(name: str, kind: str, meaning: str) -> str:
    return f"- **`{name}`** {kind} {meaning}"


def inputs(subject: Subject) -> str:
    """A list, since the panel of the editor is too narrow for a table."""
    if not subject.schema.inputs:
        return "None: there is nothing to set."
    rows = [bullet(declared.id, kind_of(declared), declared.tooltip or "") for declared in subject.schema.inputs]
    chosen = [settings(declared) for declared in subject.schema.inputs if declared.io_type == DYNAMIC]
    return "\n\n".join(["\n".join(rows), *chosen])


def settings(declared: Any) -> str:
    """What each choice brings up; in a prompt the names have the choice's own before them."""
    rows = [
        f"- {option.key}: {', '.join(f'`{each.id}`' for each in option.inputs) or 'none'}"
        for option in declared.options
    ]
    head = f"Settings of each `{declared.id}`, named `{declared.id}.` and their name in a prompt:"
    return "\n".join([head, "", *rows])


def outputs(subject: Subject) -> str:
    rows = [
        bullet(output.display_name or output.io_type, f"({output.io_type})", output.tooltip or CARRIED[output.io_type])
        for output in subject.schema.outputs
    ]
    return "\n".join(rows)


def calls(setting: Any) -> str:
    """Model calls a step, with those of the steps that are made otherwise."""
    parts = [str(setting.calls)]
    steps, each = setting.opening
    if steps:
        where = "the first step" if steps == 1 else f"the first {steps} steps"
        later = "; one such step more where a flow schedule begins at 1" if setting.log_snr else ""
        parts.append(f"{each} in {where}{later}")
    elif setting.log_snr:
        parts.append(f"{each} in the first step where a flow schedule begins at 1")
    if setting.extra_calls:
        parts.append(f"{setting.extra_calls} more over the run")
    return ", ".join(parts)


def cost(subject: Subject) -> str:
    if subject.solver is None:
        return ""
    rows = []
    for setting in subject.solver.settings:
        names = ", ".join(f"`{name}` {number(value)}" for name, value in setting.params.items()) or "as it comes"
        facts = [
            f"order {setting.order}" if setting.order else "adds noise" if setting.noise else "no order claimed",
            f"model calls a step: {calls(setting)}",
            f"in a last step to 0: {setting.calls_to_zero}",
        ]
        facts += [] if setting.keeps_marginals else ["not the true noise level, on purpose"]
        facts += [] if len(setting.paths) == 2 else ["not for flow models" if setting.paths == ("VE",) else "flow only"]
        facts += ["looks ahead"] if setting.looks_ahead else []
        rows.append(f"- **{names}**: {'; '.join(facts)}.")
    return "\n".join(rows) + "\n\n" + " ".join(ORDER.split())


def stop_and_go_on(subject: Subject) -> str:
    """How a step node is stopped and gone on from, near the top of its page."""
    return joined(STOP, subject)


def in_parts(subject: Subject) -> str:
    return joined(IN_PARTS, subject)


def joined(text: str, subject: Subject) -> str:
    if not (subject.solver and subject.takes_steps):
        return ""
    return "\n\n".join(" ".join(part.split()) for part in text.format(name=subject.name).split("\n\n"))


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


def paper(text: str) -> str:
    return "- " + re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
