"""What version 0.1.0 left in tests/fixtures/v0_1_0, and what its states were made with.

The nodes are found by their ids and the model is elementwise arithmetic, so that a state means the same wherever the
modules of the pack lie and whatever a processor's kernels round.
"""

import json
from functools import cache
from pathlib import Path

import comfy.latent_formats
import torch
from comfy.model_base import ModelType
from comfy_extras import nodes_custom_sampler as core
from comfy_extras.nodes_apg import APG
from stepwise.nodes import all_nodes
from stepwise.nodes.demo import host_model
from torch import nn

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1_0"
SAMPLING = {
    "EPS": {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000},
    "FLOW": {"shift": 3.0},
}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "CURVE"}


def kept(name):
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


@cache
def nodes_by_id():
    return {node.define_schema().node_id: node for node in all_nodes()}


def run(node_id, **inputs):
    """The outputs of a node, from all of its inputs: no default is filled in."""
    return nodes_by_id()[node_id].execute(**inputs).args


class FixedNet(nn.Module):
    """Sums, products and quotients, value by value."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.dtype = torch.float32

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **kwargs):
        shape = (-1,) + (1,) * (x.ndim - 1)
        prompt = context[:, 0, 0].float().view(shape)
        time = timesteps.float().view(shape) / 1000.0
        beside = (x / (1.0 + x.abs())).roll(1, -1)
        return 0.6 * x + 0.3 * beside * (1.0 - 0.5 * time + 0.5 * prompt) + 0.2 * prompt


class Image(comfy.latent_formats.LatentFormat):
    latent_channels = 4


class Video(Image):
    latent_dimensions = 3


class Row(Image):
    """Of nested latents, which the host packs."""

    latent_channels = 1


FORMATS = {"image": Image, "video": Video, "nested": Row}


def prompt(value):
    return [[torch.full((1, 4, 8), value), {}]]


def guider_of(case):
    """The model and the prompts of a case, anew for each run: what patches remember is not to reach another one."""
    model = host_model(FixedNet(), ModelType[case["model"]], FORMATS[case["latent"]](), SAMPLING[case["model"]])
    rule = ()
    if case["guidance"] == "APG of ComfyUI":
        model = APG.execute(model, eta=0.8, norm_threshold=4.0, momentum=-0.6).args[0]
    elif case["guidance"] == "APG":
        (rule,) = run("StepwiseAPGGuidance", eta=0.5, norm_threshold=4.0, momentum=-0.5, form="paper")
    prompts = {"positive": prompt(0.4), "negative": prompt(-0.3)}
    return run("StepwiseCFGGuider", model=model, **prompts, cfg=3.0, rule=rule)[0]


def noise_of(case):
    if case["noise"]:
        return run("StepwiseNoise", **case["noise"])[0]
    return core.RandomNoise.execute(7).args[0]


def interface(node):
    """The inputs of a node in the order of its widgets and sockets, and its outputs, as the editor is told them."""
    node.GET_SCHEMA()
    info = json.loads(json.dumps(node.GET_NODE_INFO_V1()))
    inputs = {}
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            inputs[name] = {"type": kind, "optional": group == "optional", **untold(options[0] if options else {})}
    outputs = [list(pair) for pair in zip(info["output"], info["output_name"], strict=True)]
    return {"inputs": inputs, "outputs": outputs, "output_node": info["output_node"]}


def untold(value):
    """`value` without the tooltips in it."""
    if isinstance(value, list):
        return [untold(each) for each in value]
    if isinstance(value, dict):
        return {key: untold(each) for key, each in value.items() if key != "tooltip"}
    return value
