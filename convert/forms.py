"""Forms that names and texts have."""

import re

# Nodes that make a latent without a mask.
UNMASKED = re.compile(r"Empty\w*|VAEEncode(Tiled|Audio)?")
# A text that ComfyUI's Manual Sigmas and our Parse Sigmas read alike.
NUMBERS = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(\s*[,\s]\s*[-+]?(\d+\.?\d*|\.\d+))+\s*,?\s*")
