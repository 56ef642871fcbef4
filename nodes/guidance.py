"""The guider, and one node per rule of guidance in the registry."""

from typing import Any

from comfy_api.latest import io, ui

from ..samplers.guidance import Chain
from ..samplers.guidance.expressions import Leaf
from ..samplers.parameters import InputError
from ..samplers.registry import GUIDANCE, Guidance
from .host.cfg_patches import not_applied
from .host.guider import GuidedGuider, PredictionGuider
from .shared.curves import curve_of
from .shared.messages import named, show_text
from .shared.schema import GuidanceType, description, later_last, widgets


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
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What it should not be, or an empty prompt. Not needed with cfg 1, as for Flux and "
                    "distilled models.",
                ),
                *widgets(rule.function),
                GuidanceType.Input("rule", optional=True, tooltip="Rules that change how the guidance acts."),
            ],
            outputs=[io.Guider.Output("guider", tooltip="Model and prompts, for any node that samples with a GUIDER.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model, positive, cfg, negative=None, rule=()) -> io.NodeOutput:
        if negative is None:
            with named("CFG Guider (Stepwise)"):
                return io.NodeOutput(of_one_prompt(model, positive, cfg, rule or ()))
        guider = GuidedGuider(model)
        guider.set_rules(rule or ())
        guider.set_cfg(cfg)
        guider.set_conds(positive, negative)
        dropped = [f"not applied: {patch}" for patch in not_applied(guider.expression, guider.model_options)]
        if dropped:
            show_text(cls, "\n".join(dropped))
        return io.NodeOutput(guider, ui=ui.PreviewText("\n".join(dropped)) if dropped else None)


def of_one_prompt(model: Any, positive: Any, cfg: float, rules: Chain) -> PredictionGuider:
    """The guider of the positive prompt alone. Raises InputError for what acts on guidance, which needs two."""
    cure = "wire what the picture should not be, or an empty prompt, into negative"
    if cfg != 1.0:
        raise InputError(
            "cfg", f"is {cfg:g}, and there is no negative prompt to guide away from", f"set it to 1, or {cure}"
        )
    if any(rule.kind != "history" for rule in rules):
        raise InputError("rule", "changes guidance, and there is no negative prompt to guide away from", cure)
    if rules:
        # At scale 1 the other side is never evaluated.
        guider = GuidedGuider(model)
        guider.set_rules(rules)
        guider.set_cfg(1.0)
        guider.set_conds(positive, positive)
        return guider
    guider = PredictionGuider(model)
    guider.set_prediction(Leaf(positive))
    return guider


# No guidance at the ends, the guider's own scale in the middle.
HUMP = ((0.0, 0.0), (0.3, 1.0), (0.7, 1.0), (1.0, 0.0))


class RuleNode(io.ComfyNode):
    """A rule as STEPWISE_GUIDANCE: a tuple of `guidance.Rule`, those of the wired `rule` first."""

    RULE: Guidance

    @classmethod
    def define_schema(cls) -> io.Schema:
        rule = cls.RULE
        return io.Schema(
            node_id=f"Stepwise{rule.id}Guidance",
            display_name=rule.name,
            category="stepwise/guidance",
            description=description(rule.summary, rule.advice, rule.papers),
            search_aliases=[*rule.aliases, "stepwise", "guidance", "cfg"],
            inputs=later_last(
                [
                    *(io.Conditioning.Input(name, tooltip=meaning) for name, meaning in rule.others.items()),
                    *(io.Curve.Input(name, default=list(HUMP), tooltip=text) for name, text in rule.curves.items()),
                    *widgets(rule.function),
                    GuidanceType.Input("rule", optional=True, tooltip="Another rule, to act together with this one."),
                ]
            ),
            outputs=[GuidanceType.Output("guidance", tooltip="The rules, for a guider of Stepwise or another rule.")],
        )

    @classmethod
    def execute(cls, rule: Any = (), **values: Any) -> io.NodeOutput:
        with named(cls.RULE.name):
            values |= {name: curve_of(values[name], name) for name in cls.RULE.curves}
            made = cls.RULE.rule(values)
            if made.kind == "combine" and any(other.kind == "combine" for other in rule):
                problem = f"holds another {cls.RULE.name} already, and there is but one positive prompt to combine"
                raise InputError("rule", problem, "use Another Prompt for more prompts")
            return io.NodeOutput((*rule, made))


def rule_nodes() -> list[type[io.ComfyNode]]:
    return [type(f"Stepwise{rule.id}Guidance", (RuleNode,), {"RULE": rule}) for rule in GUIDANCE if rule.kind]
