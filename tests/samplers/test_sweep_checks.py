"""What a sweep says before anything runs: of its workflow on each server, of its file, and of where it is to run."""

import http.server
import json
import threading

import pytest
import yaml
from stepwise.sweep.cells import Cells
from stepwise.sweep.command import main
from stepwise.sweep.file import read
from stepwise.sweep.host import CellFailed, Host, HostLost
from stepwise.sweep.store import OUTPUTS, Store
from stepwise.sweep.trust import check_addresses
from stepwise.sweep.values import BadSweep
from stub_comfyui import INFO, PROMPT, Stub

HOST, OTHER = "http://127.0.0.1:8188", "http://127.0.0.1:8189"
AXES = {"axes": {"seed": {"input": "1.seed", "values": [1]}}}


@pytest.fixture
def problems(tmp_path):
    """`problems(prompt, sweep, hosts)`: what is wrong with a sweep that is written as a file."""

    def problems(prompt=PROMPT, sweep=AXES, hosts=None):
        (tmp_path / "workflow.json").write_text(json.dumps(prompt))
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"workflow": "workflow.json", **sweep}, sort_keys=False))
        try:
            Cells(read(tmp_path / "sweep.yaml"), hosts or {HOST: INFO})
        except BadSweep as error:
            return list(error.problems)
        return []

    return problems


def changed(**inputs):
    """The stub's prompt with other inputs; None takes one away."""
    made = {**PROMPT["1"]["inputs"], **inputs}
    return {"1": {**PROMPT["1"], "inputs": {name: value for name, value in made.items() if value is not None}}}


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"cfg": 101}, "cfg of node 1 (Stub) is 101, which is above its maximum, 100.0."),
        ({"cfg": "1O"}, "cfg of node 1 (Stub) is '1O', which is no number."),
        ({"cfg": None}, "cfg of node 1 (Stub) is missing, and the node needs it."),
        ({"kind": "plian"}, "kind of node 1 (Stub) is 'plian', which is none of its choices: plain, other."),
        (
            {"model": ["9", 0]},
            "model of node 1 (Stub) is ['9', 0], which is wired to the node '9', which is not there.",
        ),
        (
            {"solver": "Heun", "solver.churn": 2},
            "solver.churn of node 1 (Stub) is 2, which is above its maximum, 1.0.",
        ),
    ],
)
def test_what_the_server_would_refuse_of_the_workflow_is_said_before(problems, inputs, told):
    assert problems(changed(**inputs)) == [f"workflow: {told}"]


def test_what_a_server_takes_is_not_refused(problems):
    """It makes numbers of texts and of fractions, ignores what no node has, and looks at no node beside the outputs."""
    assert problems(changed(cfg="7.5", unknown=1)) == []
    lone = {"2": {"class_type": "Lone", "inputs": {"cfg": 1000}}}
    info = {**INFO, "Lone": {"input": {"required": {"cfg": ["FLOAT", {"max": 1.0}], "model": ["MODEL", {}]}}}}
    assert problems({**PROMPT, **lone}, hosts={HOST: info}) == []
    info["Lone"]["output_node"] = True
    assert len(problems({**PROMPT, **lone}, hosts={HOST: info})) == 2


WIRED = {
    **{name: {"output": [name.upper()]} for name in ("Model", "Image", "Any", "Int")},
    "Both": {"output": ["IMAGE, MODEL"]},
    "Two": {"output": ["MODEL", "MODEL"]},
    "Saves": {"output": []},
    "Match": {"output": ["COMFY_MATCHTYPE_V3"]},
    "Choice": {"output": [["plain", "other"]]},
    "Star": {"output": ["*"]},
}


def wired(source, name="model", output=0, **stub):
    """A prompt with a wire from a node of this kind, and a server that has it."""
    prompt = {**changed(**{name: ["2", output]}), "2": {"class_type": source, "inputs": {}}}
    return {"prompt": prompt, "hosts": {HOST: {**INFO, **WIRED, "Stub": {**INFO["Stub"], **stub}}}}


@pytest.mark.parametrize(
    ("source", "name", "output", "told"),
    [
        ("Image", "model", 0, "of type IMAGE, and it takes MODEL"),
        ("Int", "cfg", 0, "of type INT, and it takes FLOAT"),
        ("Model", "model", 1, "whose only output is 0"),
        ("Two", "model", -1, "whose outputs are 0 to 1"),
        ("Saves", "model", 0, "which has none"),
    ],
)
def test_a_wire_that_does_not_fit_is_said_before(problems, source, name, output, told):
    said = f"is output {output} of node 2 ({source}), {told}"
    assert problems(**wired(source, name, output)) == [
        f"workflow: {name} of node 1 (Stub) is ['2', {output}], which {said}."
    ]
    axes = {"wire": {"input": f"1.{name}", "values": [["2", output]]}}
    given = wired(source, name, output)
    assert problems(PROMPT | {"2": given["prompt"]["2"]}, {"axes": axes}, given["hosts"]) == [
        f"axes.wire: ['2', {output}] for 1.{name} {said}."
    ]


