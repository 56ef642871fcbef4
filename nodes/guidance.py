"""Guidance nodes."""

from comfy_api.latest import io, ui

from ..samplers.registry import GUIDANCE
from .guider import GuidedGuider
from .patches import not_applied
from .schema import description, widgets
from .show import show_text
from .types import GuidanceType


class StepwiseCFGGuider(io.ComfyNode):
    """Model and prompts under classifier-free guidance, evaluated by the host's own guider."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        rule = next(entry for entry in GUIDANCE if entry.id == "CFG")
        return io.Schema(
            node_id="StepwiseCFGGuider",
            display_name="CFG Guider (Stepwise)",
            category="stepwise/guidance",
            description=description(rule.summary, rule.advice, rule.papers),
            search_aliases=["cfg", "guidance", "classifier-free guidance", "stepwise"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with whatever patches it carries."),
                io.Conditioning.Input("positive", tooltip="What the picture should be."),
                io.Conditioning.Input("negative", tooltip="What it should not be, or an empty prompt."),
                *widgets(rule.function),
                GuidanceType.Input("rule", optional=True, tooltip="Rules that change how the guidance acts."),
            ],
            outputs=[io.Guider.Output("guider", tooltip="Model and prompts, for any node that samples with a GUIDER.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, positive, negative, cfg, rule=()) -> io.NodeOutput:
        guider = GuidedGuider(model)
        guider.set_rules(rule or ())
        guider.set_cfg(cfg)
        guider.set_conds(positive, negative)
        dropped = [f"not applied: {patch}" for patch in not_applied(guider.expression, guider.model_options)]
        if dropped:
            show_text(cls, "\n".join(dropped))
        return io.NodeOutput(guider, ui=ui.PreviewText("\n".join(dropped)) if dropped else None)
