"""Plans that were fitted to a model, and recipes: how to sample with it, as a file."""

import torch
from comfy_api.latest import io, ui

from ..samplers import VE
from ..samplers.checkpoint import RECIPE, peek
from ..samplers.fitting import FULL, QUICK
from ..samplers.parameters import InputError
from ..samplers.recipe import Recipe, to_bytes
from .host.fitted import RecipeSampler
from .host.levels import read_sigmas, snapped
from .host.models import family_of, path_of, sampling_of
from .host.sampler import PlanSampler
from .runs import files, fit, folders, recipes
from .shared.drawing import LOG, Look, draw
from .shared.inputs import growing
from .shared.messages import named
from .shared.schema import PlanType

MOST_GUIDERS = 20
SINGLE_SIGMAS = "Its levels, for the SIGMAS of the node that runs it."


class StepwiseFitPlan(io.ComfyNode):
    """A plan of a few calls, fitted to a model and a guidance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        guider = io.Guider.Input("guider", tooltip="Model, prompts and guidance that the plan is for.")
        return io.Schema(
            node_id="StepwiseFitPlan",
            display_name="Fit Plan",
            category="stepwise/plans",
            description="Fits levels and rows of a plan to a model and its guidance, against the model's own run in "
            "many calls: fewer calls for nearly the same picture. Takes a while, once; save the result with Save "
            "Plan.",
            search_aliases=["stepwise", "fewer steps", "optimise", "calibrate", "distil", "LD3", "S4S", "turbo"],
            inputs=[
                growing(
                    "guiders",
                    guider,
                    MOST_GUIDERS,
                    "Model, prompts and guidance that the plan is for. More prompts make it fit more of them.",
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip="The size that the plan is for. As many pictures as its batch has are computed at once.",
                ),
                io.Int.Input("calls", default=10, min=2, max=50, tooltip="Model calls of the plan."),
                io.Int.Input(
                    "starts",
                    default=32,
                    min=4,
                    max=1000,
                    tooltip="Starting noises that the plan is fitted on. Half as many choose among candidates, and "
                    "half as many, which the fit never sees, are reported on.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Of the starting noises.",
                ),
                io.Combo.Input(
                    "budget",
                    options=list(fit.BUDGETS),
                    tooltip=f"quick: at most {QUICK.calls} model calls a start, the rows alone, by least squares. "
                    f"full: at most {FULL.calls}, rows and levels together.",
                ),
                io.Sigmas.Input(
                    "begin",
                    optional=True,
                    tooltip="Levels to begin from, with as many steps as calls. Without it: Karras, or on flow models "
                    "ComfyUI's simple.",
                ),
            ],
            outputs=[
                PlanType.Output("plan", tooltip="The fitted plan, for Fitted Plan Sampler and Save Plan."),
                io.String.Output("report", tooltip="How far it ends from the model's own run, beside other samplers."),
                io.Image.Output("plot", tooltip="Its levels beside those that it began from."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, latent_image, calls, starts, seed, budget, begin=None, guiders=None) -> io.NodeOutput:
        with named("Fit Plan"):
            wired = sorted((guiders or {}).items(), key=lambda each: int(each[0].rpartition("_")[2]))
            given = [guider for _, guider in wired if guider is not None]
            recipe, report, levels = fit.fitted(given, latent_image, calls, starts, seed, budget, begin)
        curves = [("sigmas_1", "fitted", recipe.sigmas), ("sigmas_2", "began from", levels)]
        picture = torch.from_numpy(draw(curves, Look(LOG, recipe.path, "dark", 768, 512), None).pixels())[None] / 255.0
        return io.NodeOutput(recipe, report, picture, ui=ui.PreviewText(report))


class StepwisePlanSampler(io.ComfyNode):
    """A plan as a SAMPLER with its SIGMAS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwisePlanSampler",
            display_name="Fitted Plan Sampler",
            category="stepwise/plans",
            description="A fitted plan, or a recipe, as SAMPLER and SIGMAS, for Sample (Stepwise) and every node that "
            "takes them.",
            search_aliases=["stepwise", "recipe", "fitted", "custom sampler"],
            inputs=[PlanType.Input("plan", tooltip="From Fit Plan or Load Plan.")],
            outputs=[
                io.Sampler.Output(
                    "sampler", tooltip="The plan; a fitted one takes the levels beside it and no others."
                ),
                io.Sigmas.Output("sigmas", tooltip=SINGLE_SIGMAS),
            ],
        )

    @classmethod
    def execute(cls, plan) -> io.NodeOutput:
        with named("Fitted Plan Sampler"):
            return io.NodeOutput(RecipeSampler(plan), torch.tensor(plan.sigmas))


