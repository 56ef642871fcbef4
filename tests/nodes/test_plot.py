"""The picture of schedules: what is at which pixel, what is refused, and that nothing of the process is touched."""

import builtins
import math
import sys

import numpy as np
import pytest
import torch
from stepwise.nodes.host.digits import digits_model
from stepwise.nodes.host.small_models import host_model
from stepwise.nodes.plot import MOST, StepwisePlotSigmas, levels, titled
from stepwise.nodes.shared.drawing import COLOURS, GROUNDS, LINEAR, LOG, LOG_SNR, Look, draw
from stepwise.samplers import FLOW, VE
from stepwise.samplers.schedules import exponential, flow, karras, trained_sigmas
from stepwise.samplers.schedules.tables import Trained

SCALES = (LOG, LINEAR, LOG_SNR)
TABLE = Trained(VE, tuple(torch.tensor(trained_sigmas()).tolist()))


def run(*schedules, names="", scale=LOG, path="VE", theme="dark", width=384, height=288, model=None):
    sigmas = {f"sigmas_{i}": torch.tensor(values) for i, values in enumerate(schedules, start=1)}
    output = StepwisePlotSigmas.execute(sigmas, names, scale, path, theme, width, height, model)
    return output.args[0]


def drawn(*schedules, look, trained=None):
    named = [(f"sigmas_{i}", f"sigmas {i}", tuple(values)) for i, values in enumerate(schedules, start=1)]
    drawing = draw(named, look, trained)
    return drawing, drawing.pixels()


def colour(text):
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


