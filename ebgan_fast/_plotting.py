"""How all of the program's figures look."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Colours told apart by colour-blind readers (Okabe and Ito).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def show_picture(axes: Axes, path: Path) -> None:
    """Show a grey picture's file in place of a plot, and nothing where there is none."""
    axes.set_axis_off()
    if path.exists():
        with Image.open(path) as image:
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)


def dress(axes: Axes, quantity: str) -> None:
    """Name the vertical axis, and leave only the lines that help to read it."""
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
