"""Compare Samplers: each cell is the run that its own nodes would make, counted, and none takes another down."""

import asyncio
import base64
import io
import re
import time
from pathlib import Path

import comfy.model_management
import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import numpy as np
import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from comfy_extras.nodes_custom_sampler import CFGGuider, KSamplerSelect, RandomNoise
from PIL import Image
from stepwise.nodes.runs.comparison import Column, Comparison, Entry, Row
from stepwise.nodes.shared import letters, served
from stepwise.nodes.shared.images import one_picture, png
from toy_models import call, nodes_by_id, refused

FIGURE = re.compile(r'<figure data-row="(\d+)" data-column="(\d+)"([^>]*)>(.*?)</figure>', re.DOTALL)


@pytest.fixture(scope="module")
def digits():
    """Model, VAE, positive, negative and the latent of two digits."""
    model, vae = call("StepwiseDigitsModel")
    prompts = (call("StepwiseDigit", labels=labels)[0] for labels in ("3,7", ""))
    return model, vae, *prompts, {"samples": torch.zeros(2, 1, 8, 8)}


def guider_of(digits, cfg=2.0):
    model, _, positive, negative, _ = digits
    return call("StepwiseCFGGuider", model=model, positive=positive, negative=negative, cfg=cfg)[0]


def hosts_guider(digits, cfg=2.0):
    model, _, positive, negative, _ = digits
    return CFGGuider.execute(model, positive, negative, cfg).args[0]


def ours(solver, **params):
    return call(f"Stepwise{solver}Sampler", **params)[0]


def hosts(name):
    return KSamplerSelect.execute(name).args[0]


def karras(steps):
    return call("StepwiseKarrasSchedule", steps=steps)[0]


def entry(sampler, guider, steps=2, **named):
    return call("StepwiseCompareEntry", sampler=sampler, sigmas=karras(steps), guider=guider, **named)[0]


def seeds(text):
    return {"columns": "seeds", "seeds": text}


def scales(text):
    return {"columns": "guidance", "scales": text}


def inputs(digits, entries, columns, **named):
    given = {"noise": RandomNoise.execute(1).args[0], "latent_image": digits[4], "vae": digits[1], "columns": columns}
    return {"entries": {f"entry_{i}": each for i, each in enumerate(entries, 1)}, **given, **named}


def pages():
    return sorted(Path(folder_paths.get_output_directory(), "stepwise").glob("compare_*.html"))


class Cell:
    """A cell as the page has it."""

    def __init__(self, data, inside):
        self.figures = {name: float(value) for name, value in re.findall(r'data-(\w+)="([\d.e-]+)"', data)}
        found = re.search(r'src="data:image/png;base64,([^"]+)"', inside)
        self.picture = base64.b64decode(found[1]) if found else None
        self.error = "".join(re.findall(r'<p class="error">(.*?)</p>', inside, re.DOTALL))
        self.inside = inside


def compared(*given, **named):
    """The image and the cells of the page."""
    image = call("StepwiseCompare", **inputs(*given, **named))[0]
    return image, read(pages()[-1])


def test_the_node_says_what_the_numbers_in_its_image_are(digits, monkeypatch):
    """On a computer without a font for the labels. The page has the labels themselves."""
    monkeypatch.setattr(letters, "font_folders", list)
    rows = [entry(ours("Euler"), guider_of(digits), label=label) for label in ("plain", "快速")]
    given = inputs(digits, rows, seeds("1"))
    made = nodes_by_id()["StepwiseCompare"].execute(
        **given, equal_calls=0, cell_size=256, theme="dark", filename_prefix="stepwise/compare"
    )
    (told,) = made.ui["stepwise_page"]
    assert told["labels"] == ["row 2: 快速 2 steps"]
    assert "快速\n2 steps</th>" in pages()[-1].read_text(encoding="utf-8")


