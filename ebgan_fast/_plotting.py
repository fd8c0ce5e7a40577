"""The look of all of the program's figures, whatever the user's own settings of matplotlib are."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ._environment import variables


def _load_matplotlib() -> None:
    """Import matplotlib, and let it have the environment's MPLBACKEND only where it takes it.

    Notebooks set it, for every process that they start, to a backend of their own. Where that isn't installed,
    matplotlib can't be imported.

    Raises:
        ImportError: there is no matplotlib, it finds no folder that it can write, or it can't read the user's settings.
    """
    if "matplotlib" in sys.modules:
        return
    named = os.environ.get("MPLBACKEND")
    try:
        with variables({"MPLBACKEND": None}), _no_matplotlibrc_of_this_folder():
            loaded = importlib.import_module("matplotlib")
        if named:
            with contextlib.suppress(ValueError):
                loaded.rcParams["backend"] = named  # as matplotlib does itself, when it is imported
    except OSError as error:
        raise ImportError(f"matplotlib can't be imported ({error}); MPLCONFIGDIR names its folder") from error
    except ValueError as error:
        raise ImportError(f"matplotlib can't be imported ({error}); MATPLOTLIBRC names its settings") from error


_OF_MATPLOTLIB = "MATPLOTLIBRC", "MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HOME"  # its files and folders


@contextlib.contextmanager
def _no_matplotlibrc_of_this_folder() -> Iterator[None]:
    """Import as from another folder where this one has settings for matplotlib.

    They may be anyone's, and matplotlib takes them before the user's own. A pipe there would keep every command
    waiting, and signs that move a cursor would reach the terminal.
    """
    if not os.path.lexists("matplotlibrc"):
        yield
        return
    here, paths = Path.cwd(), list(sys.path)
    named = {name: os.path.abspath(value) for name in _OF_MATPLOTLIB if (value := os.environ.get(name))}
    sys.path[:] = map(os.path.abspath, paths)
    os.chdir(Path(__file__).parent)
    try:
        with variables(named):
            yield
    finally:
        os.chdir(here)
        sys.path[:] = paths


_load_matplotlib()

import matplotlib  # noqa: E402  as above
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

__all__ = ["BLUE", "GRAY", "GREEN", "ORANGE", "Axes", "Figure", "dress", "in_house_style", "new_figure", "show_picture"]

# Colors told apart by color-blind readers (Okabe and Ito).
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#555555"

_Drawing = TypeVar("_Drawing", bound=Callable[..., object])


def in_house_style(draw: _Drawing) -> _Drawing:
    """Let a function draw by matplotlib's own defaults, not by the user's matplotlibrc.

    A setting there such as `text.usetex: True` ends a run on a machine without LaTeX.
    """
    style: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    return matplotlib.rc_context(style)(draw)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that needs no screen. Its functions are `in_house_style`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def show_picture(axes: Axes, picture: Image.Image | None) -> None:
    """Show a gray picture in place of a plot, and nothing where there is none."""
    axes.set_axis_off()
    if picture is not None:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)


def dress(axes: Axes, quantity: str) -> None:
    """Name the vertical axis, and leave only the lines that help to read it."""
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
