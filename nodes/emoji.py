"""The nodes of the shipped model Emoji."""

from comfy_api.latest import io

from .host.emoji import VARIANTS, emoji_model, emoji_vae, prompt_context


class StepwiseEmojiModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseEmojiModel",
            display_name="Emoji Model",
            category="stepwise/demo",
            description="A small latent diffusion model that draws emoji from words and comes with the pack: nothing "
            "to download, seconds per picture on any computer. Use it with an Empty Latent Image of 64 x 64.",
            search_aliases=["demo model", "emoji", "tiny model", "text to image"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=VARIANTS,
                    default="standard",
                    tooltip="standard: for every sampler, from 10 steps. "
                    "lcm: distilled for the LCM sampler, 4 to 8 steps, cfg 1.",
                ),
            ],
            outputs=[io.Model.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, variant: str) -> io.NodeOutput:
        return io.NodeOutput(emoji_model(variant), emoji_vae())


class StepwiseEmojiPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StepwiseEmojiPrompt",
            display_name="Emoji Prompt",
            category="stepwise/demo",
            description="Says in words what the Emoji Model draws: the place of CLIP Text Encode.",
            search_aliases=["emoji text", "emoji conditioning", "prompt"],
            inputs=[
                io.String.Input(
                    "prompt",
                    default="cat face",
                    multiline=True,
                    placeholder="empty = anything",
                    tooltip="The name of an emoji (red apple) or words near it. With several lines image 1 of the "
                    "batch gets the first, image 2 the second, and so on, from the start again when the batch is "
                    "longer. Empty means anything: use it as the negative.",
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, prompt: str) -> io.NodeOutput:
        return io.NodeOutput([[prompt_context(prompt), {}]])


NODES = [StepwiseEmojiModel, StepwiseEmojiPrompt]
