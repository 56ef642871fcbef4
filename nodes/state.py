"""Nodes that keep a run: to disk, from disk, and as text."""

from dataclasses import replace

from comfy_api.latest import io, ui

from ..samplers.checkpoint import peek
from ..samplers.parameters import InputError, counted
from .runs import files, folders
from .runs.held import HeldRun, described
from .shared.messages import named
from .shared.schema import StateType


class StepwiseSaveState(io.ComfyNode):
    """A state as a file in the host's output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseSaveState",
            display_name="Save State",
            category="stepwise/state",
            description="Saves a run to ComfyUI's output folder, to go on from later, after a restart or on another "
            "computer.",
            search_aliases=["checkpoint", "checkpoint save", "pause", "resume", "save run", "stepwise"],
            inputs=[
                StateType.Input("state", tooltip="What a step node of Stepwise gives beside the latent."),
                io.String.Input(
                    "filename_prefix",
                    default="stepwise/state",
                    tooltip="Folder and beginning of the file name, as in Save Image; a number is added.",
                ),
            ],
            outputs=[io.String.Output("file", tooltip="The file's name, as Load State lists it.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, state, filename_prefix) -> io.NodeOutput:
        with named("Save State"):
            _, saved = folders.save_new(files.to_bytes(state, files.about(cls.hidden)), filename_prefix)
        return io.NodeOutput(saved, ui=ui.PreviewText(saved))


class StepwiseLoadState(io.ComfyNode):
    """A state from a file in the host's output or input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseLoadState",
            display_name="Load State",
            category="stepwise/state",
            description="Loads a run that Save State or autosave_every has written, to go on with it.",
            search_aliases=["checkpoint", "checkpoint resume", "resume", "load run", "autosave", "stepwise"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=folders.listed() or [folders.NOTHING],
                    tooltip="The states in ComfyUI's output and input folders, newest first. Refresh lists them anew; "
                    "a state file dropped on the node is uploaded and chosen.",
                ),
                io.Boolean.Input(
                    "warm_up",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Before the run goes on, calls the model once on a corner of the latent and throws the "
                    "result away. On a GPU the first call after a start of ComfyUI can differ in its last bits from "
                    "all later ones, and so the rest of a run from the run in one piece. Costs a fraction of a step.",
                ),
            ],
            outputs=[StateType.Output("state", tooltip="Everything that the rest of the run needs.")],
        )

    @classmethod
    def execute(cls, file, warm_up=False) -> io.NodeOutput:
        with named("Load State"):
            return io.NodeOutput(replace(files.read(folders.found(file), file), warm_up=warm_up))

    @classmethod
    def validate_inputs(cls, file=None) -> bool | str:
        """In the place of the check against the list, which is made when the page is loaded and misses newer files."""
        # A file that is wired in comes as None: it is known when the node is executed. One that a prompt leaves out
        # does not come, and is named by the host.
        if file is None:
            return True
        try:
            folders.found(file)
        except InputError as error:
            return f"Load State: {error}"
        return True

    @classmethod
    def fingerprint_inputs(cls, file, warm_up=False) -> str:
        """A file of the same name with another content is another state."""
        return "" if file is None else peek(folders.found(file))["digest"]


class StepwiseInspectState(io.ComfyNode):
    """What a state holds, as text, and its picture so far."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StepwiseInspectState",
            display_name="Inspect State",
            category="stepwise/state",
            description="Says what is in a state: solver, schedule, place, seed, model and memory. Its denoised latent "
            "shows the picture so far.",
            search_aliases=["debug", "state info", "preview state", "stepwise"],
            inputs=[StateType.Input("state", tooltip="What a step node of Stepwise gives beside the latent.")],
            outputs=[
                io.String.Output("text", tooltip="What the state holds, a line for each thing."),
                io.Latent.Output("denoised", tooltip="The last prediction of the clean latent."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, state) -> io.NodeOutput:
        with named("Inspect State"):
            if state.state is None:
                cure = "use a Stepwise sampler in the node that made it"
                raise InputError("state", f"comes from a sampler that keeps nothing to resume ({state.solver})", cure)
            text = "\n".join(f"{name}: {value}" for name, value in summary(state).items())
        return io.NodeOutput(text, {**state.latent, "samples": state.denoised}, ui=ui.PreviewText(text))


def summary(held: HeldRun) -> dict[str, str]:
    """What a state holds, in the words of its artist."""
    registers = held.state.registers
    size = sum(tensor.nbytes for tensor in {id(each): each for each in registers.values()}.values())
    model, level = held.model, "no noise level" if held.level is None else f"noise level {held.level:.6g}"
    channels, calls = counted(model.get("channels"), "channel"), counted(held.state.index, "model call")
    beside = f", with {model['others']} beside it" if "others" in model else ""
    before = f", {held.solver} since step {held.solver_step}" if held.solver_step > held.start_step else ""
    return {
        "solver": described(held.solver, held.params),
        "stands at": f"step {held.step} of {held.steps}, {level}{before}",
        "schedule": f"{counted(held.steps, 'step')} from {held.sigmas[0]:.6g} to {held.sigmas[-1]:.6g}"
        if held.sigmas
        else "empty",
        "model": f"{model.get('model')} ({model.get('sampling')}), {held.path!r} path{beside}",
        "latent": f"{form(held.latent['samples'])}, {model.get('latent')} of {channels}",
        "mask": "yes" if held.latent.get("noise_mask") is not None else "none",
        "seed": str(held.image_seeds),
        "registers": f"{', '.join(sorted(registers))} ({size / 2**20:.2f} MiB), {calls} done",
        "guidance memory": ", ".join(sorted([*held.memory, *held.patches])) or "none",
        **({"not carried": ", ".join(held.forgotten)} if held.forgotten else {}),
        "prompts evaluated": evaluated_together(held),
    }


def evaluated_together(held: HeldRun) -> str:
    return " and ".join(str(len(group)) for group in held.batching) + " at a time" if held.batching else "not known"


def form(samples) -> str:
    components = samples.unbind() if samples.is_nested else [samples]
    return " and ".join("x".join(map(str, part.shape)) for part in components)


NODES = [StepwiseSaveState, StepwiseLoadState, StepwiseInspectState]
