"""The nodes, and the only place that imports ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from . import by_hand, demo, emoji, mixture, plans, report, sigmas, state
from .compare import StepwiseCompare, StepwiseCompareEntry
from .detail import StepwiseDetail
from .guidance import StepwiseCFGGuider, rule_nodes
from .inspect import StepwisePlanTable
from .ksampler import StepwiseKSampler
from .noise import StepwiseNoise, StepwiseNoiseFromLatent
from .plot import StepwisePlotSigmas
from .predictions import prediction_nodes
from .runs.listing import serve_states
from .samplers import solver_nodes
from .schedules import StepwiseNamedSchedule, schedule_nodes
from .shared.conversion import serve_conversion
from .shared.preview import serve_previews
from .shared.served import serve_pages
from .shared.sockets import with_checked_inputs
from .trajectory import StepwiseTrajectory


def all_nodes() -> list[type[io.ComfyNode]]:
    nodes = [
        *solver_nodes(),
        StepwiseKSampler,
        *schedule_nodes(),
        StepwiseNamedSchedule,
        *sigmas.NODES,
        StepwiseCFGGuider,
        StepwiseNoise,
        StepwiseNoiseFromLatent,
        *rule_nodes(),
        *prediction_nodes(),
        StepwiseDetail,
        StepwisePlanTable,
        StepwisePlotSigmas,
        *report.NODES,
        StepwiseCompareEntry,
        StepwiseCompare,
        StepwiseTrajectory,
        *by_hand.NODES,
        *state.NODES,
        *plans.NODES,
        *emoji.NODES,
        *demo.NODES,
        *mixture.NODES,
    ]
    return [with_checked_inputs(node) for node in nodes]


class StepwiseExtension(ComfyExtension):
    async def on_load(self) -> None:
        serve_previews()
        serve_states()
        serve_conversion()
        serve_pages()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return all_nodes()
