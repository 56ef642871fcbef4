"""ComfyUI inside the test process; see `load_comfyui`."""

from pathlib import Path

import pytest
import stepwise
import torch
from stepwise.tools.environment.folders import ROOT
from stepwise.tools.environment.inprocess import load_comfyui

if Path(stepwise.__file__).parent != ROOT:
    raise pytest.UsageError(f"stepwise is {stepwise.__file__}, not this folder. Run: python3 dev.py test")
torch.set_num_threads(2)
FOLDERS = load_comfyui()


@pytest.fixture(scope="module")
def one_thread():
    """The tensors are small: on a busy machine a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
