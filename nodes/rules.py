"""One node per rule of guidance in the registry."""

from typing import Any

from comfy_api.latest import io

from ..samplers.registry import GUIDANCE, Guidance
from .errors import named
from .schema import description, widgets
from .types import GuidanceType


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
            inputs=[
                *(io.Conditioning.Input(name, tooltip=meaning) for name, meaning in rule.others.items()),
                *widgets(rule.function),
                GuidanceType.Input("rule", optional=True, tooltip="Another rule, to act together with this one."),
            ],
            outputs=[GuidanceType.Output("guidance", tooltip="The rules, for a guider of Stepwise or another rule.")],
        )

    @classmethod
    def execute(cls, rule: Any = (), **values: Any) -> io.NodeOutput:
        others = {name: values.pop(name) for name in cls.RULE.others}
        with named(cls.RULE.name):
            return io.NodeOutput((*(rule or ()), cls.RULE.rule(values, **others)))


def rule_nodes() -> list[type[io.ComfyNode]]:
    return [type(f"Stepwise{rule.id}Guidance", (RuleNode,), {"RULE": rule}) for rule in GUIDANCE if rule.kind]
