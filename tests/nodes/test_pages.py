"""Every node has a help page, and what is generated is as committed."""

import asyncio
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
from comfy_api.latest import io
from stepwise.tools.generate import generated, pages
from stepwise.tools.generate.markdown import marked

import nodes as host_nodes

ROOT = Path(__file__).resolve().parents[2]
KSAMPLER = ROOT / "docs" / "ksampler.md"
LINK = re.compile(r"^(.+): (\S+) +-> +(.+): (\S+)$")


@pytest.fixture(scope="module")
def nodes():
    from stepwise.nodes import all_nodes

    return all_nodes()


@pytest.fixture(scope="module")
def made(nodes):
    return pages.files(nodes)


@pytest.fixture(scope="module")
def drawn(nodes):
    """The node classes that documents draw wires between, ours and the host's, by display name."""
    asyncio.run(host_nodes.init_builtin_extra_nodes())
    names = host_nodes.NODE_DISPLAY_NAME_MAPPINGS
    classes = {names.get(id) or id: (id, node) for id, node in host_nodes.NODE_CLASS_MAPPINGS.items()}
    classes |= {node.GET_SCHEMA().display_name: (node.GET_SCHEMA().node_id, node) for node in nodes}
    return {name: classes[name] for name in mentioned()}


@pytest.fixture(scope="module")
def sockets(drawn):
    """By display name: the types of a node's outputs, of its inputs, and the names of the inputs it needs."""
    return {name: node_sockets(node) for name, (_, node) in drawn.items()}


def documents():
    return [KSAMPLER, *sorted((ROOT / "web" / "docs").glob("*.md"))]


TAKES = re.compile(r"\*\*(.+)\*\* takes\n\n((?:- .+\n)+)")
TAKEN = re.compile(r"- `(\S+)` from (.+): `(\S+)`$")


def links(path):
    """The wires of a document, section by section or block by block: source node, output, target node, input."""
    if path != KSAMPLER:
        sections = [TAKES.findall(f"{part}\n") for part in path.read_text().split("\n## ")]
        assert "->" not in path.read_text()
        return [
            [
                (source, output, target, name)
                for target, lines in section
                for name, source, output in (TAKEN.match(line).groups() for line in lines.splitlines())
            ]
            for section in sections
            if section
        ]
    blocks = re.findall(r"^```text\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    wired = [[LINK.match(line) for line in block.splitlines()] for block in blocks if "->" in block]
    for block in wired:
        assert all(block), f"{path.name} has a line that is not a wire"
    return [[wire.groups() for wire in block] for block in wired]


def kind_of(name):
    """A node's display name, without what tells two of a kind apart."""
    return re.sub(r" \((first|second)\)$", "", name)


def mentioned():
    return {kind_of(name) for path in documents() for block in links(path) for wire in block for name in wire[::2]}


def node_sockets(node):
    if hasattr(node, "GET_NODE_INFO_V1"):
        info = node.GET_NODE_INFO_V1()
        outputs, labels, inputs = info["output"], info["output_name"], info["input"]
    else:
        outputs, inputs = node.RETURN_TYPES, node.INPUT_TYPES()
        labels = getattr(node, "RETURN_NAMES", outputs)
    kinds = {name: kind for group in ("required", "optional") for name, (kind, *_) in inputs.get(group, {}).items()}
    for name, (kind, *options) in inputs.get("required", {}).items():
        if kind == "COMFY_AUTOGROW_V3":
            template = options[0]["template"]
            ((inner, *_),) = template["input"]["required"].values()
            del kinds[name]
            kinds |= dict.fromkeys(template["names"], inner)
    widgets = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "CURVE", "COMFY_DYNAMICCOMBO_V3"}
    needed = {name for name in inputs.get("required", {}) if not isinstance(kinds.get(name, []), list)}
    needed = {name for name in needed if kinds[name] not in widgets}
    return dict(zip(labels, outputs, strict=True)), kinds, needed


def test_pages_and_the_readme_table_are_as_generated(made):
    assert [*generated.faults(made), *pages.orphans(made)] == [], "run: python -m tools.generate.pages"


def test_every_node_has_a_page_with_its_lists(nodes):
    for node in nodes:
        text = (ROOT / "web" / "docs" / f"{node.GET_SCHEMA().node_id}.md").read_text()
        for title in ("When to use it", "Inputs", "Outputs", "Wiring"):
            assert f"\n## {title}\n" in text, node
        names = [each.id for each in node.GET_SCHEMA().inputs]
        names += [each.display_name or each.io_type for each in node.GET_SCHEMA().outputs]
        assert [name for name in names if f"\n- **`{name}`** (" not in text] == [], node
        if getattr(node, "SOLVER", None) or getattr(node, "SCHEDULE", None):
            assert "arxiv.org/abs/" in text
            assert "\n## Method\n" in text


def test_every_input_says_what_it_is_for(nodes):
    silent = [
        f"{node.GET_SCHEMA().node_id}.{declared.id}"
        for node in nodes
        for declared in node.GET_SCHEMA().inputs
        if not declared.tooltip
    ]
    assert silent == []


def test_what_came_later_stands_last_and_may_be_missing(nodes):
    """Workflows saved before know widgets by position, and prompts saved before do not have it."""
    known = json.loads((ROOT / "tests" / "fixtures" / "v0_1_0" / "interface.json").read_text())
    for node in nodes:
        if node.GET_SCHEMA().node_id not in known:
            continue
        declared = node.GET_SCHEMA().inputs
        widgets = [each for each in declared if isinstance(each, io.WidgetInput)]
        first = [name for name in known[node.GET_SCHEMA().node_id]["inputs"] if name in {each.id for each in widgets}]
        assert [each.id for each in widgets][: len(first)] == first, node
        assert all(each.optional for each in widgets[len(first) :]), node


