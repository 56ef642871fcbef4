"""Forms that names and texts have."""

import re

from .graph import Graph, Wire

# Nodes that make a latent without a mask, and nodes that hand one on as they got it.
UNMASKED = re.compile(r"Empty\w*|VAEEncode(Tiled|Audio)?")
STEPS = re.compile(r"KSampler(Advanced)?|SamplerCustom(Advanced)?|StepwiseKSampler")
# A text that ComfyUI's Manual Sigmas and our Parse Sigmas read alike.
NUMBERS = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(\s*[,\s]\s*[-+]?(\d+\.?\d*|\.\d+))+\s*,?\s*")


def unmasked(graph: Graph, latent: Wire | None) -> bool:
    """Whether a latent is known to have no mask."""
    for _ in range(len(graph.nodes)):
        found = graph.source(latent)
        if found is None or not STEPS.fullmatch(found[0].kind):
            return found is not None and bool(UNMASKED.fullmatch(found[0].kind))
        latent = found[0].wire("latent_image")
    return False
