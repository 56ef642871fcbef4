"""The algebra of predictions as nodes, and the guider that evaluates what they make."""

import math
from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui

from ..samplers import Path
from ..samplers.guidance.evaluation import check_weight, needed
from ..samplers.guidance.expressions import Leaf, Prediction
from ..samplers.guidance.informed import told
from ..samplers.parameters import InputError, checked, counted, quoted
from ..samplers.registry import OPERATIONS, Operation
from ..samplers.registry.papers import PAG_PAPER, SLG
from .host.cfg_patches import not_applied
from .host.evaluators import Evaluator, Perturbation
from .host.guider import PredictionGuider
from .host.levels import read_sigmas
from .host.models import path_of, sampling_of
from .host.sampler import Limits, PlanSampler, make_plan, resting_steps
from .shared.curves import curve_of
from .shared.messages import named, show_text
from .shared.schema import GuidanceType, PerturbationType, PredictionType, description, only, widgets

PREDICTION_OUTPUT = PredictionType.Output("prediction", tooltip="For Guider (Stepwise) or another operation.")
LEVELS = 200
# All of the one at high noise, all of the other at low noise.
RAMP = ((0.0, 0.0), (1.0, 1.0))


class StepwisePrediction(io.ComfyNode):
    """A conditioning as a leaf."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwisePrediction",
            display_name="Prediction",
            category="stepwise/guidance/predictions",
            description="What the model predicts for one prompt: the beginning of an expression of predictions.",
            search_aliases=["stepwise", "guidance", "cond", "leaf"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="A prompt, with whatever areas or ControlNets it carries."
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Another model than the guider's that evaluates it: a weaker one to guide away from, or an "
                    "expert of its own. It must share latents and noise levels with it.",
                ),
                PerturbationType.Input(
                    "perturbation", optional=True, tooltip="Layers that the model goes past in this prediction."
                ),
            ],
            outputs=[PREDICTION_OUTPUT],
        )

    @classmethod
    def execute(cls, conditioning, model=None, perturbation=None) -> io.NodeOutput:
        evaluator = None if model is None and perturbation is None else Evaluator(model, perturbation)
        return io.NodeOutput(Leaf(conditioning, evaluator=evaluator))


class StepwisePerturbation(io.ComfyNode):
    """Layers that a prediction goes past."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwisePerturbation",
            display_name="Perturbation",
            category="stepwise/guidance/predictions",
            description=description(
                "Makes a prediction worse in a way that guidance can move away from.",
                "Perturbed Attention Guidance and Skip Layer Guidance as parts of an expression.",
                (PAG_PAPER, SLG),
            ),
            search_aliases=["stepwise", "pag", "slg", "perturbed attention", "skip layer", "spatiotemporal guidance"],
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=["attention", "layers"],
                    tooltip="attention: in a block of a U-Net (SD1.5, SDXL) self-attention hands on its values alone; "
                    "layers: blocks of a transformer (SD3, Flux, Wan, Qwen-Image) are skipped.",
                ),
                io.Combo.Input(
                    "block",
                    options=["middle", "input", "output"],
                    tooltip="The part of the U-Net.",
                    extra_dict=only("kind", "attention"),
                ),
                io.Int.Input(
                    "number",
                    default=0,
                    min=0,
                    max=100,
                    tooltip="The block of this part.",
                    extra_dict=only("kind", "attention"),
                ),
                io.String.Input(
                    "double_layers",
                    default="7, 8, 9",
                    tooltip="Numbers of the double blocks, with commas; SD3, Wan and Qwen-Image have no others.",
                    extra_dict=only("kind", "layers"),
                ),
                io.String.Input(
                    "single_layers",
                    default="",
                    tooltip="Numbers of the single blocks, with commas: Flux and its kin.",
                    extra_dict=only("kind", "layers"),
                ),
            ],
            outputs=[PerturbationType.Output("perturbation", tooltip="For Prediction.")],
        )

    @classmethod
    def execute(cls, kind, block="middle", number=0, double_layers="", single_layers="") -> io.NodeOutput:
        with named("Perturbation"):
            if kind == "attention":
                return io.NodeOutput(Perturbation(attention=((block, number),)))
            layers = [("double_block", n) for n in numbers_in("double_layers", double_layers)]
            layers += [("single_block", n) for n in numbers_in("single_layers", single_layers)]
            if not layers:
                raise InputError("double_layers", "and single_layers name no layer", "write numbers, such as 7, 8, 9")
            return io.NodeOutput(Perturbation(layers=tuple(layers)))