class StepwiseSavePlan(io.ComfyNode):
    """A recipe as a file in the host's output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseSavePlan",
            display_name="Save Plan",
            category="stepwise/plans",
            description="Saves a recipe to ComfyUI's output folder: a fitted plan, or a sampler with its levels and "
            "guidance, as they are published with turbo LoRAs.",
            search_aliases=["stepwise", "recipe", "preset", "export sigmas"],
            inputs=[
                io.String.Input(
                    "filename_prefix",
                    default="stepwise/recipe",
                    tooltip="Folder and beginning of the file name, as in Save Image; a number is added.",
                ),
                io.String.Input(
                    "note", multiline=True, default="", tooltip="What else to say of it; kept in the file."
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=False,
                    tooltip="The guidance that sampler and sigmas are for. A fitted plan knows its own.",
                ),
                PlanType.Input("plan", optional=True, tooltip="A fitted plan. Without it, wire sampler and sigmas."),
                io.Sampler.Input("sampler", optional=True, tooltip="A Sampler node of Stepwise."),
                io.Sigmas.Input("sigmas", optional=True, tooltip="The levels that it is to take, all of them."),
                io.Model.Input("model", optional=True, tooltip="The model that sampler and sigmas are for."),
            ],
            outputs=[io.String.Output("file", tooltip="The file's name, as Load Plan lists it.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, filename_prefix, note, cfg, plan=None, sampler=None, sigmas=None, model=None) -> io.NodeOutput:
        with named("Save Plan"):
            made = plan if plan is not None else written_down(sampler, sigmas, model, cfg)
            noted = Recipe(**{**vars(made), "note": note or made.note})
            _, saved = folders.save_new(to_bytes(noted, files.about(cls.hidden)), filename_prefix, stem="plan")
        return io.NodeOutput(saved, ui=ui.PreviewText("\n".join([saved, *noted.lines()])))


def written_down(sampler, sigmas, model, cfg: float) -> Recipe:
    """The recipe of a SAMPLER, its SIGMAS and a guidance. Raises InputError where a part is missing."""
    for name, value in (("sampler", sampler), ("sigmas", sigmas)):
        if value is None:
            raise InputError(name, "is not wired, and neither is plan", "wire a plan, or both sampler and sigmas")
    if not isinstance(sampler, PlanSampler):
        problem = "is not one of Stepwise, and its settings are not known"
        raise InputError("sampler", problem, "wire a Sampler node of Stepwise: docs/names.md has the twin of each")
    path = VE if model is None else path_of(sampling_of(model))
    levels = snapped(path, read_sigmas(sigmas))
    if model is None and all(sigma <= 1.0 for sigma in levels):
        problem = "is not wired, and levels of at most 1 may be a flow model's"
        raise InputError("model", problem, "wire the model that the recipe is for")
    return Recipe(sampler.solver.name, sampler.params, path, levels, cfg, {} if model is None else family_of(model))


class StepwiseLoadPlan(io.ComfyNode):
    """A recipe from a file in the host's output or input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseLoadPlan",
            display_name="Load Plan",
            category="stepwise/plans",
            description="Loads a recipe that Save Plan has written: a fitted plan, or a sampler with its levels and "
            "guidance.",
            search_aliases=["stepwise", "recipe", "preset", "import sigmas"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=recipes.listed() or [recipes.NOTHING],
                    tooltip="The recipes in ComfyUI's output and input folders, newest first. Refresh lists them anew.",
                )
            ],
            outputs=[
                PlanType.Output("plan", tooltip="For Fitted Plan Sampler."),
                io.Float.Output("cfg", tooltip="The guidance that it is for; 0 where the recipe has none."),
                io.String.Output("text", tooltip="What it is, and what was measured."),
            ],
        )

    @classmethod
    def execute(cls, file) -> io.NodeOutput:
        with named("Load Plan"):
            found = recipes.read(file)
        return io.NodeOutput(found, float(found.cfg), "\n".join(found.lines()))

    @classmethod
    def validate_inputs(cls, file=None) -> bool | str:
        """In the place of the check against the list, which is made when the page is loaded and misses newer files."""
        if file is None:
            return True
        try:
            recipes.found(file)
        except InputError as error:
            return f"Load Plan: {error}"
        return True

    @classmethod
    def fingerprint_inputs(cls, file) -> str:
        """A file of the same name with another content is another recipe."""
        return "" if file is None else peek(recipes.found(file), form=RECIPE)["digest"]


NODES = [StepwiseFitPlan, StepwisePlanSampler, StepwiseSavePlan, StepwiseLoadPlan]
