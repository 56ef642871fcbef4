"""Workflows converted, without ComfyUI: the templates of the pinned packages, and small graphs for each rule."""

import copy
import json
from collections import Counter
from time import process_time

import pytest
from stepwise.convert import BadWorkflow, converted
from stepwise.convert.editor import EditorGraph, Numbers
from stepwise.convert.graph import Wire
from stepwise.convert.layout import box, meet, placed_beside
from stepwise.convert.table import defaults, inputs_of, known, outputs_of
from workflows import faults, graphs_of, overlaps, templates

TEMPLATES = templates()
SAMPLING = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")


@pytest.fixture(scope="module")
def conversions():
    return {name: (graph, *converted(graph)) for name, graph in TEMPLATES}


def test_the_templates_are_of_the_classes_that_are_promised(conversions, note):
    """Same picture at least 80 % of the nodes that sample, with same law at least 93 %."""
    counts, nodes = Counter(), 0
    for graph, _, report in conversions.values():
        counts += report.classes
        nodes += sum(each["type"] in SAMPLING for part in graphs_of(graph).values() for each in part["nodes"])
    note(f"{len(conversions)} templates, {nodes} nodes that sample: {dict(counts)}")
    assert len(conversions) >= 400
    assert counts.total() == nodes
    assert counts["same picture"] >= 0.80 * nodes
    assert counts["same picture"] + counts["same law"] >= 0.93 * nodes


def test_what_is_converted_fits_together_and_what_is_given_stays(conversions):
    for name, graph in TEMPLATES:
        before, made, _ = conversions[name]
        assert before == graph
        assert faults(made) <= faults(graph), name


def test_nodes_keep_their_ids_places_colours_and_titles_of_their_own(conversions):
    for name, (graph, made, report) in conversions.items():
        dropped = {(each.where, each.id) for each in report.entries if each.kind == "taken into the step node"}
        for part, inner in graphs_of(graph).items():
            now = {str(each["id"]): each for each in graphs_of(made)[part]["nodes"]}
            for node in inner["nodes"]:
                number = str(node["id"])
                assert (number in now) != ((part, number) in dropped), name
                if number not in now:
                    continue
                for field in ("mode", "color", "bgcolor", "flags", "order"):
                    assert now[number].get(field) == node.get(field), (name, number, field)
                if node.get("title") not in (None, node["type"]) and not known(node["type"]):
                    assert now[number].get("title") == node["title"]
                x, y = now[number]["pos"] if isinstance(now[number]["pos"], list) else now[number]["pos"].values()
                old = list(node["pos"].values()) if isinstance(node["pos"], dict) else node["pos"]
                assert x == old[0]
                assert y >= old[1], (name, number)
            assert [g["title"] for g in inner.get("groups") or []] == [
                g["title"] for g in graphs_of(made)[part].get("groups") or []
            ]


def test_nodes_that_did_not_lie_over_each_other_do_not_now(conversions, note):
    pairs = 0
    for name, (graph, made, _) in conversions.items():
        assert overlaps(made) <= overlaps(graph), name
        pairs += len(overlaps(graph))
    note(f"pairs of nodes that lie over each other in the templates: {pairs}")


def test_converting_what_is_converted_changes_nothing(conversions):
    for name, (_, made, _) in conversions.items():
        assert converted(made)[0] == made, name


# What a conversion makes or takes away: told where it is used.
INLINE = ("KSamplerSelect", "SamplerEulerAncestral", "RandomNoise", "StepwiseNoise", "CFGGuider", "StepwiseCFGGuider")


def meaning(data):
    """What each node of a workflow does: kind, values, and where its wires come from, by node where that was there from
    the first, by what it does where it was made on the way."""
    found = {}
    for part, inner in graphs_of(copy.deepcopy(data)).items():
        graph = EditorGraph(inner, part, Numbers(inner))

        def value(graph, item):
            if not isinstance(item, Wire) or item.node not in graph.nodes:
                return repr(item) if not isinstance(item, Wire) else (item.node, item.slot)
            origin = graph.nodes[item.node]
            own = origin.kind in INLINE
            return (told(graph, origin) if own else item.node, item.slot)

        def told(graph, node):
            typed = {name: each for name, each in node.inputs.items() if not isinstance(each, Wire)}
            every = {**(defaults(node.kind, typed) if known(node.kind) else {}), **node.inputs}
            return (node.kind, node.active, tuple(sorted((name, value(graph, each)) for name, each in every.items())))

        for number, node in graph.nodes.items():
            if node.kind not in INLINE:
                found[part, number] = told(graph, node)
    return found


