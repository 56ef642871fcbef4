"""The solver of CONTRIBUTING.md, added to the registry: a plugin for pytest, to be loaded before anything else is."""

import importlib.util
import re
import sys
import tempfile
from pathlib import Path

from stepwise.samplers import registry
from stepwise.samplers.registry import Setting, Solver

ROOT = Path(__file__).resolve().parents[2]
CODE, ENTRY = re.findall(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE)
MODULE = "stepwise.samplers.solvers.ralston"
PAPER = "Ralston 1962, Runge-Kutta Methods with Minimum Error Bounds, Mathematics of Computation 16"


def loaded(code: str, folder: Path):
    file = folder / "ralston.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location(MODULE, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    return module


def entry(text: str, folder: Path) -> Solver:
    """What the page's literal says."""
    (folder / "entry.py").write_text(f"ENTRY = {text}")
    spec = importlib.util.spec_from_file_location("new_entry", folder / "entry.py")
    module = importlib.util.module_from_spec(spec)
    vars(module).update(Solver=Solver, Setting=Setting, RALSTON_PAPER=PAPER, ralston=sys.modules[MODULE])
    spec.loader.exec_module(module)
    return module.ENTRY


FOLDER = tempfile.TemporaryDirectory(prefix="stepwise-new-solver-")
loaded(CODE, Path(FOLDER.name))
SOLVER = entry(ENTRY, Path(FOLDER.name))
registry.SOLVERS = registry.solvers.SOLVERS = (*registry.SOLVERS, SOLVER)