def test_a_wire_that_fits_or_may_is_left(problems):
    """Of several types one is enough; what takes anything or is settled on the page fits; another pack looks itself."""
    for source in ("Model", "Both", "Match", "Star"):
        assert problems(**wired(source)) == [], source
    assert problems(**wired("Choice", "kind")) == []
    assert problems(**wired("Int", "seed")) == []
    assert problems(**wired("Image", python_module="custom_nodes.pack")) == []


def lists(names, **about):
    """A server whose Stub has a list of files, in a pack of others."""
    made = json.loads(json.dumps(INFO))
    made["Stub"]["input"]["required"]["kind"] = [names, about]
    return made


def test_a_file_that_one_server_lacks_is_named_with_the_server(problems):
    told = "workflow: kind of node 1 (Stub) is 'plain', which is none of its choices: other on " + OTHER + "."
    assert problems(hosts={HOST: INFO, OTHER: lists(["other"])}) == [told]


def test_what_a_pack_may_take_beside_its_lists_is_left_to_it(problems):
    of_others = lists(["other"])
    of_others["Stub"]["python_module"] = "custom_nodes.pack"
    assert problems(hosts={HOST: of_others}) == []
    assert problems(hosts={HOST: lists(["other"], image_upload=True)}) == []
    assert problems(hosts={HOST: lists([])}) == []
    assert problems(changed(kind="a.png [output]"), hosts={HOST: lists(["other"])}) == []


def test_two_axes_over_one_input_are_refused(problems):
    axes = {"seed": AXES["axes"]["seed"], "again": {"input": "Stub.seed", "values": [2]}}
    assert problems(sweep={"axes": axes}) == ["axes.again: sets 1.seed, which axes.seed sets too."]


def test_more_cells_than_anyone_runs_are_refused(problems):
    axes = {"seed": {"input": "1.seed", "seeds": "0..9999"}, "cfg": {"input": "1.cfg", "range": [0, 100, 0.01]}}
    assert problems(sweep={"axes": axes}) == ["that makes 100010000 cells, and a sweep has at most 10000000."]


def test_a_number_that_yaml_takes_for_a_text_has_its_cure_named(problems, tmp_path):
    (told,) = problems(sweep={"axes": {"cfg": {"input": "1.cfg", "values": ["1e-3"]}}})
    assert told.endswith("is not a number; YAML reads it as a text, and takes 1.0e-3 for a number.")
    assert yaml.safe_load("[1e-3, 1.0e-3]") == ["1e-3", 0.001]


def test_a_name_that_is_there_twice_in_the_file_is_said(tmp_path):
    (tmp_path / "sweep.yaml").write_text("axes:\n  a: {input: 1.seed, values: [1]}\n  a: {input: 1.cfg, values: [1]}\n")
    with pytest.raises(BadSweep, match="'a' is there twice"):
        read(tmp_path / "sweep.yaml")


NOISE = {
    "display_name": "Noise (Stepwise)",
    "input": {
        "required": {
            **{name: ["INT", {"default": 0}] for name in ("seed", "seed_step", "variation_seed")},
            "seeds": ["STRING", {"default": ""}],
        }
    },
}
SIZES = {"input": {"required": {"batch_size": ["INT", {"default": 1, "min": 1}]}}}
SPLIT = {"split": {"batch": "2.batch_size", "noise": "3", "by": 2}}


def batch(**noise):
    given = {"seed": 7, "seed_step": 1, "seeds": "", "variation_seed": 0, **noise}
    return {
        **PROMPT,
        "2": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 4}},
        "3": {"class_type": "StepwiseNoise", "inputs": given},
    }


@pytest.mark.parametrize(
    ("noise", "axes", "told"),
    [
        ({"seed": ["1", 0]}, {}, "split: 3.seed comes by a wire; write it into the node."),
        ({"seeds": "1, 2"}, {}, "split: 3 lists 2 seeds, and the batch has 4 pictures."),
        (
            {},
            {"size": {"input": "2.batch_size", "values": [2]}},
            "split: axes.size sets 2.batch_size, the number of pictures that is split.",
        ),
        (
            {},
            {"seeds": {"input": "3.seeds", "values": ["1 2 3 4", "5"]}},
            "split: 3 lists 1 seeds, and the batch has 4 pictures.",
        ),
    ],
)
def test_a_batch_that_cannot_be_split_says_why(problems, noise, axes, told):
    info = {**INFO, "StepwiseNoise": NOISE, "EmptyLatentImage": SIZES}
    assert problems(batch(**noise), {**SPLIT, "axes": axes}, {HOST: info}) == [told]