def test_a_remark_is_made_once_and_says_of_what(digits):
    """No cell repeats it. Here: a schedule that begins far below the model's highest level, from an empty latent."""
    low = torch.tensor([1.0, 0.0])
    rows = [
        call("StepwiseCompareEntry", sampler=ours("Euler"), sigmas=low, guider=guider_of(digits), label="low")[0],
        entry(ours("Euler"), guider_of(digits), label="whole"),
    ]
    made = nodes_by_id()["StepwiseCompare"].execute(
        **inputs(digits, rows, seeds("1-3")),
        equal_calls=0,
        cell_size=256,
        theme="dark",
        filename_prefix="stepwise/compare",
    )
    (remark,) = made.ui["stepwise_page"][0]["labels"]
    assert remark.startswith("low: sigmas")
    page = pages()[-1].read_text(encoding="utf-8")
    assert page.count("low: sigmas") == page.count("latent_image is empty") == 1


def test_a_remark_on_some_cells_names_them():
    rows = [Row(Entry(None, None, None, label)) for label in ("one", "two")]
    columns = [Column(str(seed), seed=seed) for seed in (1, 2, 3)]
    said = {(0, 0): ["A.", "B."], (0, 1): ["A."], (0, 2): ["A.", "B."], (1, 0): [], (1, 2): ["B."]}
    found = Comparison(rows, columns, None, {}, None, said=said).remarks
    assert found == ["one: A.", "one, seed 1, 3: B.", "two, seed 3: B."]


def read(page):
    return {(int(row), int(column)): Cell(*rest) for row, column, *rest in FIGURE.findall(page.read_text())}


def made_alone(digits, sampler, guider, steps, seed):
    """The picture by Sample (Stepwise) and VAE Decode."""
    run = {"noise": RandomNoise.execute(seed).args[0], "latent_image": digits[4], "sigmas": karras(steps)}
    latent = call("StepwiseSample", guider=guider, sampler=sampler, **run)[0]
    return png(one_picture(digits[1].decode(latent["samples"])))


def test_a_cell_is_the_picture_that_its_nodes_make_alone(digits):
    samplers = [ours("EulerAncestral"), hosts("dpmpp_2m"), hosts("euler_ancestral")]
    guider = guider_of(digits)
    _, cells = compared(digits, [entry(each, guider) for each in samplers], seeds("5, 3-4"))
    expected = {
        (row, column): made_alone(digits, sampler, guider, 2, seed)
        for row, sampler in enumerate(samplers)
        for column, seed in enumerate((5, 3, 4))
    }
    assert {place: cell.picture for place, cell in cells.items()} == expected
    assert len(set(expected.values())) == 9


@pytest.mark.parametrize("make", [guider_of, hosts_guider])
def test_guidance_is_set_on_copies(digits, make):
    guider = make(digits, 2.0)
    options = guider.model_options
    before = made_alone(digits, ours("DPMpp2M"), guider, 2, 1)
    _, cells = compared(digits, [entry(ours("DPMpp2M"), guider)], scales("1, 5"))
    expected = [made_alone(digits, ours("DPMpp2M"), make(digits, scale), 2, 1) for scale in (1.0, 5.0)]
    assert [cells[0, column].picture for column in (0, 1)] == expected
    assert made_alone(digits, ours("DPMpp2M"), guider, 2, 1) == before
    assert guider.cfg == 2.0
    assert guider.model_options is options
    assert "stepwise" not in str(options.get("transformer_options", {}).get("wrappers", {}))
    assert not digits[0].model.diffusion_model._forward_pre_hooks


@pytest.mark.parametrize("make", [guider_of, hosts_guider])
def test_calls_and_evaluations_are_what_sampler_and_network_did(digits, make):
    """Heun calls twice a step but for the last, to 0. At guidance 1 a call is one evaluation, else two."""
    entries = [entry(each, make(digits), 4) for each in (ours("Heun"), hosts("heun"), ours("DPMpp2M"), hosts("euler"))]
    begun = time.monotonic()
    _, cells = compared(digits, entries, scales("1, 3"))
    took = time.monotonic() - begun
    found = [[cells[row, column].figures for column in (0, 1)] for row in range(4)]
    assert [[figures["calls"] for figures in row] for row in found] == [[7, 7], [7, 7], [4, 4], [4, 4]]
    assert [[figures["evaluations"] for figures in row] for row in found] == [[7, 14], [7, 14], [4, 8], [4, 8]]
    seconds = [figures["seconds"] for row in found for figures in row]
    assert min(seconds) > 0
    assert sum(seconds) < took


