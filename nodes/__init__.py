"""The nodes, and the only place that imports ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from . import demo, sigmas, state_nodes
from .guidance import StepwiseCFGGuider
from .inspect import StepwisePlanTable
from .noise import StepwiseNoise
from .plot import StepwisePlotSigmas
from .predictions import prediction_nodes
from .preview import serve_previews
from .rules import rule_nodes
from .schedules import schedule_nodes
from .solvers import solver_nodes


def all_nodes() -> list[type[io.ComfyNode]]:
    return [
        *solver_nodes(),
        *schedule_nodes(),
        *sigmas.NODES,
        StepwiseCFGGuider,
        StepwiseNoise,
        *rule_nodes(),
        *prediction_nodes(),
        StepwisePlanTable,
        StepwisePlotSigmas,
        *state_nodes.NODES,
        *demo.NODES,
    ]


class StepwiseExtension(ComfyExtension):
    async def on_load(self) -> None:
        serve_previews()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return all_nodes()