def test_there_and_back_is_a_fixed_point(conversions):
    """What comes back, converted again, does the same; and so does what comes back of that."""
    for name, (_, made, report) in conversions.items():
        if not report.changed:
            continue
        back, _ = converted(made, back=True)
        again, _ = converted(back)
        assert faults(back) <= faults(made), name
        assert meaning(again) == meaning(made), name
        assert meaning(converted(again, back=True)[0]) == meaning(back), name


def test_what_comes_back_is_what_was_there(conversions, note):
    """A KSampler comes back as it was, to the last value, the parts of a run that was joined too."""
    same = 0
    for name, (graph, made, _) in conversions.items():
        back, _ = converted(made, back=True)
        was, now = meaning(graph), meaning(back)
        for place, node in was.items():
            if node[0] in ("KSampler", "KSamplerAdvanced"):
                if now[place][0] != node[0]:
                    # A whole run by KSampler (Advanced) is KSampler's.
                    assert (node[0], now[place][0]) == ("KSamplerAdvanced", "KSampler"), (name, place)
                    continue
                assert now[place] == node, (name, place)
                same += 1
    note(f"KSampler and KSampler (Advanced) that came back as they were: {same}")
    assert same > 150


# Rules, on graphs of a few nodes in the API's form.


def prompt(kind, **inputs):
    wires = {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0]}
    usual = {"KSampler": {"seed": 5, "denoise": 1.0}, "KSamplerAdvanced": {"noise_seed": 5, "start_at_step": 0}}[kind]
    if kind == "KSamplerAdvanced":
        usual |= {"end_at_step": 10000, "add_noise": "enable", "return_with_leftover_noise": "disable"}
    common = {"steps": 20, "cfg": 4.0, "sampler_name": "euler", "scheduler": "karras"}
    return {
        "1": {"class_type": "UNETLoader", "inputs": {}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {}},
        "4": {"class_type": kind, "inputs": {**wires, **common, **usual, **inputs}, "_meta": {"title": kind}},
    }


def only(made):
    return made["4"]["class_type"], made["4"]["inputs"]


def test_ksampler_keeps_its_inputs_and_gets_the_settings_of_the_row():
    kind, inputs = only(converted(prompt("KSampler", sampler_name="dpmpp_2m"))[0])
    assert kind == "StepwiseKSampler"
    kept = {"seed": 5, "steps": 20, "cfg": 4.0, "denoise": 1.0, "model": ["1", 0], "latent_image": ["3", 0]}
    assert kept.items() <= inputs.items()
    chosen = {"solver": "DPM++ 2M", "solver.time": "log_sigma", "schedule": "Karras", "schedule.rho": 7.0}
    assert chosen.items() <= inputs.items()


@pytest.mark.parametrize(
    ("sampler", "scheduler", "expected"),
    [
        ("euler", "normal", {"schedule": "By Name", "schedule.scheduler": "normal", "schedule.for_sampler": "other"}),
        ("euler", "beta57", {"schedule": "By Name", "schedule.scheduler": "beta57", "schedule.for_sampler": "other"}),
        ("uni_pc", "karras", {"schedule": "By Name", "schedule.scheduler": "karras", "schedule.for_sampler": "uni_pc"}),
        ("euler", "simple", {"schedule": "Timestep", "schedule.spacing": "simple"}),
    ],
)
def test_a_schedule_is_by_name_where_no_row_holds_on_every_family(sampler, scheduler, expected):
    _, inputs = only(converted(prompt("KSampler", sampler_name=sampler, scheduler=scheduler))[0])
    assert expected.items() <= inputs.items()


