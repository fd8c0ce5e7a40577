"""A run's metrics as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from .._plotting import BLUE, GREEN, GREY, ORANGE, dress, new_figure


def save_curves(lines: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw losses, energies with the margin, share of active hinges and pulling-away term over the steps.

    Args:
        lines: the lines of metrics.jsonl, at least one.
        path: a PNG file to write.
        title: above the four panels.
    """
    figure = new_figure(10, 6.5)
    figure.suptitle(title)
    losses, energies, hinges, pulling_away = figure.subplots(2, 2, sharex=True).flat
    _plot(losses, lines, "loss", [("loss_d", "discriminator", BLUE), ("loss_g", "generator", ORANGE)])
    _plot(
        energies,
        lines,
        "energy",
        [("energy_real", "real", BLUE), ("energy_fake", "generated", ORANGE)],
    )
    energies.plot(*_series(lines, "margin"), color=GREY, linestyle="--", linewidth=1, label="margin")
    energies.legend()
    for unbounded in (losses, energies):  # once everything is drawn, as it ends the scaling of the axis
        unbounded.set_ylim(bottom=0)
    _plot(hinges, lines, "share of active hinges", [("hinge_active", "", GREEN)])
    _plot(pulling_away, lines, "pulling-away term", [("pulling_away", "", GREEN)])
    for share in (hinges, pulling_away):
        share.set_ylim(0, 1.02)
        share.set_xlabel("step")
    figure.savefig(path, dpi=110, format="png")


def _series(lines: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    return [line["step"] for line in lines], [line[name] for line in lines]


def _plot(axes: Axes, lines: Sequence[dict[str, Any]], quantity: str, curves: Sequence[tuple[str, str, str]]) -> None:
    marker = "o" if len(lines) == 1 else None  # a line of one point is invisible
    for name, label, color in curves:
        axes.plot(*_series(lines, name), color=color, linewidth=1.5, marker=marker, label=label)
    dress(axes, quantity)
    if len(curves) > 1:
        axes.legend()
