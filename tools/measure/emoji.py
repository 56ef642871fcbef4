"""Pictures drawn by the Emoji model that comes with the pack, through its nodes."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .host import Guided, execute, node

SEED = 0
PROMPTS = """cat face; dog face; red apple; sunflower; smiling face with sunglasses; rocket; blue heart; pizza;
grinning face with smiling eyes; crying face; enraged face; face with tears of joy; pig face; panda; frog; lion;
penguin; octopus; lady beetle; tropical fish; banana; grapes; strawberry; watermelon; hamburger; doughnut;
birthday cake; hot beverage; tulip; cactus; deciduous tree; house; automobile; bicycle; airplane; sun; crescent moon;
snowman; umbrella; soccer ball"""
PROMPTS = [" ".join(prompt.split()) for prompt in PROMPTS.split(";")]


@cache
def emoji(variant: str = "standard") -> tuple[Any, Any]:
    return node("StepwiseEmojiModel", variant=variant)


def guided(prompts: Sequence[str], cfg: float, variant: str = "standard") -> Guided:
    (positive,), (negative,) = (node("StepwiseEmojiPrompt", prompt=text) for text in ("\n".join(prompts), ""))
    return Guided(emoji(variant)[0], positive, negative, cfg)


def sample(
    prompts: Sequence[str], cfg: float, solver: str, schedule: str, steps: int, variant: str = "standard"
) -> Tensor:
    """Latents of the prompts, image i from the noise of SEED and i, whatever stands beside it."""
    return guided(prompts, cfg, variant).sample(solver, schedule, steps, SEED, torch.zeros(len(prompts), 16, 8, 8))[0]


@torch.inference_mode()
def pictures(latents: Tensor) -> Tensor:
    """`[N, 64, 64, 3]` in [0, 1]."""
    (made,) = execute("VAEDecode", {"vae": emoji()[1], "samples": {"samples": latents}})
    return made