def test_the_parts_of_ksampler_advanced_have_their_place():
    window = {"start_at_step": 3, "end_at_step": 9, "add_noise": "disable", "return_with_leftover_noise": "enable"}
    _, inputs = only(converted(prompt("KSamplerAdvanced", **window))[0])
    expected = {
        "start_step": 3,
        "end_step": 9,
        "add_noise": "disable",
        "return_with_leftover_noise": "enable",
        "seed": 5,
    }
    assert expected.items() <= inputs.items()


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("KSampler", {"sampler_name": "heunpp2"}, "heunpp2: no solver of Stepwise takes its steps."),
        ("KSampler", {"sampler_name": "ddpm"}, "ddpm: it has a twin on some families"),
        ("KSampler", {"sampler_name": "of_a_pack"}, "the sampler 'of_a_pack' is of another pack"),
        ("KSampler", {"scheduler": "of_a_pack"}, "the scheduler 'of_a_pack' is of another pack"),
        ("KSampler", {"sampler_name": ["9", 0]}, "its sampler_name is chosen on the subgraph's face, or known only"),
        ("KSampler", {"denoise": 0.0}, "denoise is 0: it takes no step"),
        ("KSampler", {"sampler_name": None}, "its sampler_name is missing"),
        ("KSampler", {"scheduler": None}, "its scheduler is missing"),
        ("KSampler", {"scheduler": ["karras"]}, "the scheduler ['karras'] is of another pack"),
        ("KSampler", {"cfg": 200.0}, "cfg: 200 is out of its range"),
        ("KSampler", {"steps": 10**400}, "steps: it is out of its range"),
        ("KSampler", {"steps": "9", "denoise": 0.5}, "steps: '9' is no number"),
        ("KSamplerAdvanced", {"start_at_step": []}, "start_at_step: [] is no number"),
        ("KSampler", {"sampler_name": "uni_pc", "steps": 1}, "uni_pc of one step is not that of ComfyUI"),
        ("KSamplerAdvanced", {"start_at_step": 20}, "it takes no step: start_at_step is 20"),
        ("KSamplerAdvanced", {"end_at_step": 0}, "it takes no step: start_at_step is 0, and the run ends at step 0"),
        (
            "KSamplerAdvanced",
            {"sampler_name": "uni_pc", "end_at_step": 9, "return_with_leftover_noise": "enable"},
            "uni_pc is not that of ComfyUI where the run stops above noise level 0",
        ),
    ],
)
def test_what_cannot_be_the_same_is_left_and_says_why(kind, changes, why):
    given = prompt(kind, **changes)
    made, report = converted(given)
    assert made == given
    (entry,) = report.left
    assert entry.why.startswith(why)
    assert entry.line() in report.text()


def test_a_name_from_a_primitive_is_resolved():
    given = prompt("KSampler", sampler_name=["9", 0])
    given["9"] = {"class_type": "PrimitiveString", "inputs": {"value": "heun"}}
    made, report = converted(given)
    assert made["4"]["inputs"]["solver"] == "Heun"
    assert not report.left


def test_denoise_takes_the_tail_that_comfyui_takes():
    """int(steps / denoise) is of floating point there; where it is not what it is on paper, By Name."""
    found = set()
    for steps in range(1, 40, 3):
        for percent in range(1, 100):
            denoise = percent / 100
            _, inputs = only(converted(prompt("KSampler", steps=steps, denoise=denoise))[0])
            exact = steps * 100 // percent
            assert (inputs["schedule"] == "Karras") == (int(steps / denoise) == exact), (steps, denoise)
            found.add(inputs["schedule"])
    assert found == {"Karras", "By Name"}


def pair(sampler, latent="EmptyLatentImage", shift=5.0):
    first = prompt("KSamplerAdvanced", sampler_name=sampler, end_at_step=10, return_with_leftover_noise="enable")
    second = prompt("KSamplerAdvanced", sampler_name=sampler, start_at_step=10, add_noise="disable")["4"]
    second["inputs"] |= {"latent_image": ["4", 0], "model": ["7", 0]}
    first["4"]["inputs"]["model"] = ["6", 0]
    first["3"]["class_type"] = latent
    shifts = {"6": {"shift": 5.0, "model": ["1", 0]}, "7": {"shift": shift, "model": ["1", 0]}}
    made = {number: {"class_type": "ModelSamplingSD3", "inputs": inputs} for number, inputs in shifts.items()}
    return {**first, "5": second, **made}


def test_two_of_euler_are_joined_by_a_state_and_two_of_others_when_asked():
    made, report = converted(pair("euler"))
    assert made["5"]["inputs"]["state"] == ["4", 2]
    assert "latent_image" not in made["5"]["inputs"]
    assert "Goes on from the state of node 4." in report.text()
    made, report = converted(pair("dpmpp_2m"))
    assert made["5"]["inputs"]["latent_image"] == ["4", 0]
    made, report = converted(pair("dpmpp_2m"), join=True)
    assert made["5"]["inputs"]["state"] == ["4", 2]
    assert "the picture is another one" in report.text()