class Fails(comfy.samplers.KSAMPLER):
    """A SAMPLER that raises what it was given, in its n-th run."""

    def __init__(self, error, number):
        super().__init__(self.fail)
        self.error, self.number, self.runs = error, number, 0

    def fail(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        self.runs += 1
        x = model(x, sigmas[0] * x.new_ones(len(x)), **extra_args)
        if self.runs == self.number:
            raise self.error
        return x


def test_a_cell_that_fails_says_why_and_the_rest_goes_on(digits):
    guider = guider_of(digits)
    entries = [entry(Fails(RuntimeError("broken <b>"), 2), guider, label="A"), entry(hosts("euler"), guider)]
    image, cells = compared(digits, entries, seeds("1-3"))
    assert [cells[0, column].error for column in range(3)] == ["", "RuntimeError: broken &lt;b&gt;", ""]
    assert cells[0, 1].figures["calls"] == 1
    assert sum(cell.picture is not None for cell in cells.values()) == 5
    assert image.shape[0] == 1


def test_a_schedule_that_a_sampler_cannot_take_is_said_in_its_row(digits):
    guider = guider_of(digits)
    given = {"sampler": ours("Euler"), "sigmas": torch.tensor([1.0, 3.0, 0.0]), "guider": guider, "label": ""}
    _, cells = compared(digits, [call("StepwiseCompareEntry", **given)[0], entry(hosts("euler"), guider)], seeds("1-2"))
    assert all(cells[0, column].error.startswith("sigmas[1] is 3") for column in (0, 1))
    assert all(cells[1, column].picture for column in (0, 1))


def test_cancel_ends_the_run_and_keeps_what_is_done(digits, monkeypatch):
    told = []
    monkeypatch.setattr("stepwise.nodes.compare.tell_page", lambda event, what: told.append((event, what)))
    stopped = comfy.model_management.InterruptProcessingException()
    guider, before = guider_of(digits), pages()
    entries = [entry(hosts("euler"), guider), entry(Fails(stopped, 3), guider)]
    given = inputs(digits, entries, seeds("1-4"))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        call("StepwiseCompare", **given)
    (page,) = set(pages()) - set(before)
    cells = read(page)
    assert sorted(cells) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    assert all(cell.picture for cell in cells.values())
    assert page.read_text().count("not run") == 2
    assert "6 cells of 8: cancelled" in page.read_text()
    ((event, what),) = told
    assert event == "stepwise.compared"
    assert (what["file"], what["done"], what["cells"]) == (f"stepwise/{page.name}", 6, 8)


def test_a_name_that_begins_like_skip_is_a_name():
    names = ["Skip Layer Guidance", "skip-layer 2.8", "SKIPPER", "SKIP-LAYER"]
    rows = [Entry(hosts("euler"), None, None, name, "") for name in names]
    assert [(row.name, row.skips(Column("1", False, seed=1))) for row in rows] == [(name, False) for name in names]
    row = Entry(hosts("euler"), None, None, "SKIP: other", "")
    assert (row.name, row.skips(Column("1", False, seed=1))) == ("other", True)


def test_what_is_skipped_keeps_its_place_and_runs_nothing(digits):
    guider = guider_of(digits)
    never = Fails(AssertionError("ran"), 1)
    entries = [
        entry(hosts("euler"), guider, skip="2"),
        entry(never, guider, label="SKIP other"),
        entry(never, guider, skip="all"),
        entry(never, guider, skip="1, 2"),
    ]
    _, cells = compared(digits, entries, seeds("1-2, SKIP 3"))
    assert never.runs == 0
    done = {place for place, cell in cells.items() if cell.picture}
    assert done == {(0, 0)}
    assert sum('<p class="none">skipped</p>' in cell.inside for cell in cells.values()) == 11
    assert ">other\n2 steps<" in pages()[-1].read_text()


def test_a_scale_is_skipped_however_it_is_written_and_what_is_no_column_is_refused(digits):
    guider = guider_of(digits)
    rows = [entry(hosts("euler"), guider, skip="2.50 +1")]
    _, cells = compared(digits, rows, scales("1, 2.5, 3"), equal_calls=2)
    assert {place for place, cell in cells.items() if cell.picture} == {(0, 2)}
    said = refused("StepwiseCompare", **inputs(digits, [entry(hosts("euler"), guider, skip="1, 4")], scales("1, 3")))
    assert said.startswith("Compare Samplers: entries.entry_1 skips '4', and the columns are 1, 3.")


@pytest.mark.parametrize("calls", [5, 12])
def test_equal_calls_gives_each_as_many_steps_as_they_allow(digits, calls):
    """One more step would make more calls: of Heun 2n - 1 for n steps."""
    guider = guider_of(digits)
    entries = [entry(each, guider, 7) for each in (ours("Heun"), hosts("heun"), ours("DPMpp2M"), hosts("lms"))]
    _, cells = compared(digits, entries, seeds("1"), equal_calls=calls)
    heun = 2 * ((calls + 1) // 2) - 1
    assert [cells[row, 0].figures["calls"] for row in range(4)] == [heun, heun, calls, calls]
    sampler, steps = ours("DPMpp2M"), calls
    sigmas = call("StepwiseResampleSigmas", sigmas=karras(7), steps=steps)[0]
    run = {"noise": RandomNoise.execute(1).args[0], "latent_image": digits[4], "sigmas": sigmas}
    latent = call("StepwiseSample", guider=guider, sampler=sampler, **run)[0]
    assert cells[2, 0].picture == png(one_picture(digits[1].decode(latent["samples"])))


class Twice(comfy.samplers.KSAMPLER):
    """A SAMPLER that calls the model twice in every step."""

    def __init__(self):
        super().__init__(self.walk)

    def walk(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma in [each for each in sigmas[:-1] for _ in (1, 2)]:
            denoised = model(x, sigma * x.new_ones(len(x)), **extra_args)
        return denoised


@pytest.mark.parametrize(("calls", "made"), [(1, None), (2, 2), (5, 4)])
def test_a_sampler_that_calls_more_often_in_one_step_says_so(digits, calls, made):
    _, cells = compared(digits, [entry(Twice(), guider_of(digits))], seeds("1"), equal_calls=calls)
    assert cells[0, 0].figures.get("calls") == made
    said = "equal_calls is 1, and walk makes 2 model calls in one step. Raise it."
    assert cells[0, 0].error == ("" if made else said)


def test_progress_goes_once_over_all_cells(digits, monkeypatch):
    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *given, **named: seen.append(given[:2]))
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0.0)
    guider = guider_of(digits)
    compared(digits, [entry(hosts("euler"), guider, 3), entry(ours("Heun"), guider, 4)], seeds("1-2"))
    values = [value for value, _ in seen]
    assert values == sorted(values)
    assert set(values) == set(range(1, 15))
    assert {total for _, total in seen} == {14}


def test_the_run_is_previewed_in_the_first_part_of_its_latent(digits, monkeypatch):
    class Previewer:
        def decode_latent_to_preview_image(self, kind, x0):
            return kind, tuple(x0.shape), 512

    seen = []
    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Previewer())
    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", lambda self, *given: seen.append(given[2:]))
    compared(digits, [entry(ours("Heun"), guider_of(digits))], seeds("1"))
    assert {preview for (preview,) in filter(None, seen)} == {("JPEG", (2, 1, 8, 8), 512)}


