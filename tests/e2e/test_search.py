"""What people type into the page's own search finds the right node of ours, and the list tells them apart."""

import pytest
from stepwise.tests.e2e.test_curve import CANVASES, SCREENSHOTS

ITEMS = "[data-testid=result-item]"
# The node of ours that is first among ours, and the place in the whole list that it is at or above. The host's own
# nodes whose names have the words come first there, whatever others do.
EXPECTED = {
    "ksampler": ("KSampler (Stepwise)", 4),
    "dpm++ 2m karras": ("DPM++ 2M", 1),
    "dpmpp_2m": ("DPM++ 2M", 3),
    "dpm++ 2m sampler": ("DPM++ 2M Sampler", 1),
    "flow shift": ("Flow Schedule", 1),
    "simple scheduler": ("Timestep Schedule", 1),
    "normal scheduler": ("Timestep Schedule", 1),
    "cfg++": ("Euler", 3),
    "checkpoint resume": ("Load State", 1),
    "preview sigmas": ("Plot Sigmas", 1),
    "denoise": ("KSampler (Stepwise)", 8),
    "sdxl": ("KSampler (Stepwise)", 6),
    "apg": ("Adaptive Projected Guidance (Stepwise)", 2),
}


def found(editor, query):
    """The lines of every node in the list."""
    editor.page.locator("input:focus").fill(query)
    editor.page.wait_for_timeout(300)
    return [item.inner_text().split("\n") for item in editor.page.locator(ITEMS).all()]


@CANVASES
def test_what_people_type_finds_the_node(open_editor, nodes2):
    editor = open_editor(nodes2=nodes2)
    editor.page.mouse.dblclick(1300, 700)
    editor.page.wait_for_selector("input:focus")
    for query, (name, rank) in EXPECTED.items():
        items = found(editor, query)
        ours = [item[0] for item in items if "stepwise" in item]
        names = [item[0] for item in items]
        assert ours[:1] == [name], query
        assert names.index(name) < rank, query
    items = found(editor, "dpm++ 2m")
    lines = {item[0]: " ".join(item[1:]) for item in items}
    assert "Samples; can stop and go on." in lines["DPM++ 2M"]
    assert "A SAMPLER for other nodes." in lines["DPM++ 2M Sampler"]
    editor.screenshot(SCREENSHOTS / f"search-{'nodes2' if nodes2 else 'classic'}.png")


@pytest.mark.parametrize("kind", ["name", "display_name"])
def test_no_node_of_ours_shares_a_name(server, kind):
    nodes = server.get("/object_info")
    others = {(node[kind] or name).lower() for name, node in nodes.items() if not name.startswith("Stepwise")}
    ours = [node[kind] for name, node in nodes.items() if name.startswith("Stepwise")]
    assert len({name.lower() for name in ours}) == len(ours) > 80
    assert not {name.lower() for name in ours} & others