def test_two_that_were_joined_come_back_as_two_where_that_is_the_same_picture():
    """There and back is a fixed point. Two of DPM++ 2M in one run are what no two nodes of ComfyUI do: they stay."""
    for sampler in ("euler", "ddim"):
        made, _ = converted(pair(sampler))
        back, report = converted(made, back=True)
        assert not report.left, report.text()
        was = pair(sampler)
        assert {number: (each["class_type"], each["inputs"]) for number, each in back.items()} == {
            number: (each["class_type"], each["inputs"]) for number, each in was.items()
        }
        assert converted(back)[0] == made
    made, _ = converted(pair("dpmpp_2m"), join=True)
    back, report = converted(made, back=True)
    assert (back["4"], back["5"]) == (made["4"], made["5"])
    assert [each.why for each in report.left] == [
        "its state is used, which the node of ComfyUI has not",
        "it goes on from a state, which no node of ComfyUI does",
    ]


@pytest.mark.parametrize("given", [pair("euler", shift=3.0), pair("euler", latent="SetLatentNoiseMask")])
def test_two_of_euler_stay_two_where_noise_levels_or_a_mask_may_differ(given):
    made, _ = converted(given)
    assert made["5"]["inputs"]["latent_image"] == ["4", 0]
    assert made["5"]["inputs"]["add_noise"] == "disable"


def custom(**others):
    given = {
        "1": {
            "class_type": "CFGGuider",
            "inputs": {"model": ["9", 0], "positive": ["8", 0], "negative": ["8", 0], "cfg": 2.0},
        },
        "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 3}},
        "3": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "res_multistep"}},
        "4": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "guider": ["1", 0],
                "noise": ["2", 0],
                "sampler": ["3", 0],
                "sigmas": ["5", 0],
                "latent_image": ["6", 0],
            },
        },
        "5": {
            "class_type": "BasicScheduler",
            "inputs": {"model": ["9", 0], "scheduler": "simple", "steps": 8, "denoise": 1.0},
        },
        "6": {"class_type": "EmptyLatentImage", "inputs": {}},
        "7": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 1]}},
    }
    return given | others


def test_sampler_custom_advanced_becomes_the_step_node_of_its_solver():
    made, report = converted(custom())
    assert {number: node["class_type"] for number, node in made.items()} == {
        "1": "StepwiseCFGGuider",
        "2": "RandomNoise",
        "4": "StepwiseRESMultistep",
        "5": "StepwiseNamedSchedule",
        "6": "EmptyLatentImage",
        "7": "VAEDecode",
    }
    assert made["4"]["inputs"]["time"] == "log_sigma"
    assert made["7"]["inputs"]["samples"] == ["4", 1]
    assert not report.left


def test_what_a_node_that_is_left_has_is_left_too():
    maker = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "heunpp2"}}
    given = custom(**{"3": maker})
    made, report = converted(given)
    assert made == given
    assert len(report.left) == 1


