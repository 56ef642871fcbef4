"""The model that an example runs on: its nodes, and the words that its examples need."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DemoModel:
    """A shipped model as an example wants it.

    `prompts` are what is drawn, `others` what is drawn instead, one for each picture of the batch; `lines` is how many
    lines a prompt shows. `cfg` is the guidance scale that suits the model, `high` one that burns it, and `threshold`
    what Dynamic Thresholding limits its latents to.
    """

    loader: str
    variants: dict[str, dict[str, Any]]
    prompt: str
    field: str
    prompts: str
    others: str
    nothing: str
    names: tuple[str, str]
    batch: int
    pixels: int
    columns: int
    cfg: float
    high: float
    threshold: float
    lines: int = 1


DIGITS = DemoModel(
    loader="StepwiseDigitsModel",
    variants={"standard": {"variant": "standard"}, "lcm": {"variant": "lcm"}, "flow": {"variant": "flow"}},
    prompt="StepwiseDigit",
    field="labels",
    prompts="0-9",
    others="1-9,0",
    nothing="",
    names=("Digits to draw", "No class"),
    batch=10,
    pixels=64,
    columns=5,
    cfg=3.0,
    high=15.0,
    threshold=1.9,
)

EMOJI = DemoModel(
    loader="StepwiseEmojiModel",
    variants={"standard": {"variant": "standard"}, "lcm": {"variant": "lcm"}},
    prompt="StepwiseEmojiPrompt",
    field="prompt",
    prompts="cat face\nrocket\nsunflower\npizza\npanda\nbirthday cake\nred apple\ntropical fish",
    others="dog face\nairplane\ntulip\nhamburger\nkoala\nshortcake\nlemon\nwhale",
    nothing="",
    names=("What to draw", "Nothing: anything"),
    batch=8,
    pixels=64,
    columns=4,
    cfg=4.0,
    high=15.0,
    threshold=3.5,
    lines=8,
)
