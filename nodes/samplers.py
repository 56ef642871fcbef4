"""Two nodes per solver of the registry, and the step node for any SAMPLER."""

from typing import Any

from comfy_api.latest import io

from ..samplers.registry import SOLVERS, Solver
from .host.sampler import PlanSampler
from .runs import run
from .runs.autosave import Autosave
from .runs.face import Face
from .shared.inputs import HIDDEN, NOISE_INPUTS, STEP_INPUTS, STEP_OUTPUTS, WINDOW_INPUTS
from .shared.messages import named
from .shared.schema import description, later_last, widgets


def names(solver: Solver) -> list[str]:
    """What people call it."""
    return list(dict.fromkeys(each.lower() for each in (solver.name, *solver.aliases)))


def aliases(solver: Solver) -> list[str]:
    """What people type to find it."""
    return [*names(solver), *(["cfg++", "cfg pp"] if "cfg_pp" in solver.parameters else []), "stepwise", "sampler"]


class StepwiseSample(io.ComfyNode):
    """Runs any SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        guider, *sockets = STEP_INPUTS
        sampler = io.Sampler.Input("sampler", tooltip="Any SAMPLER. Those of Stepwise can be stopped and resumed.")
        return io.Schema(
            node_id="StepwiseSample",
            display_name="Sample (Stepwise)",
            category="stepwise/samplers",
            description="Takes the steps of any SAMPLER. With one of Stepwise it can stop, and go on from a state.",
            search_aliases=["sampler custom advanced", "resume", "stepwise"],
            inputs=[guider, sampler, *sockets, *WINDOW_INPUTS],
            outputs=list(STEP_OUTPUTS),
            hidden=list(HIDDEN),
            # The page draws what the node did, also when a run takes it from the cache.
            has_intermediate_output=True,
        )

    @classmethod
    def execute(
        cls,
        guider,
        sampler,
        start_step,
        end_step,
        autosave_every=0,
        on_mismatch="error",
        noise=None,
        latent_image=None,
        sigmas=None,
        state=None,
    ) -> io.NodeOutput:
        autosave, face = Autosave.of(autosave_every, cls.hidden, guider), Face.of(cls.hidden)
        wired = (noise, latent_image, sigmas, state)
        with named(cls.define_schema().display_name):
            made = run.sample(guider, sampler, *wired, start_step, end_step, on_mismatch, autosave, face)
        return io.NodeOutput(*made, ui=face.after(made[2], state))


class SolverNode(StepwiseSample):
    """`StepwiseSample` with the solver fixed."""

    SOLVER: Solver

    @classmethod
    def define_schema(cls) -> io.Schema:
        solver = cls.SOLVER
        return io.Schema(
            node_id=f"Stepwise{solver.id}",
            display_name=solver.name,
            category="stepwise/samplers",
            description=description(f"Samples; can stop and go on. {solver.summary}", solver.advice, solver.papers),
            search_aliases=[*aliases(solver), *(f"{each} karras" for each in names(solver))],
            inputs=later_last(
                [
                    *STEP_INPUTS,
                    *widgets(solver.plan),
                    *(NOISE_INPUTS if solver.stochastic else ()),
                    *WINDOW_INPUTS,
                ]
            ),
            outputs=list(STEP_OUTPUTS),
            hidden=list(HIDDEN),
            # The page draws what the node did, also when a run takes it from the cache.
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, guider, noise_kind="independent", noise_device="cpu", **inputs: Any) -> io.NodeOutput:
        ours = {name: inputs.pop(name) for name in cls.SOLVER.parameters if name in inputs}
        with named(cls.SOLVER.name):
            return super().execute(guider, PlanSampler(cls.SOLVER, ours, noise_device, noise_kind), **inputs)


class SamplerNode(io.ComfyNode):
    """A solver as a SAMPLER, for Sampler Custom Advanced and every other node that takes one."""

    SOLVER: Solver

    @classmethod
    def define_schema(cls) -> io.Schema:
        solver = cls.SOLVER
        return io.Schema(
            node_id=f"Stepwise{solver.id}Sampler",
            display_name=f"{solver.name} Sampler",
            category="stepwise/samplers/sampler objects",
            description=description(f"A SAMPLER for other nodes. {solver.summary}", solver.advice, solver.papers),
            search_aliases=aliases(solver),
            inputs=later_last(widgets(solver.plan)),
            outputs=[
                io.Sampler.Output("sampler", tooltip="The solver with these settings, for any node that takes one.")
            ],
        )

    @classmethod
    def execute(cls, **params: Any) -> io.NodeOutput:
        with named(f"{cls.SOLVER.name} Sampler"):
            return io.NodeOutput(PlanSampler(cls.SOLVER, params))


def solver_nodes() -> list[type[io.ComfyNode]]:
    pairs = [
        (type(f"Stepwise{solver.id}{suffix}", (base,), {"SOLVER": solver}))
        for solver in SOLVERS
        for suffix, base in (("", SolverNode), ("Sampler", SamplerNode))
    ]
    return [*pairs, StepwiseSample]
