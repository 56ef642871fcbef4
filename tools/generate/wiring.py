"""The examples of wiring: those that the nodes of a kind have in common, and how a page shows any."""

import re

from .subjects import Subject

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


BLOCK = re.compile(r"^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WIRE = re.compile(r"^(.+): (\S+) +-> +(.+): (\S+)$")


def wiring(subject: Subject) -> str:
    """The example by hand, or the one that every node of the kind has."""
    hand = subject.hand
    if "Wiring" in hand.sections:
        return hand.sections["Wiring"]
    links = RULE_LINKS if hasattr(subject.node, "RULE") else SCHEDULE_LINKS
    if subject.solver:
        links = STEP_LINKS if subject.takes_steps else SAMPLER_LINKS
    names = {"name": subject.name, **hand.facts}
    block = "\n".join(f"{source.format(**names)} -> {target.format(**names)}" for source, target in links)
    settings = f"\n\nTo begin with: {hand.facts['settings']}." if "settings" in hand.facts else ""
    return f"```text\n{block}\n```{settings}"


def narrow(text: str) -> str:
    """Text whose drawings of wires are lists of what each node takes: a line is too wide for the panel."""
    return BLOCK.sub(lambda block: taken(block[1]) if "->" in block[1] else block[0], text)


def taken(block: str) -> str:
    by_target: dict[str, list[str]] = {}
    for line in block.splitlines():
        wire = WIRE.match(line)
        if wire is None:
            raise SystemExit(f"This is no wire: {line}")
        source, output, target, name = wire.groups()
        by_target.setdefault(target, []).append(f"- `{name}` from {source}: `{output}`")
    return "\n\n".join("\n".join([f"**{target}** takes", "", *lines]) for target, lines in by_target.items())
