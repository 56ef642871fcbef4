"""Draw what the Emoji model makes, with the host's own sampler: a sheet of prompts and one prompt at five guidances.

    COMFYUI_PATH=... python demo/emoji_sheet.py [--state .dev/emoji] [--seed 0] [--threads 2]

40 prompts at guidance 4, 20 steps of DPM++ 2M on Karras' levels, in the order of PROMPTS, from the last checkpoint;
in a second sheet the training picture that is nearest to each. The pictures go beside the checkpoints.
"""

import argparse
import time
from pathlib import Path

import emoji_train as train  # isort: skip  (it finds the host)
import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.supported_models_base
import emoji_net as net
import emoji_words
import torch
from PIL import Image
from torch import Tensor, nn

PROMPTS = """cat face; dog face; red apple; sunflower; smiling face with sunglasses; rocket; blue heart; pizza;
grinning face with smiling eyes; crying face; enraged face; face with tears of joy; pig face; panda; frog; lion;
penguin; octopus; lady beetle; tropical fish; banana; grapes; strawberry; watermelon; hamburger; doughnut;
birthday cake; hot beverage; tulip; cactus; deciduous tree; house; automobile; bicycle; airplane; sun; crescent moon;
snowman; umbrella; soccer ball"""
PROMPTS = [" ".join(prompt.split()) for prompt in PROMPTS.split(";")]
GUIDANCES = (1.0, 3.0, 7.5, 15.0, 30.0)
GUIDANCE, STEPS, COLUMNS, ZOOM = 4.0, 20, 8, 2


class Drawer:
    """The last checkpoint as a MODEL of the host, its text side and its codec."""

    def __init__(self, data: train.Data, state: Path):
        checkpoint = torch.load(state / "unet.pt", weights_only=True)
        self.step = checkpoint["step"]
        self.vocabulary = emoji_words.Vocabulary(data.known)
        network = train.Network(self.vocabulary)
        network.load_state_dict(checkpoint["average"])
        self.text = network.text.eval().requires_grad_(False)
        self.unet = network.unet.eval().requires_grad_(False)
        self.codec = train.trained_codec(state) if (state / "codec.pt").is_file() else train.fitted_codec(data)
        self.model = host_model(self.unet)

    def context(self, prompts: list[str]) -> Tensor:
        return self.text(torch.tensor([self.vocabulary.numbers(emoji_words.words(prompt)) for prompt in prompts]))

    @torch.no_grad()
    def draw(self, prompts: list[str], guidance: float, seed: int, steps: int = STEPS) -> Tensor:
        """Pictures `[N, 3, 64, 64]` in [0, 1]; the noise of picture i depends on the seed and i."""
        noise = [
            torch.randn(net.CHANNELS, 8, 8, generator=torch.Generator().manual_seed(seed * 1000 + index))
            for index in range(len(prompts))
        ]
        positive, negative = [[self.context(prompts), {}]], [[self.context([""]), {}]]
        latent = torch.zeros(len(prompts), net.CHANNELS, 8, 8)
        settings = {"sampler_name": "dpmpp_2m", "scheduler": "karras", "disable_pbar": True, "seed": seed}
        samples = comfy.sample.sample(
            self.model,
            torch.stack(noise),
            steps,
            guidance,
            positive=positive,
            negative=negative,
            latent_image=latent,
            **settings,
        )
        return (self.codec.decode(samples.float()) / 2 + 0.5).clamp(0, 1)


def host_model(unet: nn.Module) -> comfy.model_patcher.ModelPatcher:
    config = comfy.supported_models_base.BASE({"disable_unet_model_creation": True, "in_channels": net.CHANNELS})
    config.latent_format, config.sampling_settings = net.EmojiLatent(), dict(net.SAMPLING)
    device = torch.device("cpu")
    model = comfy.model_base.BaseModel(config, model_type=comfy.model_base.ModelType.V_PREDICTION, device=device)
    model.diffusion_model = unet
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def save_grid(pictures: Tensor, path: Path, columns: int = COLUMNS, zoom: int = ZOOM) -> None:
    """`[N, 3, 64, 64]` in [0, 1], row by row with a gap of 4, enlarged."""
    padded = nn.functional.pad(pictures, (2, 2, 2, 2), value=1.0)
    rows = -(-len(padded) // columns)
    grid = padded.new_ones(rows * columns, *padded.shape[1:])
    grid[: len(padded)] = padded
    side = padded.shape[-1]
    grid = grid.view(rows, columns, 3, side, side).permute(0, 3, 1, 4, 2).reshape(rows * side, columns * side, 3)
    picture = Image.fromarray((grid * 255).round().byte().numpy())
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.LANCZOS).save(path)


def nearest(data: train.Data, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The rms distance of each picture to the nearest training picture, and which it is."""
    known = data.pictures.float().flatten(1) / 255
    distance = torch.cdist(pictures.flatten(1), known) / known.shape[1] ** 0.5
    return distance.min(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=train.DEMO.parent / ".dev" / "emoji")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = train.Data(options.state)
    drawer = Drawer(data, options.state)
    start = time.monotonic()
    sheet = drawer.draw(PROMPTS, GUIDANCE, options.seed)
    print(f"step {drawer.step}: 40 pictures in {time.monotonic() - start:.1f} s")
    save_grid(sheet, options.state / "sheet.png")
    distances, which = nearest(data, sheet)
    save_grid(data.pictures[which].float() / 255, options.state / "sheet_nearest.png")
    for prompt, distance, index in zip(PROMPTS, distances.tolist(), which.tolist(), strict=True):
        print(f"{prompt:32} nearest: {data.entries[index]['name']:32} rms {distance:.3f}")
    cats = [drawer.draw([PROMPTS[0]], guidance, options.seed) for guidance in GUIDANCES]
    save_grid(torch.cat(cats), options.state / "cat.png", columns=len(GUIDANCES), zoom=4)


if __name__ == "__main__":
    main()
