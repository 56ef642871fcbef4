"""A picture of errors against model calls, both on logarithmic axes."""

from collections.abc import Mapping, Sequence

import numpy as np

from .drawing import COLOURS, GROUNDS, Look, line, points, styled

Curve = Sequence[tuple[int, float]]


def error_plot(
    curves: Mapping[str, Curve], beside: Mapping[str, Curve], band: tuple[float, float], look: Look
) -> np.ndarray:
    """`[height, width, 3]`, 0 to 255: a line for each named curve of (model calls, error), those `beside` it dashed,
    and the band of errors from which an order is read."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, (axis,) = styled(look, 1)
    ink = GROUNDS[look.theme][1]
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.axhspan(*sorted(band), color=ink, alpha=0.05, linewidth=0)
    width, colours = line(look), COLOURS[look.theme]
    for known, dashes in ((curves, "solid"), (beside, (0, (3, 2)))):
        for number, (name, curve) in enumerate(known.items()):
            seen = [(calls, error) for calls, error in curve if calls > 0 and 0.0 < error < np.inf]
            calls, errors = zip(*seen, strict=True) if seen else ((), ())
            axis.plot(
                calls,
                errors,
                label=name,
                color=colours[number % len(colours)],
                linestyle=dashes,
                linewidth=width,
                marker="os"[number % 2] if dashes == "solid" else "",
                markersize=2.2 * width,
                alpha=1.0 if dashes == "solid" else 0.7,
            )
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    text = {"color": ink, "fontsize": points(look) * 1.05}
    axis.set_xlabel("model calls", labelpad=1, **text)
    axis.set_ylabel("error", **text)
    legend = axis.legend(frameon=False, fontsize=points(look), labelcolor=ink, loc="lower left")
    for each in legend.get_texts():
        each.set_parse_math(False)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
