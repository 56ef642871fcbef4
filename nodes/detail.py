"""More or less detail, by what the model is told."""

import torch
from comfy_api.latest import io

from ..samplers import VE
from ..samplers.detail import told_level
from ..samplers.parameters import checked
from .host.detail import with_detail
from .shared.messages import named
from .shared.schema import description, widgets


class StepwiseDetail(io.ComfyNode):
    """A MODEL that is told a little less noise than there is, or more."""

    FORMULA = staticmethod(told_level)

    @classmethod
    def define_schema(cls) -> io.Schema:
        summary = "Tells the model a little less noise than there is, along a curve, so that more of it stays: detail."
        return io.Schema(
            node_id="StepwiseDetail",
            display_name="Detail",
            category="stepwise/guidance",
            description=description(summary, "An amount of 0.05 to 0.2; below 0 it smooths."),
            search_aliases=["stepwise", "detail daemon", "lying sigma", "sharpness", "texture"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with whatever patches it carries."),
                *widgets(told_level),
            ],
            outputs=[io.Model.Output("model", tooltip="The model, for any guider or sampling node.")],
        )

    @classmethod
    def execute(cls, model, **values) -> io.NodeOutput:
        with named("Detail"):
            params = checked(told_level, values)
            told_level(torch.ones(1), VE, **params)
            return io.NodeOutput(with_detail(model, params) if params["amount"] else model)
