"""A run's curves as pictures for a page."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .._plotting import BLUE, GREEN, GREY, ORANGE, dress
from .run_files import Line

# Name in the lines, label, colour.
_Curve = tuple[str, str, str]

_PANELS: tuple[tuple[str, tuple[_Curve, ...]], ...] = (
    ("loss", (("loss_d", "discriminator", BLUE), ("loss_g", "generator", ORANGE))),
    (
        "energy",
        (("energy_real", "real", BLUE), ("energy_fake", "generated", ORANGE), ("margin", "margin", GREY)),
    ),
    ("share of active hinges", (("hinge_active", "", GREEN),)),
    ("pulling-away term", (("pulling_away", "", GREEN),)),
    ("length of the gradient", (("grad_norm_d", "discriminator", BLUE), ("grad_norm_g", "generator", ORANGE))),
    ("images per second", (("images_per_s", "", GREEN),)),
)


def training_curves(lines: Sequence[Line]) -> bytes:
    """PNG of losses, energies with the margin, active hinges, pulling-away term, gradients and speed over the steps.

    Args:
        lines: of metrics.jsonl, at least one. What none of them tells gets no panel.
    """
    told = {name for line in lines for name in line}
    panels = [panel for panel in _PANELS if told.intersection(name for name, _, _ in panel[1])]
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(10, 2.8 * rows), layout="constrained")
    for place, (quantity, curves) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, 2, place)
        for name, label, colour in curves:
            _draw(axes, lines, "step", name, label, colour, "--" if name == "margin" else "-")
        _finish(axes, quantity, legend=len(curves) > 1)
        if place > len(panels) - 2:
            axes.set_xlabel("step")
    return _png(figure)


def score_curves(lines: Sequence[Line]) -> bytes:
    """PNG of the Frechet distance and KID over steps and over time.

    Args:
        lines: of scores.jsonl, at least one, all of one feature net.
    """
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    minutes = [{**line, "minutes": line["elapsed_s"] / 60} for line in lines]
    names = (("fd", lines[0]["features"], BLUE), ("kid", "KID", ORANGE))
    for row, (name, quantity, colour) in zip(figure.subplots(2, 2), names, strict=True):
        for axes, over in zip(row, ("step", "minutes"), strict=True):
            _draw(axes, minutes, over, name, "", colour, "-", marker="o")
            _finish(axes, quantity, legend=False)
            axes.set_xlabel(over)
    return _png(figure)


def _draw(
    axes: Axes,
    lines: Sequence[Line],
    over: str,
    name: str,
    label: str,
    colour: str,
    style: str,
    marker: str | None = None,
) -> None:
    points = [(line[over], line[name]) for line in lines if name in line]
    if points:
        alone = "o" if len(points) == 1 else marker
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.5, label=label, marker=alone)


def _finish(axes: Axes, quantity: str, *, legend: bool) -> None:
    dress(axes, quantity)
    if axes.dataLim.ymin >= 0:  # KID may be less: it is unbiased
        axes.set_ylim(bottom=0)
    if legend and axes.lines:
        axes.legend()


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()
