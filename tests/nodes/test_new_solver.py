"""A solver that is added to the registry alone: what it gets for nothing. It is the one of CONTRIBUTING.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = [ROOT / "tests" / "support", ROOT / "tests" / "samplers" / "support"]
# A file of tests for each claim, and the tests in it that must have run on the new solver.
THEOREMS = {
    "tests/samplers/test_plans.py": ("marginal", "weight", "calls"),
    "tests/samplers/test_order.py": ("order",),
    "tests/samplers/test_open_end.py": ("look_ahead", "bit_for_bit"),
    "tests/samplers/test_checkpoint.py": ("gone_on_from_disk",),
    "tests/samplers/test_cfg_pp.py": ("guided_image", "uncut"),
    "tests/samplers/test_parameters.py": ("",),
    "tests/nodes/test_resume.py": ("cut",),
    "tests/nodes/test_fork.py": ("split_schedule",),
    "tests/nodes/test_parity.py": ("",),
}
QUESTIONS = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import new_solver
from stepwise.tools.environment.inprocess import load_comfyui
folders = load_comfyui()
from stepwise.nodes import all_nodes
from stepwise.tools.generate import subjects
from stepwise.tools.generate.pages import page
from stepwise.benchmarks.cost import METHODS
nodes = {node.GET_SCHEMA().node_id: node for node in all_nodes()}
STOCHASTIC = ("s_churn", "s_tmin", "s_tmax", "s_noise", "noise_kind", "noise_device")
subjects.HAND = __import__("pathlib").Path(sys.argv[2])
ours = [nodes[name] for name in ("StepwiseRalston", "StepwiseRalstonSampler")]
print(json.dumps({
    "inputs": [[each.id for each in node.GET_SCHEMA().inputs] for node in ours],
    "like": [each.id for each in nodes["StepwiseHeun"].GET_SCHEMA().inputs if each.id not in STOCHASTIC],
    "pages": [page(subjects.subject(node)) for node in ours],
    "costs": [method.label for method in METHODS],
}))
"""


def ran(*command, **options):
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    hand = tmp_path_factory.mktemp("pages")
    (hand / "StepwiseRalston.md").write_text("schedule: Karras Schedule\n")
    out = ran(sys.executable, "-c", QUESTIONS, json.dumps([*map(str, SUPPORT)]), hand)
    return json.loads(out.splitlines()[-1])


def test_it_has_its_two_nodes(known):
    steps, sampler = known["inputs"]
    assert steps == known["like"]
    assert sampler == ["cfg_pp"]


def test_it_has_its_pages(known):
    steps, sampler = known["pages"]
    for text in (steps, sampler):
        assert "x_t = x + (t - s) (k_1 + 3 k_2) / 4" in text
        assert "Ralston 1962, Runge-Kutta" in text
        assert "- **as it comes**: order 2; model calls a step: 2; in a last step to 0: 1." in text
    assert "## Stop and go on" in steps
    assert "**SamplerCustomAdvanced** takes" in sampler


def test_its_cost_is_counted(known):
    assert "Ralston" in known["costs"]


@pytest.mark.parametrize("folder", ["tests/samplers", "tests/nodes"])
def test_what_is_claimed_of_it_is_proved(folder):
    files = [name for name in THEOREMS if name.startswith(folder)]
    options = ["-p", "new_solver", "-k", "Ralston", "-v", "--no-header", "-p", "no:cacheprovider"]
    paths = f"import sys; sys.path[:0] = {[*map(str, SUPPORT)]!r}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    lines = ran(sys.executable, "-P", "-c", paths, *options, *files).splitlines()
    passed = [line for line in lines if "PASSED" in line]
    assert re.search(r"\d+ passed(, \d+ deselected)? in", lines[-1]), lines[-1]
    for name in files:
        of_file = [line.partition("::")[2] for line in passed if line.startswith(name)]
        assert all(any(word in line for line in of_file) for word in THEOREMS[name]), (name, of_file)
