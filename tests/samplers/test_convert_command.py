"""The command of the conversion: plain Python from any folder, its files, its exit status."""

import ast
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from stepwise.convert import BadWorkflow, files

ROOT = Path(__file__).resolve().parents[2]
CONVERT = ROOT / "convert"
PROMPT = {
    "3": {"class_type": "EmptyLatentImage", "inputs": {}},
    "4": {
        "class_type": "KSampler",
        "inputs": {
            **{name: ["9", 0] for name in ("model", "positive", "negative")},
            "latent_image": ["3", 0],
            "seed": 1,
            "steps": 20,
            "cfg": 7.0,
            "denoise": 1.0,
            "sampler_name": "euler",
            "scheduler": "karras",
        },
    },
}


def run(folder, *arguments, command=(CONVERT,)):
    """`python PACK/convert ...` in another folder, without any package but Python's own."""
    words = [sys.executable, "-I", "-S", *map(str, (*command, *arguments))]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def given(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(PROMPT))
    return tmp_path


def with_sampler(folder, name):
    prompt = json.loads(json.dumps(PROMPT))
    prompt["4"]["inputs"]["sampler_name"] = name
    (folder / "in.json").write_text(json.dumps(prompt))


def test_it_imports_pythons_own_modules_and_its_own_alone():
    for path in CONVERT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names, path
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1 or node.module.split(".")[0] in sys.stdlib_module_names, path


def test_all_converted_is_status_0_and_there_and_back_is_what_was_there(given):
    done = run(given, "in.json", "-o", "out.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 of 1 nodes converted: 1 same picture.\n4  KSampler -> KSampler (Stepwise)")
    made = json.loads((given / "out.json").read_text())
    assert made["4"]["class_type"] == "StepwiseKSampler"
    assert run(given, "out.json", "-o", "back.json", "--back").returncode == 0
    assert json.loads((given / "back.json").read_text()) == PROMPT
    assert sorted(path.name for path in given.iterdir()) == ["back.json", "in.json", "out.json"]


