"""Every file can be imported on every system, and no file of tests drops out where a package is missing."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).parts[0].startswith("."))
# Of Python's own modules (docs.python.org, "Availability"): those of Unix, and those of Windows.
OF_ONE_SYSTEM = {
    *("crypt", "curses", "fcntl", "grp", "nis", "posix", "pty", "pwd", "readline", "resource", "spwd", "syslog"),
    *("termios", "tty"),
    *("msvcrt", "winreg", "winsound", "_winapi"),
}


def at_import(statements):
    """What runs when a module is imported, but for branches that ask for the system or whether a module is there."""
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and asks_for_the_system(node.test):
            continue
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(each) for each in node.handlers):
            continue
        yield node
        yield from at_import(ast.iter_child_nodes(node))


def asks_for_the_system(test):
    return ast.unparse(test).partition(" ")[0] in ("sys.platform", "os.name")


def of_one_system(text):
    found = set()
    for node in at_import(ast.parse(text).body):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found & OF_ONE_SYSTEM


def test_no_module_needs_one_system_to_be_imported():
    assert {path.name for path in FILES} >= {"dev.py", "plan.py", "sampler.py", "stamps.py", "lock.py", "conftest.py"}
    faulty = {str(path.relative_to(ROOT)): of_one_system(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: found for name, found in faulty.items() if found} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import fcntl", {"fcntl"}),
        ("try:\n    from resource import getrlimit\nexcept ValueError:\n    pass", {"resource"}),
        ("try:\n    from resource import getrlimit\nexcept ImportError:\n    pass", set()),
        ("class A:\n    import os, termios", {"termios"}),
        ("def f():\n    import pwd", set()),
        ("import sys\nif sys.platform == 'win32':\n    import msvcrt\nelse:\n    import fcntl", set()),
        ("from .pwd import a", set()),
    ],
)
def test_imports_that_run_are_found(text, found):
    assert of_one_system(text) == found


def test_no_file_of_tests_is_skipped_whole():
    """A package that the tests need is imported: where it is missing that is an error."""
    for path in (ROOT / "tests").rglob("*.py"):
        calls = [n for n in at_import(ast.parse(path.read_text(encoding="utf-8")).body) if isinstance(n, ast.Call)]
        named = {ast.unparse(call.func) for call in calls}
        assert not named & {"pytest.importorskip", "importorskip", "pytest.skip"}, path
