"""The page of Compare Samplers in the real browser: through the route that opens it, and as a file of any size."""

import io
import json
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stepwise.compare import Axis, Cell, page
from stepwise.tests.e2e.harness import fetch, picture, run_prompt
from stepwise.tools.environment.folders import DEV

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "example_workflows"
EXAMPLE = "Compare samplers over guidance"
SHOTS = DEV / "screenshots" / "compare"
HOSTILE = '<img src=x onerror="alert(1)"> & <script>alert(2)</script>'
READY = "#controls:not([hidden])"
# Everything that shows text, with its colour and the first ground behind it that is not see-through.
CONTRASTS = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number)
    const light = (colour) => channels(colour).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
    const ground = (at) => {
        for (; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor
            if (channels(colour)[3] !== 0) return colour
        }
    }
    const texts = "h1, header p, th, .corner span, .error, .none, figcaption span, button, select"
    return [...document.querySelectorAll(texts)]
        .filter(each => each.textContent.trim() && each.checkVisibility())
        .map(each => {
            const [a, b] = [light(getComputedStyle(each).color), light(ground(each))].sort((x, y) => y - x)
            return [each.className || each.tagName, (a + 0.05) / (b + 0.05)]
        })
}"""
# Whether the node of the table shows a picture of this width and no other.
SHOWN = """width => {
    const node = app.graph.nodes.find(node => node.type === "StepwiseCompare")
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)
    const pictures = drawn ? [...drawn.querySelectorAll("img")] : node.imgs ?? []
    return pictures.length === 1 && pictures[0].naturalWidth === width
}"""
# What stands beyond the window, or over the edge of what holds it.
BEYOND = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT_OFF = """() => [...document.querySelectorAll("th, figcaption, .corner, h1")]
    .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.textContent)"""


def png(seed, size=96):
    y, x = np.mgrid[:size, :size] / size
    waves = [127 + 120 * np.sin(6 * x + seed), 127 + 120 * np.cos(5 * y + 0.3 * seed), 255 * x * y]
    file = io.BytesIO()
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def table(rows, columns):
    """A page of pictures that all differ but for two; with an error, a hole and text that is no markup."""
    names = (
        HOSTILE,
        "DPM++ 2M\n20 steps",
        "A sampler with a long name, and its settings",
        "UniPC",
        "DDIM",
        "res_multistep",
    )
    labels = Axis("sampler", names[:rows]), Axis("guidance", tuple(f"{1 + 1.5 * j:g}" for j in range(columns)))
    cells = {
        (i, j): Cell(png(i + j), calls=20 - i, evaluations=40 - 2 * i, seconds=1.0 + (7 * i + 3 * j) % 11)
        for i in range(rows)
        for j in range(columns)
    }
    if rows > 2:
        cells[2, 3] = Cell(error=f"RuntimeError: {HOSTILE}", calls=3)
        del cells[4, 5]
    return page(f"{rows} x {columns}", *labels, cells, "seed 7")


@pytest.fixture
def opened(browser, tmp_path):
    """`opened(text, scheme)`: a page from a file, whose console has to stay empty."""
    contexts, said = [], []

    def opened(text, scheme="dark", width=1400):
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        found = contexts[-1].new_page()
        found.on("console", lambda message: said.append(message.text))
        found.on("pageerror", lambda error: said.append(str(error)))
        found.on("dialog", lambda dialog: said.append(dialog.message))
        found.goto(file.as_uri())
        found.wait_for_selector(READY)
        return found

    yield opened
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (6, 8)])
def test_it_fits_and_can_be_read(opened, rows, columns, scheme):
    found = opened(table(rows, columns), scheme)
    SHOTS.mkdir(parents=True, exist_ok=True)
    found.screenshot(path=SHOTS / f"{rows}x{columns}-{scheme}.png", full_page=True)
    assert found.evaluate(BEYOND) <= 0
    assert found.evaluate(CUT_OFF) == []
    contrasts = found.evaluate(CONTRASTS)
    assert len(contrasts) > rows * columns
    assert [each for each in contrasts if each[1] < 4.5] == []
    ground = found.evaluate("getComputedStyle(document.body).backgroundColor")
    found.click("#theme")
    assert found.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    assert [each for each in found.evaluate(CONTRASTS) if each[1] < 4.5] == []
    sizes = found.evaluate("[...document.images].map(each => each.getBoundingClientRect().width)")
    assert min(sizes) == max(sizes) >= 96
    found.fill("#size", "400")
    assert found.evaluate("document.images[0].getBoundingClientRect().width") == 400


def test_text_is_shown_as_it_is(opened):
    found = opened(table(6, 8))
    assert found.inner_text("tbody th >> nth=0") == HOSTILE
    assert HOSTILE in found.inner_text(".error")
    assert found.evaluate("document.images.length") == 46
    assert found.evaluate("document.scripts.length") == 1


def test_sorted_by_what_it_cost_and_back(opened):
    found = opened(table(6, 8))
    numbers = "name => [...document.querySelectorAll('ol figure')].map(each => Number(each.dataset[name] ?? Infinity))"
    for order, sign in (("calls", 1), ("-calls", -1), ("seconds", 1), ("-seconds", -1), ("evaluations", 1)):
        found.select_option("#order", order)
        values = found.evaluate(numbers, order.removeprefix("-"))
        known = [value for value in values if value != float("inf")]
        assert len(values) == 47
        assert known == sorted(known, key=lambda value: sign * value)
        assert values[: len(known)] == known
    found.screenshot(path=SHOTS / "sorted.png")
    found.select_option("#order", "")
    places = "[...document.querySelectorAll('td figure')].map(each => [+each.dataset.row, +each.dataset.column])"
    expected = [[i, j] for i in range(6) for j in range(8) if (i, j) != (4, 5)]
    assert found.evaluate(places) == expected


def test_two_pictures_lie_over_each_other(opened):
    """Cells (0, 1) and (1, 0) hold one picture; (0, 0) another, whose distance is known."""
    found = opened(table(2, 2))
    for number in (1, 2):
        found.click(f".pick >> nth={number}")
    shown = "[...document.querySelectorAll('#stage img')].map(each => each.alt)"
    assert len(found.evaluate(shown)) == 2
    found.screenshot(path=SHOTS / "wipe.png")
    found.click("[data-mode=difference]")
    assert found.inner_text("#said").endswith("equal")
    found.select_option("#second", "0")
    one, other = (np.asarray(Image.open(io.BytesIO(png(seed)))).astype(float) for seed in (1, 0))
    apart = np.abs(one - other)
    assert found.inner_text("#said").endswith(f"mean {apart.mean():.2f}, largest {apart.max():.0f} of 255")
    found.screenshot(path=SHOTS / "difference.png")
    for mode, count in (("one", 1), ("beside", 2), ("blend", 2)):
        found.click(f"[data-mode={mode}]")
        assert len(found.evaluate(shown)) == count


def test_zoom_keeps_the_point_under_the_wheel_and_arrows_go_to_the_neighbours(opened):
    found = opened(table(6, 8))
    found.click(".open >> nth=18")
    box = "(({ x, y, width }) => [x, y, width])(document.querySelector('.layers').getBoundingClientRect())"
    before = found.evaluate(box)
    point = (before[0] + 0.25 * before[2], before[1] + 0.5 * before[2])
    found.mouse.move(*point)
    found.mouse.wheel(0, -100)
    after = found.evaluate(box)
    assert after[2] == pytest.approx(1.15 * before[2], rel=1e-4)
    assert (point[0] - after[0]) / after[2] == pytest.approx(0.25, abs=1e-3)
    assert (point[1] - after[1]) / after[2] == pytest.approx(0.5, abs=1e-3)
    shown = "document.querySelector('#stage img').alt"
    # From row 2, column 2: to its right there is an error, which is no picture.
    assert found.evaluate(shown).endswith("· 4")
    found.keyboard.press("ArrowRight")
    assert found.evaluate(shown).endswith("· 7")
    found.keyboard.press("ArrowUp")
    assert found.evaluate(shown) == "DPM++ 2M, 20 steps · 7"
    found.keyboard.press("Escape")
    assert not found.evaluate("document.querySelector('dialog').open")


def address(server, told):
    return f"{server.url}/stepwise/compare?{urllib.parse.urlencode({'file': told['file']})}"


def example():
    return json.loads((EXAMPLES / "api" / "compare_samplers.json").read_text(encoding="utf-8"))


def test_the_example_makes_its_table_and_its_page_in_a_sandbox(server, browser):
    prompt = example()
    result = run_prompt(server, prompt, patience=400).check()
    (told,) = next(output["stepwise_page"] for output in result.outputs.values() if "stepwise_page" in output)
    assert (told["done"], told["cells"], told["failed"]) == (12, 12, 0)
    images = [Image.open(io.BytesIO(fetch(server, file))) for file in result.files()]
    assert len({image.size for image in images}) == 1
    with urllib.request.urlopen(address(server, told)) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "sandbox allow-scripts" in policy
        assert "unsafe" not in policy
    context, said = browser.new_context(viewport={"width": 1400, "height": 900}), []
    try:
        found = context.new_page()
        found.on("pageerror", lambda error: said.append(str(error)))
        found.goto(address(server, told))
        found.wait_for_selector(READY)
        SHOTS.mkdir(parents=True, exist_ok=True)
        found.screenshot(path=SHOTS / "example.png", full_page=True)
        calls = found.evaluate("[...document.querySelectorAll('figure')].map(each => Number(each.dataset.calls))")
        assert calls == [8] * 4 + [8] * 4 + [7] * 4
        evaluations = "[...document.querySelectorAll('figure')].map(each => Number(each.dataset.evaluations))"
        assert found.evaluate(evaluations) == [count * factor for count in (8, 8, 7) for factor in (1, 2, 2, 2)]
        assert found.evaluate("self.origin") == "null"
        reached = "fetch('/system_stats').then(() => 'reached', () => 'refused')"
        assert found.evaluate(reached) == "refused"
        found.click(".open >> nth=0")
        found.click("[data-mode=difference]")
        assert "of 255" in found.inner_text("#said")
        assert said == []
    finally:
        context.close()


@pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes2"])
def test_the_node_opens_its_page(open_editor, server, nodes2, tmp_path):
    prompt = example()
    (number,) = (number for number, node in prompt.items() if node["class_type"] == "StepwiseCompare")
    # Each canvas runs: a result from the cache has no previews.
    prompt[number]["inputs"] |= {"columns.scales": "1, SKIP 3", "equal_calls": 2 + nodes2}
    (tmp_path / "few.json").write_text(json.dumps(prompt))
    editor = open_editor(nodes2=nodes2)
    editor.page.evaluate("app.extensionManager.setting.set('Comfy.Execution.PreviewMethod', 'latent2rgb')")
    editor.drop(tmp_path / "few.json")
    assert editor.missing_nodes() == set()
    button = editor.page.get_by_role("button", name="Open the page")
    assert button.is_disabled()
    result = editor.queue(patience=300).check()
    assert editor.page.locator(".stepwise-compare .said").inner_text().startswith("stepwise/compare_")
    with editor.page.context.expect_page() as promised:
        button.dispatch_event("click")
    found = promised.value
    found.wait_for_selector(READY)
    assert found.evaluate("document.images.length") == 3
    assert found.evaluate("window.opener") is None
    assert found.inner_text("thead th >> nth=1") == "3"
    assert found.evaluate("document.querySelectorAll('.none').length") == 3
    # The table alone, in the place of the last preview.
    width = picture(server, result.files()[0]).width
    assert editor.previews
    editor.page.wait_for_function(f"width => ({SHOWN})(width)", arg=width)
    editor.command("Comfy.Canvas.FitView")
    editor.screenshot(SHOTS / f"node-{'nodes2' if nodes2 else 'classic'}.png")
    assert editor.errors_of_pack() == []


def test_after_cancel_the_page_has_what_was_done(editor, server, tmp_path):
    """The first row is short, the second never ends: Cancel comes while it runs."""
    prompt = example()
    (number,) = (number for number, node in prompt.items() if node["class_type"] == "StepwiseCompare")
    (schedule,) = (number for number, node in prompt.items() if node["class_type"] == "StepwiseKarrasSchedule")
    (_, second, *others) = (number for number, node in prompt.items() if node["class_type"] == "StepwiseCompareEntry")
    prompt["98"] = {"class_type": "StepwiseKarrasSchedule", "inputs": {**prompt[schedule]["inputs"], "steps": 5000}}
    prompt[second]["inputs"]["sigmas"] = ["98", 0]
    for entry in others:
        prompt[entry]["inputs"]["skip"] = "all"
    prompt[number]["inputs"] |= {"columns.scales": "1", "equal_calls": 0}
    (tmp_path / "long.json").write_text(json.dumps(prompt))
    editor.drop(tmp_path / "long.json")
    editor.page.get_by_test_id("queue-button").click()
    deadline = time.monotonic() + 120
    while not any(frame["type"] == "progress" and frame["data"]["value"] > 8 for frame in editor.frames):
        assert time.monotonic() < deadline, "no step of the second row was taken"
        editor.page.wait_for_timeout(100)
    server.post("/interrupt", {})
    said = editor.page.locator(".stepwise-compare .said")
    said.filter(has_text="2 of 3 cells").wait_for(timeout=60_000)
    with editor.page.context.expect_page() as promised:
        editor.page.get_by_role("button", name="Open the page").dispatch_event("click")
    promised.value.wait_for_selector(READY)
    assert promised.value.evaluate("document.images.length") == 1
    assert "2 cells of 3: cancelled" in promised.value.inner_text("header")
