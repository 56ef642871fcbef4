"""ComfyUI inside the test process; see `load_comfyui`."""

from pathlib import Path

import pytest
import stepwise
import torch
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.environment.inprocess import load_comfyui

if Path(stepwise.__file__).parent != ROOT:
    raise pytest.UsageError(f"stepwise is {stepwise.__file__}, not this folder. Run: python3 dev.py test")
# Sums in parallel depend on the number of threads; and the tensors are small: a second one costs more than it brings.
torch.set_num_threads(1)
FOLDERS = load_comfyui()