def near(pixels, drawing, axes, x, y, wanted, reach=2):
    """Whether a pixel of the wanted colour lies within `reach` pixels of the place (x, y) of the axes."""
    row, column = drawing.pixel_of(axes, x, y)
    part = pixels[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
    return bool((np.abs(part.astype(int) - wanted).max(-1) <= 12).any())


# The picture


@pytest.mark.parametrize("theme", GROUNDS)
@pytest.mark.parametrize("scale", SCALES)
def test_one_picture_of_the_size_asked_for(scale, theme):
    image = run(karras(20), exponential(10), scale=scale, theme=theme, width=400, height=264)
    assert image.shape == (1, 264, 400, 3)
    assert image.dtype == torch.float32
    assert 0.0 <= image.min() < image.max() <= 1.0
    assert np.array_equal((image[0, 0, 0] * 255).round().int().numpy(), colour(GROUNDS[theme][0]))


def test_other_data_is_another_picture_and_the_same_data_the_same():
    one = run(karras(20))
    assert torch.equal(one, run(karras(20)))
    others = [
        run(karras(21)),
        run(karras(20), scale=LINEAR),
        run(karras(20), theme="light"),
        run(karras(20), names="a"),
    ]
    assert all(not torch.equal(one, other) for other in others)


@pytest.mark.parametrize("theme", GROUNDS)
@pytest.mark.parametrize(("scale", "path"), [(LOG, VE), (LINEAR, VE), (LOG_SNR, VE), (LOG_SNR, FLOW)])
def test_each_noise_level_is_a_mark_at_its_place(scale, path, theme):
    """Looked up by the axes' own transform from values computed here, the ends at the edges where they are infinite."""
    sigmas = flow(8) if path is FLOW else karras(8)
    value = {
        LOG: lambda sigma: sigma,
        LINEAR: lambda sigma: sigma,
        LOG_SNR: lambda sigma: math.log((1.0 - sigma if path is FLOW else 1.0) ** 2 / sigma**2),
    }[scale]
    drawing, pixels = drawn(sigmas, look=Look(scale, path, theme))
    wanted = colour(COLOURS[theme][0])
    bottom, top = drawing.levels.get_ylim()
    for i, sigma in enumerate(sigmas):
        if sigma == 0.0:
            y = {LOG: bottom, LINEAR: 0.0, LOG_SNR: top}[scale]
        elif path is FLOW and sigma == 1.0:
            y = bottom
        else:
            y = value(sigma)
            assert bottom < y < top
        # Marks at an edge are hollow and larger.
        assert near(pixels, drawing, drawing.levels, i, y, wanted, reach=2 if bottom < y < top else 9), (i, sigma)
    ground = colour(GROUNDS[theme][0])
    assert not near(pixels, drawing, drawing.levels, 4, value(sigmas[2]), wanted)
    assert near(pixels, drawing, drawing.levels, 4, value(sigmas[2]), ground, reach=4)


@pytest.mark.parametrize("scale", SCALES)
def test_each_step_is_a_bar_of_its_size(scale):
    sigmas = karras(8)
    drawing, pixels = drawn(sigmas, look=Look(scale))
    for i in range(7):
        s, t = sigmas[i], sigmas[i + 1]
        size = 2.0 * math.log(s / t) if scale == LOG_SNR else s - t
        assert near(pixels, drawing, drawing.steps, i + 0.5, size, colour(COLOURS["dark"][0])), i


def test_an_infinite_step_is_an_arrow_at_the_edge():
    """With two curves no bar is filled, so that the colour is the arrow's."""
    drawing, pixels = drawn(flow(8), flow(6), look=Look(LOG_SNR, FLOW))
    top = drawing.steps.get_ylim()[1]
    first, second = (colour(each) for each in COLOURS["dark"][:2])
    assert near(pixels, drawing, drawing.steps, 7.5, top, first)
    assert near(pixels, drawing, drawing.steps, 5.5, top, second)
    assert not near(pixels, drawing, drawing.steps, 6.5, top, first)


@pytest.mark.parametrize("scale", SCALES)
def test_the_models_range_is_marked_where_it_is(scale):
    """A dotted line: ink in its row and none five rows away; without a model none there either."""
    look = Look(scale, width=768, height=576)
    drawing, pixels = drawn((10.0, 1.0, 0.1), look=look, trained=TABLE)
    ink = colour(GROUNDS["dark"][1])
    for sigma in (TABLE.sigma_min, TABLE.sigma_max):
        y = -2.0 * math.log(sigma) if scale == LOG_SNR else sigma
        row, _ = drawing.pixel_of(drawing.levels, 0.0, y)
        inside = slice(pixels.shape[1] // 3, pixels.shape[1] // 2)
        found = [(np.abs(pixels[r, inside].astype(int) - ink).max(-1) < 60).sum() for r in range(row - 1, row + 2)]
        assert max(found) > 20, sigma
        away = row - 8 if sigma == TABLE.sigma_min else row + 8
        assert (np.abs(pixels[away, inside].astype(int) - ink).max(-1) < 60).sum() == 0


def test_a_curve_that_rises_stays_where_its_values_are():
    sigmas = tuple(reversed(karras(8)))
    drawing, pixels = drawn(sigmas, look=Look(LOG))
    for i, sigma in enumerate(sigmas[1:], start=1):
        assert near(pixels, drawing, drawing.levels, i, sigma, colour(COLOURS["dark"][0]))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "sigmas",
    [(1.0, 0.0), (14.6, 14.6), (0.5, 0.5, 0.0), (0.0, 0.0), (0.0, 1.0), tuple(karras(999)), (1e-4, 1e4)],
    ids=["two", "equal", "repeated", "zeros", "up", "thousand", "wide"],
)
def test_whatever_is_a_list_of_noise_levels_is_drawn(scale, sigmas):
    image = run(sigmas, scale=scale)
    assert image.isfinite().all()
    _, pixels = drawn(sigmas, look=Look(scale))
    assert (np.abs(pixels.astype(int) - colour(COLOURS["dark"][0])).max(-1) <= 12).sum() > 20


def test_as_many_curves_as_there_are_sockets():
    image = run(*[karras(20, rho=float(i)) for i in range(1, MOST + 1)], width=768, height=576)
    assert image.isfinite().all()
    pixels = (image[0] * 255).round().int().numpy()
    for text in COLOURS["dark"]:
        assert (np.abs(pixels - colour(text)).max(-1) <= 12).any(), text


# Names


def test_names_go_to_the_inputs_in_their_order():
    sigmas = {f"sigmas_{i}": torch.tensor([1.0, 0.0]) for i in (10, 2, 1)}
    assert [name for _, name, _ in titled(sigmas, "first\n\n third ")] == ["first", "sigmas 2", "third"]
    assert [each for each, _, _ in titled(sigmas, "")] == ["sigmas.sigmas_1", "sigmas.sigmas_2", "sigmas.sigmas_10"]


def test_a_name_is_plain_text():
    for name in ("_hidden", "$x^2", "a\\b", "%", "x" * 200, "{}"):
        assert run(karras(5), names=name).isfinite().all()
    assert not torch.equal(run(karras(5), names="_hidden"), run(karras(5), names="_other"))


# The model


def test_a_wired_model_gives_path_and_range():
    digits = digits_model("standard")
    assert torch.equal(
        run(karras(20), scale=LOG_SNR, path="FLOW", model=digits), run(karras(20), scale=LOG_SNR, model=digits)
    )
    assert not torch.equal(run(karras(20), model=digits), run(karras(20)))
    import comfy.model_base

    module = torch.nn.Linear(1, 1)
    module.dtype = torch.float32
    rectified = host_model(module, comfy.model_base.ModelType.FLOW)
    wired = run(flow(8), scale=LOG_SNR, path="VE", model=rectified)
    assert torch.equal(wired, run(flow(8), scale=LOG_SNR, path="FLOW", model=rectified))


# Errors


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_what_is_no_noise_level_is_named_with_its_place(value):
    with pytest.raises(ValueError, match=r"Plot Sigmas: sigmas\.sigmas_2\[1\] is (nan|inf|-1), and a noise level is"):
        run((1.0, 0.0), (2.0, value, 0.0))


@pytest.mark.parametrize("sigmas", [torch.zeros(0), torch.ones(1), torch.ones(2, 2), torch.tensor(1.0)])
def test_what_is_no_list_of_two_is_named(sigmas):
    with pytest.raises(ValueError, match="sigmas_1 has the shape"):
        levels("sigmas_1", sigmas)


def test_log_snr_needs_levels_that_exist_on_the_path():
    with pytest.raises(ValueError, match=r"Plot Sigmas: sigmas\.sigmas_1\[0\] is 14\.6146, and on the path FLOW"):
        run(karras(20), scale=LOG_SNR, path="FLOW")


def test_nothing_wired_is_said():
    with pytest.raises(ValueError, match="Plot Sigmas: sigmas has no schedule wired"):
        run()


# The process


def test_no_setting_of_matplotlib_is_touched(monkeypatch):
    import matplotlib

    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    # Read as a plain dict: asking for the setting `backend` in its own way would import pyplot.
    before = list(dict.items(matplotlib.rcParams))
    run(karras(20), exponential(20), scale=LOG_SNR)
    assert list(dict.items(matplotlib.rcParams)) == before
    assert "matplotlib.pyplot" not in sys.modules


def test_without_matplotlib_the_node_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match="python -m pip install matplotlib"):
        run(karras(20))