def test_some_left_is_status_1_and_the_file_is_written(given):
    with_sampler(given, "heunpp2")
    done = run(given, "in.json", "-o", "out.json")
    assert done.returncode == 1
    assert "left: heunpp2: no solver of Stepwise takes its steps." in done.stdout
    assert json.loads((given / "out.json").read_text()) == json.loads((given / "in.json").read_text())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"[1]", "is neither a workflow of the editor"),
        (b"{}", "is neither a workflow of the editor"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"nodes": [{"id": 1}]}', "The workflow: nodes[0] has no type."),
        (b'{"nodes": [], "x": ' + b"[" * 900 + b"]" * 900 + b"}", "a value in it is nested too deeply"),
        (b'{"nodes": [], "links": 3}', "The workflow has links that are no list."),
        (b"\x89PNG\r\n\x1a\n", "is a picture that carries no workflow"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x10\x00tEXtworkflow\0{}", "is cut short"),
    ],
)
def test_bad_input_is_status_2_and_nothing_is_written(tmp_path, content, said):
    (tmp_path / "in.json").write_bytes(content)
    done = run(tmp_path, "in.json", "-o", "out.json")
    assert done.returncode == 2
    assert done.stderr.startswith("convert: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_a_file_that_is_not_there_and_a_place_that_is_none(given):
    assert run(given, "other.json", "-o", "out.json").returncode == 2
    assert run(given, "in.json", "-o", "nowhere/out.json").returncode == 2
    assert run(given, "in.json").returncode == 2
    assert [path.name for path in given.iterdir()] == ["in.json"]


def test_a_result_takes_the_place_of_a_file_as_that_was_and_of_the_input(given):
    before = given / "in.json"
    before.chmod(0o640)
    assert run(given, "in.json", "-o", "in.json").returncode == 0
    assert before.stat().st_mode & 0o777 == 0o640
    assert json.loads(before.read_text())["4"]["class_type"] == "StepwiseKSampler"
    assert run(given, "in.json", "-o", "out.json", "--back").returncode == 0
    (given / "new").touch()
    assert (given / "out.json").stat().st_mode == (given / "new").stat().st_mode


@pytest.mark.skipif(os.name == "nt", reason="links and devices of Unix")
def test_a_link_stays_one_and_a_device_stays_there(given):
    (given / "link.json").symlink_to("out.json")
    assert run(given, "in.json", "-o", "link.json").returncode == 0
    assert (given / "link.json").is_symlink()
    assert json.loads((given / "out.json").read_text())["4"]["class_type"] == "StepwiseKSampler"
    os.mkfifo(given / "pipe")
    script = f"cat pipe > read.json & {sys.executable} -I -S {CONVERT} in.json -o pipe && wait"
    assert subprocess.run(["sh", "-c", script], cwd=given).returncode == 0
    assert (given / "pipe").is_fifo()
    assert (given / "read.json").read_text() == (given / "out.json").read_text()


def test_what_has_no_end_is_refused(given, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 1000)
    (given / "in.json").write_bytes(b" " * 1001)
    with pytest.raises(BadWorkflow, match="is larger than"):
        files.load(given / "in.json")


@pytest.mark.parametrize("title", ["サンプラー 🎨", "half of \\ud83c a pair"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_title_is_kept_and_told_on_any_terminal(given, title, encoding):
    text = json.dumps({**PROMPT, "5": {"class_type": "RescaleCFG", "_meta": {"title": "@"}, "inputs": {}}})
    (given / "in.json").write_text(text.replace("@", title), encoding="utf-8")
    words = [sys.executable, str(CONVERT), "in.json", "-o", "out.json"]
    done = subprocess.run(
        words, cwd=given, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    made, before = (json.loads((given / name).read_bytes())["5"] for name in ("out.json", "in.json"))
    assert made == before
    assert b" acts as before" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="a pipe of Unix")
def test_it_may_be_read_no_further(given):
    many = {str(number): PROMPT["4"] for number in range(3000)}
    (given / "in.json").write_text(json.dumps(many))
    script = f"{sys.executable} -I -S {CONVERT} in.json --dry-run | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=given, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3000 of 3000 nodes converted: 3000 same picture.\n"


def test_a_dry_run_writes_nothing_and_reports(given):
    done = run(given, "in.json", "-o", "out.json", "--dry-run", "--json")
    assert done.returncode == 0
    (entry,) = json.loads(done.stdout)["entries"]
    assert (entry["id"], entry["now"], entry["kind"]) == ("4", "KSampler (Stepwise)", "same picture")
    assert [path.name for path in given.iterdir()] == ["in.json"]


def test_the_pack_may_have_any_name(given):
    shutil.copytree(CONVERT, given / "a pack of nodes" / "convert", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(given, "in.json", "--dry-run", command=(given / "a pack of nodes" / "convert",))
    assert (done.returncode, done.stderr) == (0, "")


def test_an_older_python_is_told_so(given):
    ast.parse((CONVERT / "__main__.py").read_text(), feature_version=(3, 6))
    script = f"import runpy, sys; sys.version_info = (3, 8, 1); runpy.run_path({str(CONVERT)!r})"
    done = run(given, "in.json", "-o", "out.json", command=("-c", script))
    assert (done.returncode, done.stderr) == (2, "convert: Python 3.11 or newer is needed, and this is 3.8.\n")


def test_it_is_a_module_of_the_pack_too(given):
    command = [sys.executable, "-m", "stepwise.convert", "in.json", "--dry-run"]
    done = subprocess.run(command, cwd=given, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


TEXT = json.dumps(PROMPT).encode()
CARRIED = {
    "tEXt": chunk(b"tEXt", b"prompt\0" + TEXT),
    "zTXt": chunk(b"zTXt", b"prompt\0\0" + zlib.compress(TEXT)),
    "iTXt": chunk(b"iTXt", b"prompt\0\0\0\0\0" + TEXT),
    "packed iTXt": chunk(b"iTXt", b"prompt\0\1\0en\0\0" + zlib.compress(TEXT)),
    "the workflow before the prompt": chunk(b"tEXt", b"prompt\0" + b"nothing")
    + chunk(
        b"tEXt",
        b'workflow\0{"nodes": [{"id": 4, "type": "KSampler", "widgets_values": [1, 20, 7, "euler", "karras", 1]}]}',
    ),
}


@pytest.mark.parametrize("name", CARRIED)
def test_a_picture_carries_a_workflow(tmp_path, name):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    file = b"\x89PNG\r\n\x1a\n" + header + CARRIED[name] + chunk(b"IEND", b"")
    (tmp_path / "in.png").write_bytes(file)
    done = run(tmp_path, "in.png", "-o", "out.json")
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads((tmp_path / "out.json").read_text())
    assert "StepwiseKSampler" in (made["4"]["class_type"] if "4" in made else made["nodes"][0]["type"])


def test_a_prompt_with_nan_is_read_as_comfyui_writes_it(given):
    prompt = {**PROMPT, "4": {**PROMPT["4"], "is_changed": [float("nan")]}}
    (given / "in.json").write_text(json.dumps(prompt))
    assert run(given, "in.json", "-o", "out.json").returncode == 0
    assert json.loads((given / "out.json").read_text())["4"]["is_changed"] == [None]


def test_a_number_beyond_floating_point_is_none_in_the_file(given):
    text = json.dumps({**PROMPT, "5": {"class_type": "a", "inputs": {"b": 0.5}}}).replace("0.5", "-1e400")
    (given / "in.json").write_text(text)
    assert run(given, "in.json", "-o", "out.json").returncode == 0
    assert json.loads((given / "out.json").read_text(), parse_constant=pytest.fail)["5"]["inputs"] == {"b": None}


def test_a_text_that_unpacks_to_too_much_is_refused(tmp_path):
    bomb = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b" " * (21 * 2**20)))
    (tmp_path / "in.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb)
    done = run(tmp_path, "in.png", "-o", "out.json")
    assert done.returncode == 2
    assert "has a text of more than 20 MiB" in done.stderr