def test_seeds_of_a_split_batch_begin_again_after_the_largest(tmp_path):
    info = {**INFO, "StepwiseNoise": NOISE, "EmptyLatentImage": SIZES}
    (tmp_path / "workflow.json").write_text(json.dumps(batch(seed=2**64 - 1)))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"workflow": "workflow.json", **SPLIT}))
    cells = list(Cells(read(tmp_path / "sweep.yaml"), {HOST: info}))
    assert [cell.prompt["3"]["inputs"]["seed"] for cell in cells] == [2**64 - 1, 1]


@pytest.mark.parametrize("text", ["127.0.0.1:8188", "ftp://a", "http://", "http://a:99999", "http://a:x", "http://[::"])
def test_what_is_no_address_is_said(text):
    with pytest.raises(BadSweep, match="is no address"):
        check_addresses([text])


def test_one_server_by_two_names_is_refused():
    check_addresses([HOST, OTHER, "http://127.0.0.1:8188/behind", "http://no.such.name.invalid:8188"])
    with pytest.raises(BadSweep, match="are one server"):
        check_addresses([HOST, OTHER, "http://localhost:8188"])


class Page(http.server.BaseHTTPRequestHandler):
    """Another program on a port that was meant for ComfyUI."""

    def log_message(self, *_):
        """Nothing."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")


def test_a_port_where_something_else_answers_is_said():
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(HostLost, match="what answers there is no ComfyUI"):
            Host(f"http://127.0.0.1:{other.server_address[1]}").nodes()
        other.shutdown()


class Emptied(Page):
    def do_GET(self):
        self.send_error(404)


def test_a_picture_that_is_gone_fails_its_cell_and_not_the_server():
    with http.server.HTTPServer(("127.0.0.1", 0), Emptied) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(CellFailed, match=r"the output a\.png is not there any more"):
            Host(f"http://127.0.0.1:{other.server_address[1]}").file("a.png", "", "output")
        other.shutdown()


@pytest.mark.parametrize("suffix", ["/../../x", ".a/b", ".a\\b", ".a\0b", "." + 300 * "x", ".é", ""])
def test_a_files_name_says_nothing_of_where_it_is_kept(tmp_path, suffix):
    with Store(tmp_path / "results", write=True) as store:
        name = store.keep(b"content", suffix)
        folder, two, digest = name.split("/")
        assert (folder, two, len(digest)) == (OUTPUTS, digest[:2], 64)
        assert store.read(name) == b"content"


@pytest.mark.parametrize("content", [b"no database, but long enough to be read as one" * 30, b""])
def test_a_result_folder_that_is_none_is_said(tmp_path, capsys, content):
    (tmp_path / "sweep.db").write_bytes(content)
    assert main(["status", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_result_folder_that_cannot_be_made_is_said(tmp_path, capsys):
    (tmp_path / "workflow.json").write_text(json.dumps(PROMPT))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"workflow": "workflow.json", **AXES}))
    (tmp_path / "file").write_text("")
    with Stub() as stub:
        threading.Thread(target=stub.serve_forever, daemon=True).start()
        given = ["run", str(tmp_path / "sweep.yaml"), "--host", stub.url, "-o"]
        assert main([*given, str(tmp_path / "file")]) == 2
        assert main([*given, str(tmp_path / "file" / "results")]) == 2
        stub.shutdown()
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "tls:// needs certificates: name them with --tls-ca, --tls-cert and --tls-key."),
        ({"ca": "sweep.yaml"}, "tls:// needs certificates"),
        ({"ca": "ca.pem"}, "ca.pem, and there is no such file."),
        ({"ca": "sweep.yaml", "cert": "sweep.yaml"}, "--tls-ca, --tls-cert and --tls-key name are no certificates"),
        ({"cert": "sweep.yaml", "key": "no.key"}, "no.key, and there is no such file."),
    ],
)
def test_a_cluster_without_its_certificates_is_refused_before_anything_is_made(tmp_path, capsys, given, told):
    (tmp_path / "sweep.yaml").write_text("axes: {}\n")
    options = [part for name, file in given.items() for part in (f"--tls-{name}", str(tmp_path / file))]
    assert main(["run", str(tmp_path / "sweep.yaml"), "--scheduler", "tls://rack:8786", *options]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "workflow" not in said, "the file was read before"
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep.yaml"]