def numbers_in(name: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    # Python refuses to read a number of thousands of digits.
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise InputError(
            name, f"is {quoted(text)}, and no list of numbers", "write numbers with commas, such as 7, 8, 9"
        )
    return [int(part) for part in parts]


class OperationNode(io.ComfyNode):
    """An operation of the registry on STEPWISE_PREDICTION."""

    OPERATION: Operation

    @classmethod
    def define_schema(cls) -> io.Schema:
        operation = cls.OPERATION
        return io.Schema(
            node_id=f"Stepwise{operation.id}",
            display_name=operation.name,
            category="stepwise/guidance/predictions",
            description=description(operation.summary, operation.advice, operation.papers),
            search_aliases=[*operation.aliases, "stepwise", "prediction", "guidance"],
            inputs=[
                *(PredictionType.Input(name, tooltip=meaning) for name, meaning in operation.inputs.items()),
                *(io.Curve.Input(name, default=list(RAMP), tooltip=text) for name, text in operation.curves.items()),
                *widgets(operation.function),
                *([GuidanceType.Input("rule", optional=True, tooltip=operation.rule)] if operation.rule else []),
            ],
            outputs=[PREDICTION_OUTPUT],
        )

    @classmethod
    def execute(cls, rule: Any = None, **values: Any) -> io.NodeOutput:
        operation = cls.OPERATION
        given: dict[str, Any] = {name: values.pop(name) for name in operation.inputs}
        with named(operation.name):
            given |= {name: curve_of(values.pop(name), name) for name in operation.curves}
            if rule:
                given["rules"] = rule
            return io.NodeOutput(operation.function(**given, **checked(operation.function, values)))


class StepwiseGuider(io.ComfyNode):
    """An expression of predictions as a GUIDER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseGuider",
            display_name="Guider (Stepwise)",
            category="stepwise/guidance",
            description="Guides by an expression of predictions. All prompts of a step are evaluated in one batch, and "
            "none that does not count at its noise level.",
            search_aliases=["stepwise", "guidance", "prediction", "custom guider"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with whatever patches it carries."),
                PredictionType.Input("prediction", tooltip="What to compute of which prompts."),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="Only for the report: the schedule of the run. The guider works on any.",
                ),
                io.Sampler.Input(
                    "sampler",
                    optional=True,
                    tooltip="Only for the report: a SAMPLER of Stepwise that is to be used with it.",
                ),
            ],
            outputs=[
                io.Guider.Output("guider", tooltip="Model and prompts, for any node that samples with a GUIDER."),
                io.String.Output("report", tooltip="Which prompts are evaluated when, and how many are saved."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, prediction, sigmas=None, sampler=None) -> io.NodeOutput:
        with named("Guider (Stepwise)"):
            path = path_of(sampling_of(model))
            check_weight(prediction, range_of(model), path)
            guider = PredictionGuider(model)
            guider.set_prediction(prediction)
            calls = calls_of(guider, path, sigmas, sampler)
            check_weight(prediction, [sigma for sigma, _ in calls or ()], path)
        of_a_run = calls is not None
        whole = calls if of_a_run else [(sigma, None) for sigma in range_of(model)]
        text = report(guider, path, whole, len(read_sigmas(sigmas)) - 1 if of_a_run else 0, of_a_run)
        show_text(cls, text)
        return io.NodeOutput(guider, text, ui=ui.PreviewText(text))


def range_of(model: Any) -> list[float]:
    """Noise levels of the model from its highest to its lowest, evenly in their logarithm."""
    sampling = sampling_of(model)
    low, high = math.log(float(sampling.sigma_min)), math.log(float(sampling.sigma_max))
    return [math.exp(high + (low - high) * i / (LEVELS - 1)) for i in range(LEVELS)]


def calls_of(guider: PredictionGuider, path: Path, sigmas: Any, sampler: Any) -> list[tuple[float, int]] | None:
    """The noise level of every model call of a run, and the number of its step, as far as they are known."""
    if sigmas is None:
        return None
    levels = read_sigmas(sigmas)
    if isinstance(sampler, PlanSampler):
        limits = Limits.of(sampling_of(guider.model_patcher), sampler.params)
        plan = make_plan(sampler.solver, sampler.params, path, levels, limits=limits)
        rests = resting_steps(guider, plan)
        stages = sampler.rested(plan, rests, limits).stages
        return [(stage.sigma, stage.step) for stage in stages if stage.step >= rests]
    return [(sigma, step) for step, sigma in enumerate(levels[:-1])]


def report(
    guider: PredictionGuider, path: Path, calls: Sequence[tuple[float, int | None]], steps: int, of_a_run: bool
) -> str:
    """What is evaluated at these calls of so many steps; as numbers where they are those of a run."""
    names = {leaf: key for leaf, key in zip(guider.leaves, guider.keys, strict=True) if leaf is not None}
    used: dict[Prediction, list[float]] = {leaf: [] for leaf in names}
    expression, number = guider.expression, None
    for sigma, step in calls:
        if guider.asks and step is not None and step != number:
            expression, number = told(guider.expression, step=step, steps=steps), step
        for leaf in needed(expression, sigma, path):
            used[leaf].append(sigma)
    lines = []
    if of_a_run:
        made, possible = sum(map(len, used.values())), len(calls) * len(names)
        lines.append(
            f"{counted(len(calls), 'model call')} of the sampler: {made} of {counted(possible, 'prediction')} "
            f"evaluated, {possible - made} saved"
        )
    levels = [sigma for sigma, _ in calls]
    lines += [f"{name}{said_of(leaf)}: {where_used(used[leaf], levels)}" for leaf, name in names.items()]
    lines += [f"not applied: {patch}" for patch in not_applied(guider.expression, guider.model_options)]
    return "\n".join(lines)


def said_of(leaf: Prediction) -> str:
    """What evaluates a leaf, where that is not the guider's own model as it is: a model call of its own."""
    return f" ({leaf.evaluator.name})" if isinstance(leaf, Leaf) and isinstance(leaf.evaluator, Evaluator) else ""


def where_used(used: Sequence[float], levels: Sequence[float]) -> str:
    if len(used) == len(levels):
        return "always"
    if not used:
        return "never"
    return f"between sigma {max(used):.4g} and {min(used):.4g}"


def operation_nodes() -> list[type[io.ComfyNode]]:
    return [type(f"Stepwise{one.id}", (OperationNode,), {"OPERATION": one}) for one in OPERATIONS]


def prediction_nodes() -> list[type[io.ComfyNode]]:
    return [StepwisePrediction, StepwisePerturbation, *operation_nodes(), StepwiseGuider]