def test_every_input_and_output_says_what_it_is(made):
    lines = [
        (path.name, line) for path, text in made.items() for line in re.findall(r"^- \*\*`[^`]+`\*\* .*", text, re.M)
    ]
    assert lines
    assert [each for each in lines if not re.search(r"\) .{5,}$", each[1])] == []


def test_no_name_is_longer_than_a_line_of_the_panel(made):
    """What stands in code breaks at its spaces only; 26 letters of it fill a line of a list, 31 one of a paragraph."""
    long = [
        (path.name, word)
        for path, text in made.items()
        if path.parent.name == "docs" and path.parent.parent.name == "web"
        for line in text.splitlines()
        for code in re.findall(r"`([^`]+)`", line)
        for word in code.split()
        if len(word) > (26 if line.startswith("- ") else 31)
    ]
    assert long == []


def test_stop_and_go_on_stands_near_the_top(nodes):
    """Of every node that takes steps: after what the node is for, before its inputs."""
    found = 0
    for node in nodes:
        schema = node.GET_SCHEMA()
        if {"end_step", "state"} <= {each.id for each in schema.inputs}:
            text = (ROOT / "web" / "docs" / f"{schema.node_id}.md").read_text()
            assert text.index("## When to use it") < text.index("## Stop and go on") < text.index("## Inputs"), node
            found += 1
    assert found > 17


def test_every_page_of_a_solver_shows_its_claims(nodes):
    for node in nodes:
        if solver := getattr(node, "SOLVER", None):
            text = (ROOT / "web" / "docs" / f"{node.GET_SCHEMA().node_id}.md").read_text()
            claims = text.split("## Accuracy and cost")[1].split("## Method")[0]
            assert claims.count("\n- ") == len(solver.settings)


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_wires_join_sockets_that_exist_and_fit(path, sockets):
    assert links(path), "no example of wiring"
    for block in links(path):
        for source, output, target, name in block:
            outputs, kinds = sockets[kind_of(source)][0], sockets[kind_of(target)][1]
            assert outputs[output] == kinds[name], f"{source}: {output} -> {target}: {name}"


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_wires_reach_every_socket_that_is_needed(path, sockets):
    """Of every node that takes something in and gives something on; a step node also needs a beginning."""
    for block in links(path):
        for node in {source for source, *_ in block} & {target for _, _, target, _ in block}:
            _, kinds, needed = sockets[kind_of(node)]
            reached = {name for *_, target, name in block if target == node}
            unwired = {"noise", "latent_image", "sigmas"} & set(kinds)
            beginning = unwired if "state" in set(kinds) - reached else set()
            assert reached >= needed | beginning, node


def test_the_page_for_users_of_ksampler_draws_the_template_that_it_names(drawn):
    (title,) = re.findall(r"The template \*(.+)\*:", KSAMPLER.read_text())
    template = json.loads((ROOT / "example_workflows" / f"{title}.json").read_text())
    by_id = {node["id"]: node for node in template["nodes"]}

    def wire(source, output, target, slot):
        source, target = by_id[source], by_id[target]
        return source["type"], source["outputs"][output]["name"], target["type"], target["inputs"][slot]["name"]

    *_, block = links(KSAMPLER)
    ours = [(drawn[source][0], output, drawn[target][0], name) for source, output, target, name in block]
    assert sorted(ours) == sorted(wire(*link[1:5]) for link in template["links"])


def cells_of(table):
    """The rows of a Markdown table, without its head."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


def test_settings_by_model_are_those_of_the_templates():
    """ComfyUI brings the templates with it: sampler, scheduler, steps, cfg, shift and size are read there."""
    templates = files("comfyui_workflow_templates_json") / "templates"
    page = KSAMPLER.read_text(encoding="utf-8")
    samplers, schedulers = (cells_of(marked(name).search(page)[0]) for name in ("samplers", "schedulers"))
    settings = cells_of(page.partition("a test reads it there.\n\n")[2].partition("\n\n")[0])
    assert len(settings) == 6
    for model, template, solver, schedule, steps, cfg, beside in settings:
        graph = json.loads((templates / f"{template.strip('`')}.json").read_text(encoding="utf-8"))
        nodes = [*graph["nodes"], *(n for d in graph.get("definitions", {}).get("subgraphs", []) for n in d["nodes"])]
        values = {node["type"]: node.get("widgets_values") for node in nodes}
        if "KSamplerAdvanced" in values:
            _, _, _, *there = next(n["widgets_values"] for n in nodes if n["type"] == "KSamplerAdvanced")
        else:
            _, _, *there = values["KSampler"]
        assert [float(steps), float(cfg)] == pytest.approx(there[:2]), model
        assert [there[2], f"**{solver}**"] in [[row[0].strip("`"), row[1]] for row in samplers], model
        assert [there[3], f"**{schedule.split(',')[0]}**"] in [[row[0].strip("`"), row[1]] for row in schedulers], model
        if "shift" in beside:
            assert f"shift {values['ModelSamplingSD3'][0]:g} " in beside, model
        for kind in ("EmptyLatentImage", "EmptySD3LatentImage"):
            if kind in values:
                assert "of {} x {}".format(*values[kind][:2]) in beside, model