def test_the_image_has_every_picture_pixel_for_pixel(digits):
    """Enlarged by a whole factor, once each, where nothing else is drawn."""
    guider = guider_of(digits)
    image, cells = compared(digits, [entry(hosts("euler"), guider), entry(ours("Heun"), guider)], seeds("1-2"))
    sheet = np.rint(255.0 * image[0].numpy()).astype(np.uint8)
    for cell in cells.values():
        small = np.asarray(Image.open(io.BytesIO(cell.picture)).convert("RGB"))
        factor = -(-208 // small.shape[1])
        large = small.repeat(factor, 0).repeat(factor, 1)
        views = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], large.shape[:2])
        corners = np.argwhere((views[:, :, ::40, ::40] == large[::40, ::40, 0]).all((-1, -2)))
        found = [(y, x) for y, x in corners if (sheet[y:, x:][: large.shape[0], : large.shape[1]] == large).all()]
        assert len(found) == 1


BAD = {
    "seeds": (seeds("1, two"), "columns.seeds[1] is 'two'. Write whole numbers"),
    "range": (seeds("5-1"), "columns.seeds[0] is '5-1'. Write whole numbers"),
    "many": (seeds("0-100"), "columns.seeds[0] is '0-100', which is too many."),
    "scale": (scales("1, nan"), "columns.scales[1] is 'nan', which is no guidance scale."),
    "no scale": (scales(" , "), "columns.scales is empty."),
}


