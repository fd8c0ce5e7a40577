"""The style of all figures of the program, independent of the user's settings of matplotlib."""

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
    """Import matplotlib, and use the environment's MPLBACKEND only if matplotlib accepts it.

    A notebook sets MPLBACKEND to its own backend for every process that it starts. If that backend isn't installed, the
    import of matplotlib would fail.

    Raises:
        ImportError: if matplotlib isn't installed, finds no folder that it can write, or can't read the user's
            settings.
    """
    if "matplotlib" in sys.modules:
        return
    named = os.environ.get("MPLBACKEND")
    try:
        with variables({"MPLBACKEND": None}), _no_matplotlibrc_of_this_folder():
            loaded = importlib.import_module("matplotlib")
        if named:
            with contextlib.suppress(ValueError):
                loaded.rcParams["backend"] = named  # matplotlib does this itself on import
    except OSError as error:
        raise ImportError(f"matplotlib can't be imported ({error}); MPLCONFIGDIR names its folder") from error
    except ValueError as error:
        raise ImportError(f"matplotlib can't be imported ({error}); MATPLOTLIBRC names its settings") from error


_OF_MATPLOTLIB = "MATPLOTLIBRC", "MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HOME"  # its files and folders


@contextlib.contextmanager
def _no_matplotlibrc_of_this_folder() -> Iterator[None]:
    """Run the block in another working directory if this one has a file matplotlibrc.

    matplotlib prefers a matplotlibrc of the working directory to the user's own, and anyone may have put it there. A
    pipe of that name would make every command wait, and its text could send control characters to the terminal.
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

import matplotlib  # noqa: E402  after _load_matplotlib
import numpy as np  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402

__all__ = [
    "BLUE",
    "GRAY",
    "GREEN",
    "ORANGE",
    "PURPLE",
    "Axes",
    "Figure",
    "color_map",
    "dress",
    "in_house_style",
    "new_figure",
    "show_picture",
]

# Colors that color-blind readers can distinguish (Okabe and Ito).
BLUE, ORANGE, GREEN, PURPLE, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#555555"

_Drawing = TypeVar("_Drawing", bound=Callable[..., object])


def in_house_style(draw: _Drawing) -> _Drawing:
    """Make a function draw with matplotlib's defaults, not with the user's matplotlibrc.

    A setting such as `text.usetex: True` would end a run on a machine without LaTeX.
    """
    style: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    return matplotlib.rc_context(style)(draw)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its size in inches, that needs no screen. Draw on it in `in_house_style` functions."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def color_map(name: str) -> NDArray[np.uint8]:
    """Return the 256 colors of one of matplotlib's color maps, uint8 [256, 3]."""
    colors = matplotlib.colormaps[name](np.arange(256))[:, :3]
    return np.round(colors * 255).astype(np.uint8)


def show_picture(axes: Axes, picture: Image.Image | None) -> None:
    """Show a gray picture instead of axes, or only hide the axes if there is no picture."""
    axes.set_axis_off()
    if picture is not None:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)


def dress(axes: Axes, quantity: str) -> None:
    """Label the vertical axis, add a faint grid, and remove the top and right borders."""
    axes.set_ylabel(quantity)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