def test_a_sampler_that_two_use_stays_for_the_one_that_is_left():
    other = copy.deepcopy(custom()["4"])
    other["inputs"] |= {"guider": ["99", 0]}
    given = custom(**{"10": other, "3": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler_cfg_pp"}}})
    made, _ = converted(given)
    assert made["3"] == given["3"]
    assert (made["4"]["class_type"], made["10"]) == ("StepwiseEuler", given["10"])


def detailer(**inputs):
    """A node of another pack that runs a SAMPLER in its own way."""
    return {"class_type": "DetailerOfAnotherPack", "inputs": {"sampler": ["3", 0], **inputs}}


def maker(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def test_the_sampler_of_a_node_of_another_pack_becomes_ours():
    """Everything else that the foreign node has stays, and it is given back as it was."""
    given = custom(**{"4": detailer(guider=["1", 0], sigmas=["5", 0])})
    made, report = converted(given)
    assert made["3"]["class_type"] == "StepwiseRESMultistepSampler"
    assert made["3"]["inputs"]["time"] == "log_sigma"
    assert {number: node for number, node in made.items() if number != "3"} == {
        number: node for number, node in given.items() if number != "3"
    }
    assert [(each.id, each.sampling, each.kind) for each in report.entries] == [("3", False, "same picture")]
    assert converted(made)[0] == made
    assert converted(made, back=True)[0] == given


def test_a_sampler_that_a_step_node_and_another_node_have_is_taken_and_stays_as_ours():
    given = custom(**{"10": detailer()})
    made, report = converted(given)
    assert (made["4"]["class_type"], made["3"]["class_type"]) == ("StepwiseRESMultistep", "StepwiseRESMultistepSampler")
    assert not report.left
    assert converted(made)[0] == made


def test_the_sampler_of_a_node_that_is_left_for_another_reason_becomes_ours():
    """Whether it adds noise is known only in a run. Once that is typed, it is a step node as from ComfyUI's SAMPLER."""
    inputs = {name: ["8", 0] for name in ("model", "positive", "negative")}
    inputs |= {"add_noise": ["11", 0], "noise_seed": 3, "cfg": 2.0, "latent_image": ["6", 0]}
    kept = {number: node for number, node in custom().items() if number in ("3", "5", "6")}
    given = kept | {"4": maker("SamplerCustom", **inputs, sampler=["3", 0], sigmas=["5", 0])}
    made, report = converted(given)
    assert (made["4"], made["3"]["class_type"]) == (given["4"], "StepwiseRESMultistepSampler")
    assert [each.id for each in report.left] == ["4"]
    assert converted(made)[0] == made
    for graph in (made, given):
        graph["4"]["inputs"]["add_noise"] = True
    assert converted(made)[0]["4"] == converted(given)[0]["4"]


def test_a_sampler_alone_is_converted_when_asked_for_and_the_rest_afterwards():
    alone, _ = converted(custom(), only=[("", "3")])
    assert (alone["3"]["class_type"], alone["4"]) == ("StepwiseRESMultistepSampler", custom()["4"])
    assert converted(alone)[0] == converted(custom())[0]


def test_a_sampler_behind_a_reroute_becomes_ours():
    given = custom(**{"4": detailer(sampler=["12", 0]), "12": maker("Reroute", value=["3", 0])})
    made, _ = converted(given)
    assert made["3"]["class_type"] == "StepwiseRESMultistepSampler"


ANOTHER = "DetailerOfAnotherPack"


@pytest.mark.parametrize(
    ("made_by", "why"),
    [
        (maker("KSamplerSelect", sampler_name="uni_pc"), "uni_pc is that of ComfyUI on schedules of two steps or more"),
        (maker("KSamplerSelect", sampler_name="euler_cfg_pp"), "euler_cfg_pp needs a guider of two prompts"),
        (maker("KSamplerSelect", sampler_name="lms"), "lms amplifies rounding on linear_quadratic"),
        (maker("KSamplerSelect", sampler_name="heunpp2"), "heunpp2: no solver of Stepwise takes its steps"),
        (maker("KSamplerSelect", sampler_name=["99", 0]), "the sampler_name of KSamplerSelect is chosen"),
        (
            maker(
                "SamplerSASolver",
                model=["9", 0],
                eta=1.0,
                s_noise=1.0,
                predictor_order=3,
                corrector_order=4,
                use_pece=False,
                simple_order_2=False,
                sde_start_percent=0.2,
                sde_end_percent=0.8,
            ),
            "its noise is added at levels of its own MODEL",
        ),
    ],
)
def test_the_sampler_of_another_pack_stays_where_it_cannot_be_the_same(made_by, why):
    given = custom(**{"3": made_by, "4": detailer()})
    made, report = converted(given)
    assert made == given
    (entry,) = report.left
    assert entry.why.startswith(why)
    if "another" in entry.why or "not known" in entry.why:
        assert ANOTHER in entry.why


def sa_solver(**changes):
    inputs = {"eta": 0.5, "s_noise": 0.9, "predictor_order": 2, "corrector_order": 3, "use_pece": True}
    inputs |= {"simple_order_2": False, "sde_start_percent": 0.2, "sde_end_percent": 0.8, "model": ["9", 0]}
    return maker("SamplerSASolver", **{**inputs, **changes})


def test_sa_solver_with_settings_becomes_the_step_node_and_comes_back():
    given = custom(**{"3": sa_solver()})
    made, report = converted(given)
    step = made["4"]["inputs"]
    assert made["4"]["class_type"] == "StepwiseSASolver"
    settings = {"tau": 0.5, "s_noise": 0.9, "predictor_order": 2, "corrector_order": 3, "pece": True}
    settings |= {"interval": "core", "first_level": "core"}
    assert {name: step[name] for name in settings} == settings
    assert not report.left
    back, report = converted(made, back=True)
    (number,) = (number for number, node in back.items() if node["class_type"] == "SamplerSASolver")
    assert back[number]["inputs"] == given["3"]["inputs"]
    assert not report.left


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": ["7", 1]}, "SamplerSASolver may have another MODEL than the run"),
        ({"sde_end_percent": 0.7}, "sde_end_percent of SamplerSASolver is not 0.8"),
        ({"simple_order_2": True}, "simple_order_2 of SamplerSASolver is not False"),
    ],
)
def test_sa_solver_stays_where_ours_is_another(changes, why):
    given = custom(**{"3": sa_solver(**changes)})
    made, report = converted(given)
    assert made == given
    assert [each.why for each in report.left if each.why.startswith(why)]


def test_sampler_custom_becomes_a_guider_a_noise_and_a_step_node():
    inputs = {
        "model": ["9", 0],
        "positive": ["8", 0],
        "negative": ["8", 0],
        "cfg": 2.0,
        "add_noise": True,
        "noise_seed": 3,
    }
    inputs |= {"sampler": ["3", 0], "sigmas": ["5", 0], "latent_image": ["6", 0]}
    given = {number: node for number, node in custom().items() if number not in ("1", "2")}
    made, _ = converted(given | {"4": {"class_type": "SamplerCustom", "inputs": inputs}})
    step = made["4"]["inputs"]
    guider, noise = made[step["guider"][0]], made[step["noise"][0]]
    assert guider["class_type"] == "StepwiseCFGGuider"
    assert guider["inputs"] == {"model": ["9", 0], "positive": ["8", 0], "negative": ["8", 0], "cfg": 2.0}
    assert noise == {"class_type": "RandomNoise", "inputs": {"noise_seed": 3}, "_meta": {"title": "RandomNoise"}}


@pytest.mark.parametrize(
    "given",
    [
        {"nodes": [{}]},
        {"nodes": [{"id": 1, "type": 4}]},
        {"nodes": [{"id": 1, "type": "a"}, {"id": 1, "type": "b"}]},
        {"nodes": [{"id": 1, "type": "a", "inputs": [3]}]},
        {"nodes": [], "links": [7]},
        {"nodes": [], "links": True},
        {"nodes": [], "definitions": {"subgraphs": [{"nodes": []}]}},
        {"nodes": [], "definitions": {"subgraphs": ["A"]}},
        {"a": {"class_type": "KSampler", "inputs": []}},
        {"a": 3},
        {},
    ],
    ids=json.dumps,
)
def test_what_is_no_workflow_is_refused(given):
    with pytest.raises(BadWorkflow, match=r"\.$") as told:
        converted(given)
    assert "Error" not in str(told.value)


def of_subgraphs(**inner):
    """A workflow with subgraphs, each of these nodes: a type, a number."""
    subgraphs = [{"id": name, "name": f"of {name}", "nodes": nodes, "links": []} for name, nodes in inner.items()]
    return {"nodes": [{"id": 1, "type": next(iter(inner))}], "links": [], "definitions": {"subgraphs": subgraphs}}


@pytest.mark.parametrize(
    ("inner", "named"),
    [
        ({"A": [{"id": 2, "type": "A"}]}, "A"),
        ({"A": [{"id": 2, "type": "B"}], "B": [{"id": 2, "type": "C"}], "C": [{"id": 2, "type": "B"}]}, "[BC]"),
        ({"A": [{"id": 2, "type": "A"}, {"id": 3, "type": "B"}], "B": []}, "A"),
    ],
)
def test_a_subgraph_inside_itself_is_refused(inner, named):
    with pytest.raises(BadWorkflow, match=f"^The subgraph 'of {named}' is inside itself.$"):
        converted(of_subgraphs(**inner))


def test_the_same_subgraph_in_two_others_is_converted_once_and_called_by_its_name():
    node = {"id": 4, "type": "KSampler", "widgets_values": [1, "fixed", 20, 7.0, "euler", "karras", 1.0]}
    inner = {"A": [{"id": 2, "type": "B"}, {"id": 3, "type": "C"}], "B": [{"id": 2, "type": "C"}], "C": [node]}
    made, report = converted(of_subgraphs(**inner))
    assert made["definitions"]["subgraphs"][2]["nodes"][0]["type"] == "StepwiseKSampler"
    assert "4 in of C  KSampler -> KSampler (Stepwise)" in report.text()
    assert [(each["where"], each["place"]) for each in report.data()["entries"]] == [("C", "of C")]


@pytest.mark.parametrize("value", [None, 3, "x", [3], {"stepwise_widgets": [3, {}, [], None, 1.5, True, "a", 2]}])
def test_what_a_node_says_of_its_widgets_may_be_anything(value):
    node = {"id": 1, "type": "StepwiseKSampler", "properties": value, "widgets_values": [1, 2, 3, 4, 5, 6, 7, 8]}
    core = {"id": 2, "type": "KSampler", "properties": value}
    values = {"sampler_name": "euler", "scheduler": "karras"}
    _, report = converted({"nodes": [node, {**core, "widgets_values": values}], "links": []})
    assert [each.id for each in report.changed] == ["2"]
    converted({"nodes": [node], "links": []}, back=True)


def test_the_report_calls_our_nodes_by_their_titles_and_counts_what_samples():
    maker = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "heun"}}
    given = {"1": maker, "2": {"class_type": "OfAnotherPack", "inputs": {"sampler": ["1", 0]}}}
    made, report = converted(given)
    assert report.text() == "1 of 1 nodes converted.\n1  KSamplerSelect -> Heun Sampler"
    back, report = converted(made, back=True)
    assert report.text() == "1 of 1 nodes converted.\n1  Heun Sampler -> KSamplerSelect"
    assert back == given


