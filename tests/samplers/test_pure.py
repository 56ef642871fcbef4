"""`samplers/` stands alone: no ComfyUI, no node code, nothing beyond its four packages."""

import ast
import importlib
import sys
from pathlib import Path

import pytest
import stepwise.samplers

ROOT = Path(stepwise.samplers.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ALLOWED = {"torch", "numpy", "safetensors", "scipy", *sys.stdlib_module_names}
FORBIDDEN_CALLS = {"__import__", "import_module", "exec", "eval"}


def imports(path: Path):
    """The packages that a file imports by absolute name, and where its relative imports lead, anywhere in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[node.level - 1]
            yield "samplers" if folder.is_relative_to(ROOT) else f"outside: {folder}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in FORBIDDEN_CALLS:
                yield f"call of {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path):
    assert set(imports(path)) <= ALLOWED | {"samplers"}


def test_every_file_is_scanned():
    assert {path.name for path in FILES} >= {"plan.py", "entries.py", "ancestral.py", "unipc.py", "single_step.py"}


def test_this_interpreter_has_no_comfyui():
    """All tests of this folder run where ComfyUI does not exist, so none of them can need it."""
    with pytest.raises(ImportError):
        importlib.import_module("comfy")