@pytest.mark.parametrize("name", BAD)
def test_what_makes_no_column_is_refused_before_anything_runs(digits, name):
    columns, message = BAD[name]
    never = Fails(AssertionError("ran"), 1)
    said = refused("StepwiseCompare", **inputs(digits, [entry(never, guider_of(digits))], columns))
    assert said.startswith(f"Compare Samplers: {message}")
    assert never.runs == 0


def test_a_guider_without_a_scale_and_a_prefix_that_leads_out_are_refused(digits):
    from comfy_extras.nodes_custom_sampler import BasicGuider

    never = Fails(AssertionError("ran"), 1)
    (basic,) = BasicGuider.execute(digits[0], digits[2]).args
    said = refused("StepwiseCompare", **inputs(digits, [entry(never, basic)], scales("1, 2")))
    assert "has no guidance scale" in said
    given = inputs(digits, [entry(never, guider_of(digits))], seeds("1"), filename_prefix="../../out")
    assert "leads out of ComfyUI's output folder" in refused("StepwiseCompare", **given)
    assert never.runs == 0


def ask(name, middlewares=()):
    async def run():
        app = web.Application(middlewares=middlewares)
        app.router.add_get(served.ROUTE, served.on_question)
        async with TestClient(TestServer(app)) as client:
            response = await client.get(served.ROUTE, params={"file": name})
            return response.status, dict(response.headers), await response.read()

    return asyncio.run(run())


def test_the_route_serves_what_the_node_wrote_and_nothing_else(digits):
    from server import create_block_external_middleware

    compared(digits, [entry(hosts("euler"), guider_of(digits))], seeds("1"))
    file = pages()[-1]
    name = f"stepwise/{file.name}"
    for middlewares in ((), (create_block_external_middleware(),)):
        status, headers, body = ask(name, middlewares)
        assert (status, body) == (200, file.read_bytes())
        policy = headers["Content-Security-Policy"]
        assert "sandbox allow-scripts" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    (file.parent / "other.html").write_text("<script>alert(1)</script>")
    for other in ("stepwise/other.html", "", "../input/x.html", file.name, str(file), f"{name} [output]", "\0"):
        assert ask(other)[0] == 404
    file.write_bytes(file.read_bytes() + b"<script>alert(1)</script>")
    status, headers, body = ask(name)
    assert (status, b"script" in body) == (404, False)


@pytest.mark.parametrize("levels", [[], [5.0]])
def test_a_row_without_a_step_is_refused(digits, levels):
    given = {"sampler": ours("Euler"), "sigmas": torch.tensor(levels), "guider": guider_of(digits)}
    message = refused("StepwiseCompareEntry", **given)
    assert message.startswith(f"Compare Entry: sigmas has {len(levels)} value")