@pytest.mark.parametrize("name", ["groups", "last_node_id", "extra"])
@pytest.mark.parametrize("value", [None, 3, "x", [3, None], {"bounding": 1}, [{"bounding": "x"}], [{}]])
def test_what_the_conversion_does_not_need_may_be_anything(name, value):
    nodes = [{"id": i, "type": "SamplerCustom"} for i in (1, 2)]
    nodes += [{"id": i, "type": "KSampler", "widgets_values": [1, 20, 7.0, "euler", "karras", 1.0]} for i in (3, 4)]
    _, report = converted({"nodes": nodes, "links": [], name: value})
    assert len(report.changed) == 2


def test_many_nodes_in_one_place_take_seconds():
    """Each of them could move each other one."""
    values = [1, "fixed", 20, 7.0, "euler", "karras", 1.0]
    nodes = [
        {"id": i, "type": "KSampler", "pos": [0, 9 * i], "size": [300, 200], "widgets_values": values}
        for i in range(900)
    ]
    start = process_time()
    made, report = converted({"nodes": nodes, "links": [], "groups": []})
    assert len(report.changed) == len(nodes)
    tops = [each["pos"][1] for each in made["nodes"]]
    assert tops == sorted(tops)
    assert process_time() - start < 20


def test_a_new_node_finds_room_among_many():
    """Where all around is taken, to the right of all."""
    nodes = [
        {"id": 1 + i, "type": "Note", "pos": [200 * (i % 30), 200 * (i // 30)], "size": [195, 165]} for i in range(900)
    ]
    place = placed_beside(nodes[465], {"size": [210, 100]}, nodes)
    assert not any(meet(box({"pos": place, "size": [210, 100]}), box(each)) for each in nodes)


def test_the_table_agrees_with_itself():
    """Every row names inputs that the nodes have, and values that they take."""
    for row in [each for each in json_table()["samplers"].values() if "id" in each]:
        declared = {each.name: each for each in inputs_of(f"Stepwise{row['id']}")}
        assert {declared[name].refusal(value) for name, value in row["params"].items()} <= {""}
        chosen = {each.name for each in inputs_of("StepwiseKSampler", {"solver": row["name"]})}
        assert {f"solver.{name}" for name in row["params"]} <= chosen
    for kind, row in json_table()["node_twins"].items():
        assert set(row.get("inputs", {})) <= {each.name for each in inputs_of(kind)}
        assert set(row.get("inputs", {}).values()) <= {each.name for each in inputs_of(row["ours"])}
        assert [kind for _, kind in outputs_of(kind)] == [kind for _, kind in outputs_of(row["ours"])][
            : len(outputs_of(kind))
        ]


def json_table():
    from stepwise.convert.table import table

    return table()
