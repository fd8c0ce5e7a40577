"""A picture of the ratios: one panel per dtype and setting, one pair of bars per case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .rows import Row

_BAR = 0.38  # of the distance between two cases
_PROVIDERS = (("eager", "#3b6ea8"), ("torch.compile", "#e0923a"))
_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200)
_WORDS = {
    "discriminator_loss": "discriminator",
    "generator_loss": "generator",
    "reconstruction_energy": "energy",
    "hinge_margin_loss": "hinge",
    "pulling_away_term": "pulling-away",
}


def _ratios(row: Row) -> tuple[tuple[float | None, float | None], ...]:
    return (row.ratio_eager, row.target_eager), (row.ratio_compile, row.target_compile)


def _label(row: Row) -> str:
    return f"{_WORDS.get(row.op, row.op)}  {row.shape}"


def _panel(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    for row in rows:
        for index, (ratio, target) in enumerate(_ratios(row)):
            if ratio is None:
                continue
            height = names.index(_label(row)) + (index - 0.5) * _BAR
            axes.barh(height, ratio - 1, _BAR, left=1, color=_PROVIDERS[index][1])
            axes.annotate(
                f"{ratio:.1f}x" if ratio < 10 else f"{ratio:.0f}x",
                (max(ratio, target or 0, 1), height),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
            if target is not None:
                axes.plot([target, target], [height - _BAR / 2, height + _BAR / 2], color="black", linewidth=1.5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_title(f"{rows[0].dtype}, {rows[0].setting}", fontsize=10)


def _axis(axes: Axes, rows: Sequence[Row]) -> None:
    known = [value for row in rows for pair in _ratios(row) for value in pair if value is not None]
    axes.set_xscale("log")
    axes.set_xlim(min(0.9, 0.8 * min(known)), 1.7 * max(known))
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.grid(axis="x", color="0.88")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8.5)


def plot(rows: Sequence[Row], out: Path) -> None:
    """Write the picture. Raises ValueError when no row has a ratio or the file's ending isn't a picture's."""
    rows = [row for row in rows if any(ratio is not None for ratio, _ in _ratios(row))]
    if not rows:
        raise ValueError("got no row with a ratio, expected at least one")
    names = list(dict.fromkeys(map(_label, rows)))
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        panels.setdefault((row.dtype, row.setting), []).append(row)
    figure, grid = plt.subplots(
        1, len(panels), figsize=(2.4 + 4.2 * len(panels), 1.4 + 0.36 * len(names)), sharey=True, squeeze=False
    )
    for axes, group in zip(grid[0], panels.values(), strict=True):
        _panel(axes, group, names)
        _axis(axes, rows)
    grid[0][0].set_yticks(range(len(names)), names)
    grid[0][0].set_ylim(len(names) - 0.5, -0.5)  # the first case on top
    handles: list[Artist] = [plt.Rectangle((0, 0), 1, 1, color=colour) for _, colour in _PROVIDERS]
    labels = [f"against {name}" for name, _ in _PROVIDERS]
    if any(target is not None for row in rows for _, target in _ratios(row)):
        handles.append(plt.Line2D([], [], color="black", linewidth=1.5, marker="|", linestyle="none", markersize=9))
        labels.append("target")
    figure.suptitle("How many times as fast ebgan_fast is, forward + backward", fontsize=11)
    machine = f"{rows[0].processor}, {rows[0].isa}, torch {rows[0].versions['torch']}"
    figure.text(0.5, 0.06 / figure.get_figheight(), machine, ha="center", va="bottom", fontsize=7.5, color="0.4")
    figure.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.2 / figure.get_figheight()),
        ncols=len(labels),
        frameon=False,
        fontsize=8.5,
    )
    figure.tight_layout(rect=(0, 0.5 / figure.get_figheight(), 1, 1))
    figure.savefig(out, dpi=150)
    plt.close(figure)
