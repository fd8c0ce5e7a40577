"""Pictures of rows: bars of ratios, of call times and of memory, and curves over sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ebgan_fast._plotting import BLUE, GRAY, GREEN, ORANGE, new_figure

from ..results.provenance import Processor, titles
from ..results.rows import (
    COMPILE,
    EAGER,
    PACKAGE,
    REFERENCE,
    CaseResult,
    LatencyRow,
    MemoryRow,
    Result,
    Row,
    ScalingRow,
    Spread,
    kind_of,
)
from ..subjects.calls import BOTH
from .tables import curves, exponent, names, times

_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_WIDE_TICKS = (0.1, 1, 10, 100, 1000, 10000)
_COLORS = {PACKAGE: BLUE, EAGER: ORANGE, COMPILE: GREEN, REFERENCE: "#CC79A7", "F.mse_loss": "#56B4E9"}
# Colors of providers that have no color of their own, in turn.
_MORE = ("#E69F00", "#B8A800", "#999999", "#000000")
_WORDS = {
    "discriminator_loss": "discriminator",
    "generator_loss": "generator",
    "reconstruction_energy": "energy",
    "hinge_margin_loss": "hinge",
    "pulling_away_term": "pulling-away",
}
HEADLINE = (EAGER, COMPILE)


def draw(rows: Sequence[Result]) -> Figure:
    """Return the picture of one command's rows.

    Args:
        rows: The rows.

    Raises:
        ValueError: The rows are of several commands, or of a command without a picture, or hold nothing to draw.
    """
    kinds: dict[type[Result], Callable[..., Figure]] = {
        Row: ratios,
        LatencyRow: call_times,
        MemoryRow: peaks,
        ScalingRow: growth,
    }
    kind = kind_of(rows)
    if kind not in kinds:
        raise ValueError(f"got rows of {kind.kind}, which have no picture: python -m bench show prints them")
    return kinds[kind](rows)


def save(figure: Figure, out: Path) -> None:
    """Save a picture as PNG, SVG, PDF or WebP, by the file's ending. Raises ValueError for another ending."""
    figure.savefig(out, dpi=150)


def _color(providers: Sequence[str], provider: str) -> str:
    others = [name for name in providers if name not in _COLORS]
    return _COLORS[provider] if provider in _COLORS else _MORE[others.index(provider) % len(_MORE)]


def _label(row: CaseResult) -> str:
    return f"{_WORDS.get(row.op, row.op)}  {row.shape}"


Bar = tuple[float, float, float]
"""The low end of the whisker, the end of the bar, and the high end of the whisker."""
Bars = Mapping[tuple[str, str], Bar]
"""The bars of a panel, by case and provider."""
Panel = tuple[str, str]
"""The title of a panel: a processor's name and a setting."""


@dataclass(frozen=True)
class _Chart:
    """A chart of bars, with a panel for each processor's settings, a group for each case, a bar for each provider."""

    title: str
    rows: Sequence[CaseResult]
    providers: Sequence[str]
    panels: Mapping[Panel, Bars]
    unit: str
    word: Callable[[float], str]
    """Returns the number of a bar as text."""

    def draw(self) -> Figure:
        """Return the picture."""
        groups = self._groups()
        heights = {key: y for keys in groups.values() for key, y in keys.items()}
        known = [value for bars in self.panels.values() for bar in bars.values() for value in bar]
        processors, settings = (names([panel[part]] for panel in self.panels) for part in (0, 1))
        several = len(processors) > 1
        # The panels of one processor form one line. Several processors form columns, with a line for each setting.
        places = [list(product(processors, [one])) for one in settings] if several else [list(self.panels)]
        down, across = len(places), len(places[0])
        wide = 4.2 if across < 3 else 2.9  # a picture on a page is as wide as the page
        figure = new_figure(2.4 + wide * across, 1.1 + down * (0.4 + 0.16 * (max(heights.values()) + 2)))
        grid = figure.subplots(down, across, sharey=True, squeeze=False)
        for axes, panel in zip(grid.flat, chain.from_iterable(places), strict=True):
            if panel not in self.panels:
                axes.set_axis_off()
                continue
            for key, bar in self.panels[panel].items():
                self._bar(axes, heights[key], key[1], bar)
            axes.set_title("\n".join(panel) if several else panel[1], fontsize=10)
            _logarithmic(axes, known, self.unit)
        grid[0, 0].set_yticks([sum(keys.values()) / len(keys) for keys in groups.values()], list(groups))
        grid[0, 0].set_ylim(max(heights.values()) + 1, -1)  # the first case on top
        return _finish(figure, self.title, self.rows, _keys(self.providers), self.providers)

    def _groups(self) -> dict[str, dict[tuple[str, str], float]]:
        """Return the height of each bar, by case. The bars of a case touch, and there is a gap between two cases."""
        present = {key for bars in self.panels.values() for key in bars}
        found: dict[str, dict[tuple[str, str], float]] = {}
        y = 0.0
        for label in names([_label(row)] for row in self.rows):
            for provider in self.providers:
                if (label, provider) in present:
                    found.setdefault(label, {})[label, provider] = y
                    y += 1
            y += 0.7
        return found

    def _bar(self, axes: Axes, y: float, provider: str, bar: Bar) -> None:
        """Draw a bar with its whisker, and its number behind both."""
        low, end, high = bar
        axes.barh(y, end - 1, 1, left=1, color=_color(self.providers, provider))
        axes.plot([low, high], [y, y], color=GRAY, linewidth=1)
        axes.annotate(
            self.word(end),
            (max(1, high), y),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )


