"""What tools/measure/rooms.py counts, on a tree that was made up."""

import pytest
from stepwise.tools.measure.rooms import ROOT, circles, floors, read

TREE = {
    "__init__.py": "",
    "nodes/__init__.py": "from . import first, hidden\n",
    "nodes/first.py": "from .shared.words import word\nimport nodes\nimport torch\n",
    "nodes/hidden.py": "from .shared import words\n\n\ndef later():\n    from .closing import close\n",
    "nodes/closing.py": "from stepwise.nodes.hidden import later\n",
    "nodes/old.py": '"""Moved to shared.words."""\n\nfrom .shared.words import word\n',
    "nodes/shared/__init__.py": "",
    "nodes/shared/words.py": "import stepwise.nodes.shared.letters\nfrom ...samplers import plan\n",
    "nodes/shared/letters.py": "\n" * 9,
    "samplers/plan.py": "",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return read(tmp_path, "nodes")


def test_imports_are_found_wherever_they_stand_and_in_whatever_form(folder):
    """Not those of other folders, nor of the host's module `nodes`; what only leads to another is left out."""
    assert folder.imports == {
        "__init__.py": {"first.py", "hidden.py"},
        "first.py": {"shared/words.py"},
        "hidden.py": {"shared/words.py", "closing.py"},
        "closing.py": {"hidden.py"},
        "shared/__init__.py": set(),
        "shared/words.py": {"shared/letters.py"},
        "shared/letters.py": set(),
    }
    assert folder.importers["shared/words.py"] == 2


def test_a_folder_is_one_room_and_a_circle_hidden_in_a_function_is_found(folder):
    assert set(folder.rooms) == {"__init__", "first", "hidden", "closing", "shared"}
    assert folder.figures() == {
        "files": "7",
        "rooms": "5",
        "floors, of files": "4",
        "floors, of rooms": "3",
        "arrows, between files": "7",
        "arrows, between rooms": "6",
        "circles, of files": "closing.py - hidden.py",
        "circles, of rooms": "closing - hidden",
        "longest file": "shared/letters.py, 9 lines",
    }


def test_a_chain_has_a_floor_for_each_and_a_circle_has_one():
    chain = {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert (floors(chain), circles(chain)) == (4, [])
    assert (floors(chain | {"c": {"b", "d"}}), circles(chain | {"c": {"b", "d"}})) == (3, [["b", "c"]])


@pytest.mark.parametrize("part", ["nodes", "samplers", "convert", "compare", "tools"])
def test_no_room_of_the_tree_is_in_a_circle(part):
    found = read(ROOT, part)
    assert circles(found.imports) == circles(found.rooms) == []
