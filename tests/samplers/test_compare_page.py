"""The page of pictures along two axes: what stands in it, that it is text, and that it loads nothing."""

import ast
import base64
import hashlib
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from stepwise.compare import POLICY, Axis, Cell, page

ROOT = Path(__file__).resolve().parents[2]
COMPARE = ROOT / "compare"
HOSTILE = (
    "<script>alert(1)</script>",
    '" onload="alert(1)',
    "' onerror='alert(1)",
    "</title></style><img src=x onerror=alert(1)>",
    "<!-- --> & &lt; &amp; %00 ${x} {{x}}",
    "javascript:alert(1)",
)


def png(colour=(255, 0, 0)):
    """A picture of one pixel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head, body = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), zlib.compress(bytes((0, *colour)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class Read(HTMLParser):
    """The tags with their attributes, the text of each kind of tag, and the figures with what is in them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.said, self.figures, self.stack = [], {}, [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "figure":
            self.figures.append({**dict(attributes), "said": []})
        if tag not in ("meta", "img", "input"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        while self.stack.pop() != tag:
            pass

    def handle_data(self, data):
        if self.stack and data.strip():
            self.said.setdefault(self.stack[-1], []).append(data)
            if "figure" in self.stack:
                self.figures[-1]["said"].append(data.replace("\N{NO-BREAK SPACE}", " "))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def example(rows=2, columns=2):
    cells = {(i, j): Cell(png((i, j, 0)), 20, 40, 1.25) for i in range(rows) for j in range(columns)}
    return Axis("sampler", tuple(f"row {i}" for i in range(rows))), Axis("seed", tuple(map(str, range(columns)))), cells


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2), (6, 8)])
def test_every_cell_has_its_place_its_picture_and_its_figures(rows, columns):
    read = Read(page("title", *example(rows, columns)))
    places = [(int(each["data-row"]), int(each["data-column"])) for each in read.figures]
    assert places == [(i, j) for i in range(rows) for j in range(columns)]
    assert read.said["th"] == [*map(str, range(columns)), *(f"row {i}" for i in range(rows))]
    for (i, j), img in zip(places, read.all("img"), strict=True):
        kind, _, data = img["src"].partition(",")
        assert (kind, base64.b64decode(data)) == ("data:image/png;base64", png((i, j, 0)))
    for each in read.figures:
        assert (each["data-calls"], each["data-evaluations"], each["data-seconds"]) == ("20", "40", "1.25")
        assert "20 calls, 40 evaluations, 1.2 s" in each["said"]


def test_what_did_not_come_to_a_picture_says_so():
    rows, columns, _ = example(2, 2)
    cells = {(0, 0): Cell(error="out of memory", calls=3), (0, 1): Cell(), (1, 0): Cell(png(), note="fp16")}
    read = Read(page("title", rows, columns, cells))
    failed, empty, noted = (each["said"] for each in read.figures)
    assert failed == ["out of memory", "row 0 · 0", "3 calls"]
    assert empty == ["no picture", "row 0 · 1"]
    assert noted == ["row 1 · 0", "fp16"]
    assert read.said["p"].count("not run") == 1
    assert len(read.all("img")) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_text_wherever_it_stands(text):
    """The page with the text has the tags and attributes of one with a plain word, and says the text itself."""

    def made(word):
        cells = {(0, 0): Cell(png(), note=word), (0, 1): Cell(error=word)}
        return Read(page(word, Axis(word, (word,)), Axis(word, (word, word)), cells, word))

    read, plain = made(text), made("word")
    assert [(tag, list(attributes)) for tag, attributes in read.tags] == [
        (tag, list(attributes)) for tag, attributes in plain.tags
    ]
    for tag in ("title", "h1", "th", "figcaption", "span", "p", "b"):
        assert read.said.get(tag, []) == [each.replace("word", text) for each in plain.said.get(tag, [])], tag
    assert read.said["title"] == [text]
    assert [img["alt"] for img in read.all("img")] == [f"{text} · {text}"]


def test_what_no_page_can_hold_is_replaced():
    """A half of a surrogate pair cannot be written as UTF-8; marks of direction would turn what stands beside them."""
    for character in ("\ud800", "\0", "\x1b", "\u202e", "\u2066"):
        text = page(f"a{character}b", *example())
        text.encode()
        assert Read(text).said["title"] == ["a\N{REPLACEMENT CHARACTER}b"]


def test_the_policy_lets_the_pages_own_script_and_style_run_and_nothing_else():
    read = Read(page("title", *example()))
    policy = next(each["content"] for each in read.all("meta") if each.get("http-equiv"))
    assert policy == POLICY
    allowed = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert allowed["default-src"] == "'none'"
    assert allowed["img-src"] == "data:"
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (text,) = read.said[tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed[directive] == f"'sha256-{digest}'"
        assert len(read.all(tag)) == 1
    assert set(allowed) == {"default-src", "img-src", "script-src", "style-src", "base-uri", "form-action"}


def test_the_page_asks_nothing_of_anyone():
    """No address but of the pictures in it, no attribute that runs, and a script that makes no HTML of text."""
    read = Read(page("title", *example()))
    for tag, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        assert not {"href", "srcset", "action", "background"} & set(attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
    script = (COMPARE / "page.js").read_text()
    words = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function\(|fetch|XMLHttpRequest|WebSocket|https?:"
    )
    assert not re.findall(words, script)
    assert not re.findall(r"url\(|@import|https?:", (COMPARE / "page.css").read_text())


def test_a_picture_may_be_a_file(tmp_path):
    rows, columns, _ = example()
    (tmp_path / "a.png").write_bytes(png())
    read = Read(page("title", rows, columns, {(0, 0): Cell(tmp_path / "a.png")}))
    assert base64.b64decode(read.all("img")[0]["src"].partition(",")[2]) == png()
    with pytest.raises(OSError, match=r"b\.png"):
        page("title", rows, columns, {(0, 0): Cell(tmp_path / "b.png")})


@pytest.mark.parametrize("data", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF90a", b"%PDF"])
def test_what_is_no_picture_is_refused(data):
    rows, columns, _ = example()
    with pytest.raises(ValueError, match="The picture at row 0 · 1 is no PNG, JPEG, WebP or GIF"):
        page("title", rows, columns, {(0, 1): Cell(data)})


def test_what_makes_no_table_is_refused():
    rows, columns, cells = example()
    with pytest.raises(ValueError, match="a cell at row 2, column 0"):
        page("title", rows, columns, {**cells, (2, 0): Cell()})
    with pytest.raises(ValueError, match="row -1"):
        page("title", rows, columns, {(-1, 0): Cell()})
    for labels in ((), "word"):
        with pytest.raises(ValueError, match="The axis 'seed' has no labels"):
            Axis("seed", labels)
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds is"):
            Cell(seconds=value)


def test_it_imports_pythons_own_modules_and_its_own_alone():
    for path in COMPARE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names, path
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1 or node.module.split(".")[0] in sys.stdlib_module_names, path
    code = "import sys; sys.path.insert(0, sys.argv[1]); import compare; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT)], check=True)