def _logarithmic(axes: Axes, values: Iterable[float], unit: str) -> None:
    known = list(values)
    axes.set_xscale("log")
    axes.set_xlim(min(0.9, 0.8 * min(known)), 2.4 * max(known))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.xaxis.set_major_locator(FixedLocator(_WIDE_TICKS if max(known) > 300 * min(known) else _TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    axes.grid(axis="x", color="0.88")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelsize=8.5)


def _keys(providers: Sequence[str]) -> list[Artist]:
    return [Rectangle((0, 0), 1, 1, color=_color(providers, name)) for name in providers]


def _finish(
    figure: Figure, title: str, rows: Sequence[Result], handles: Sequence[Artist], words: Sequence[str]
) -> Figure:
    figure.suptitle(title, fontsize=11)
    machines = names(
        [f"{row.processor}, {row.isa}, torch {row.versions['torch']}, {(row.run or row.date)[:10]}"] for row in rows
    )
    legend = figure.legend(
        handles,
        words,
        loc="outside lower center",
        ncols=min(len(words), 4),
        frameon=False,
        fontsize=8.5,
        title="\n".join(machines),
        title_fontsize=7.5,
    )
    legend.get_title().set(color="0.4", multialignment="center")
    return figure


def ratios(rows: Sequence[Row], providers: Sequence[str] = HEADLINE) -> Figure:
    """Draw the providers' times in multiples of ebgan_fast's, with a panel for each processor, dtype and setting.

    Args:
        rows: The rows.
        providers: The providers.

    Raises:
        ValueError: No row has a ratio to a provider.
    """
    kept = [row for row in rows if any(name in row.ratio for name in providers)]
    if not kept:
        raise ValueError(f"got no row with a ratio to {' or '.join(providers)}, expected at least one")
    processors = titles(map(Processor.of, kept))
    panels: dict[Panel, dict[tuple[str, str], Bar]] = {}
    for row in kept:
        panel = processors[Processor.of(row)], f"{row.dtype}, {row.setting}"
        for name in providers:
            if name in row.ratio:
                panels.setdefault(panel, {})[_label(row), name] = row.ratio[name]
    title = "Times of others in multiples of ebgan_fast's, forward + backward"
    return _Chart(title, kept, providers, panels, "x", times).draw()


def call_times(rows: Sequence[LatencyRow]) -> Figure:
    """Draw the microseconds of a call, with a panel for each processor and mode."""
    processors = titles(map(Processor.of, rows))
    panels: dict[Panel, dict[tuple[str, str], Bar]] = {}
    for row in rows:
        bars = panels.setdefault((processors[Processor.of(row)], f"{row.mode}, {row.setting}"), {})
        for name, (low, median, high) in row.seconds.items():
            bars[_label(row), name] = (1e6 * low, 1e6 * median, 1e6 * high)
    providers = names(row.seconds for row in rows)
    title = "Microseconds a call on 8 samples of 16 numbers"
    return _Chart(title, rows, providers, panels, "", lambda value: f"{value:.0f}").draw()


def peaks(rows: Sequence[MemoryRow]) -> Figure:
    """Draw the peak memory in multiples of the gradients, of one processor's rows."""
    bars: dict[tuple[str, str], Bar] = {}
    for row in rows:
        for name, peak in row.peak.items():
            share = peak / row.gradients
            bars[_label(row), name] = (share, share, share)
    providers = names(row.peak for row in rows)
    title = "Peak memory beyond the inputs, in multiples of the gradients"
    return _Chart(title, rows, providers, {(rows[0].processor, BOTH): bars}, "x", times).draw()


def growth(rows: Sequence[ScalingRow]) -> Figure:
    """Draw milliseconds over sizes, a panel for each curve of each processor, with the expected slope."""
    processors = titles(map(Processor.of, rows))
    found = {one: curves([row for row in rows if Processor.of(row) == one]) for one in processors}
    most = max(map(len, found.values()))
    across = min(4, most)
    down = -(-most // across)
    high = 3.0 * down + (0.3 if len(found) > 1 else 0)
    figure = new_figure(3.3 * across, high * len(found) + 0.6)
    alike: dict[tuple[str, str, str], list[Axes]] = {}
    blocks = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    for block, (processor, panels) in zip(blocks, found.items(), strict=True):
        if len(found) > 1:
            block.suptitle(processors[processor], fontsize=10, fontweight="bold")
        grid = list(block.subplots(down, across, squeeze=False).flat)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        for axes, (curve, points) in zip(grid, panels.items(), strict=False):
            _panel(axes, curve, points)
            alike.setdefault(curve, []).append(axes)
    for panels_of_curve in alike.values():  # all processors share one scale, which holds all curves
        lows, highs = zip(*(axes.get_ylim() for axes in panels_of_curve), strict=True)
        for axes in panels_of_curve:
            axes.set_ylim(min(lows), max(highs))
    handles = [*_keys((PACKAGE, EAGER)), Line2D([], [], color=GRAY, linestyle="--", linewidth=1)]
    words = [PACKAGE, EAGER, "expected slope"]
    return _finish(figure, "Time over size, with the exponent over the last three", rows, handles, words)


def _panel(axes: Axes, curve: tuple[str, str, str], points: Sequence[ScalingRow]) -> None:
    op, axis, fixed = curve
    for name in (PACKAGE, EAGER):
        here = [(row.value, row.seconds[name]) for row in points if name in row.seconds]
        if here:
            _curve(axes, here, points[0].expected[name], _COLORS[name])
    axes.set_title(f"{_WORDS.get(op, op)}, {fixed}", fontsize=9)
    axes.set_xlabel(axis, fontsize=8.5)
    axes.set_ylabel("ms", fontsize=8.5)
    axes.tick_params(labelsize=7.5)
    axes.grid(alpha=0.25)
    axes.margins(y=0.12)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([row.value for row in points], [str(row.value) for row in points])
    first, last = points[0].value, points[-1].value
    if last > first:
        span = last / first
        axes.set_xlim(first * span**-0.05, last * span**0.18)  # room for the exponents after the last point


def _curve(axes: Axes, here: Sequence[tuple[int, Spread]], expected: float, color: str) -> None:
    sizes = [size for size, _ in here]
    low, middle, high = ([1e3 * seconds[index] for _, seconds in here] for index in range(3))
    anchor = -1 if expected > 0 else 0  # through the point of the largest size, or of one thread
    slope = [middle[anchor] * (size / sizes[anchor]) ** expected for size in sizes]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot(sizes, slope, color=GRAY, linestyle="--", linewidth=1)
    axes.fill_between(sizes, low, high, color=color, alpha=0.25, linewidth=0)
    axes.plot(sizes, middle, color=color, marker="o", markersize=3, linewidth=1.3)
    if len(here) > 1:
        label = f"{exponent(list(zip(sizes, middle, strict=True))):.2f}"
        at, where = (sizes[-1], middle[-1]), (5, 0)
        axes.annotate(label, at, xytext=where, textcoords="offset points", fontsize=7.5, va="center", color=color)
