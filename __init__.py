"""Stepwise: diffusion sampling as typed graph nodes for ComfyUI."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import StepwiseExtension

    return StepwiseExtension()
