"""What pip installs, and what the Comfy registry ships."""

import ensurepip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

SAMPLE = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

# Not the hook of the tests' environment, which makes `stepwise` mean this tree.
sys.meta_path[:] = BuiltinImporter, FrozenImporter, PathFinder

import torch
from stepwise.samplers import FLOW, VE, AddressedNoise, run, start
from stepwise.samplers.registry import SOLVERS

torch.set_num_threads(1)
for path, sigmas in ((VE, (10.0, 3.0, 1.0, 0.0)), (FLOW, (1.0, 0.6, 0.2, 0.0))):
    for solver in SOLVERS:
        plan = solver.plan(path, sigmas)
        end = run(plan, lambda x, sigma: 0.5 * torch.ones_like(x), start(torch.randn(2, 4)), AddressedNoise([1, 2]))
        assert torch.allclose(end.x, torch.tensor(0.5)), solver.name
assert not [name for name in sys.modules if name.split(".")[0] == "comfy"]
import stepwise
print(stepwise.__file__)
"""


def pip():
    """The command of pip and its environment: that of the interpreter, else the one that Python brings along."""
    command, environment = [sys.executable, "-m", "pip"], {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if importlib.util.find_spec("pip") is None:
        (wheel,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
        environment["PYTHONPATH"] = str(wheel)
    return command, environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that `pip install .` fills from a copy of this tree, without network."""
    source, target = tmp_path_factory.mktemp("source") / "stepwise", tmp_path_factory.mktemp("target")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", ".dev", ".*_cache", "__pycache__"))
    (source / "dev.py").touch()
    command, environment = pip()
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-compile", "--target", target]
    made = subprocess.run(
        [*command, "install", *options, "."], cwd=source, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return target


def test_the_installed_library_samples_from_anywhere(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", SAMPLE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == installed / "stepwise" / "__init__.py"


def test_the_installed_command_converts_from_anywhere(installed, tmp_path):
    """`python -m stepwise.convert`, without this tree's hook and without torch."""
    (tmp_path / "in.json").write_text('{"1": {"class_type": "KSampler", "inputs": {"steps": 4}}}')
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-S", "-m", "stepwise.convert", "in.json", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "1  KSampler\n    left: its sampler_name" in done.stdout


def test_pip_installs_the_samplers_the_conversion_and_the_page_and_nothing_else(installed):
    library = installed / "stepwise"
    files = {path.relative_to(library).as_posix() for path in library.rglob("*") if path.is_file()}
    folders = ((ROOT / name).rglob("*.py") for name in ("samplers", "convert", "compare"))
    python = {path.relative_to(ROOT).as_posix() for folder in folders for path in folder}
    page = {f"compare/{name}" for name in ("page.css", "page.js", "controls.html", "view.html")}
    assert files == {"__init__.py", "convert/table.json", *page, *python}
    beside = {path.name for path in installed.iterdir()} - {"stepwise"}
    assert beside == {f"stepwise-{PROJECT['project']['version']}.dist-info"}


def names(requirements):
    return {re.match(r"[\w.-]+", line)[0] for line in requirements if line.strip() and not line.startswith("#")}


def test_requirements_are_the_dependencies_that_the_host_does_not_bring():
    """ComfyUI-Manager installs requirements.txt, and must not touch the host's torch."""
    host = {"torch", "numpy", "safetensors", "scipy"}
    wanted = names(PROJECT["project"]["dependencies"]) - host
    assert names((ROOT / "requirements.txt").read_text().splitlines()) == wanted


def test_the_registry_metadata():
    """Name and version as the Comfy registry takes them, and a changelog entry for the version."""
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", project["name"])
    assert "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert set(comfy) >= {"PublisherId", "DisplayName", "requires-comfyui"}
    # It would serve the help pages under the project's name, where a folder of another name does not find them.
    assert "web" not in comfy
    assert f"\n## {project['version']}\n" in (ROOT / "CHANGELOG.md").read_text()


def git_files(*options):
    listed = subprocess.run(["git", "ls-files", *options], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.splitlines())


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs git's list of files")
def test_what_the_registry_package_leaves_out():
    left_out = git_files("--cached", "--ignored", "--exclude-from=.comfyignore")
    kept = git_files() - left_out
    folders = {name.split("/")[0] if "/" in name else "" for name in kept}
    assert not folders & {"tests", "benchmarks", "tools", ".ci", ".github"}
    assert not [name for name in kept if name.startswith(("dev.py", "requirements-"))]
    needed = git_files(
        "nodes", "samplers", "convert", "compare", "web", "locales", "subgraphs", "example_workflows", "demo"
    )
    assert needed <= kept
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md", "CHANGELOG.md"} <= kept
