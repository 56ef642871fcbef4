"""The tests of `samplers/` run on plain torch, in an interpreter that has no ComfyUI."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "support"))
torch.set_num_threads(1)
