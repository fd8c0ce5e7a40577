"""How all of the program's curves look."""

from __future__ import annotations

from matplotlib.axes import Axes

# Colours told apart by colour-blind readers (Okabe and Ito).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


def dress(axes: Axes, quantity: str) -> None:
    """Name the vertical axis, and leave only the lines that help to read it."""
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
