"""A sampler taken apart: predict, extrapolate, step, again."""

from comfy_api.latest import io

from .host.levels import read_sigmas
from .runs import by_hand
from .runs.unfinished import marked, unmarked
from .shared.inputs import STEP_INPUTS
from .shared.messages import named
from .shared.schema import CleanType, StateType

CATEGORY = "stepwise/samplers/by hand"
STATE = StateType.Input("state", tooltip="Where the run stands: from Predict or Step.")


class StepwisePredict(io.ComfyNode):
    """One model call."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwisePredict",
            display_name="Predict",
            category=CATEGORY,
            description="Asks the model once what the clean picture is: the first part of every step of a sampler.",
            search_aliases=["stepwise", "model call", "x0", "teaching", "by hand"],
            inputs=list(STEP_INPUTS),
            outputs=[
                StateType.Output("state", tooltip="x as the model has seen it, for Extrapolate and Step."),
                CleanType.Output("x0", tooltip="The prediction, in the model's own units."),
                io.Latent.Output("denoised", tooltip="The same as a LATENT, to look at."),
            ],
        )

    @classmethod
    def execute(cls, guider, noise=None, latent_image=None, sigmas=None, state=None) -> io.NodeOutput:
        with named("Predict"):
            levels = None if sigmas is None else read_sigmas(sigmas)
            held, clean, denoised = by_hand.predicted(guider, noise, latent_image, levels, state)
        return io.NodeOutput(held, clean, unmarked(denoised))


class StepwiseExtrapolate(io.ComfyNode):
    """What DPM++ 2M makes of two predictions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseExtrapolate",
            display_name="Extrapolate",
            category=CATEGORY,
            description="Goes on in the direction in which the prediction has moved since the step before, half of "
            "this step far: what makes DPM++ 2M of second order.",
            search_aliases=["stepwise", "combine", "multistep", "teaching", "by hand"],
            inputs=[
                STATE,
                CleanType.Input("x0", tooltip="The prediction of this step."),
                CleanType.Input("previous_x0", tooltip="The prediction of the step before, as Predict gave it."),
            ],
            outputs=[CleanType.Output("x0", tooltip="The prediction for the middle of the step.")],
        )

    @classmethod
    def execute(cls, state, x0, previous_x0) -> io.NodeOutput:
        with named("Extrapolate"):
            return io.NodeOutput(by_hand.extrapolated(state, x0, previous_x0))


class StepwiseStep(io.ComfyNode):
    """A step of order 1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        guider, *_ = STEP_INPUTS
        return io.Schema(
            node_id="StepwiseStep",
            display_name="Step",
            category=CATEGORY,
            description="Goes to the next noise level of the schedule as if the clean picture were known.",
            search_aliases=["stepwise", "one step", "teaching", "by hand"],
            inputs=[guider, STATE, CleanType.Input("x0", tooltip="The clean picture: from Predict or Extrapolate.")],
            outputs=[
                StateType.Output("state", tooltip="Where the run stands now: for the next Predict."),
                io.Latent.Output("output", tooltip="x there, as a LATENT."),
            ],
        )

    @classmethod
    def execute(cls, guider, state, x0) -> io.NodeOutput:
        with named("Step"):
            after, output = by_hand.stepped(guider, state, x0)
        return io.NodeOutput(after, marked(output, after, after.step))


NODES = [StepwisePredict, StepwiseExtrapolate, StepwiseStep]
