"""Pictures of a run: grids and folders of images, interpolations, nearest training images, and curves."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .._console import shortened
from .._files import naming, replacing
from .._plotting import BLUE, GRAY, GREEN, ORANGE, Axes, Figure, dress, in_house_style, new_figure
from .._progress import Progress
from .._settings import FINITE
from ..data.pixels import to_pixels, to_signed_unit
from ..metrics.image_scorer import ImageScorer
from ..metrics.neighbors import neighbor_rows
from ..models.families import AnyGenerator
from ..models.interpolation import spherical_interpolation
from .run.lines import Line
from .sampling import images_of, sample_images

_GAP = 2
_GAP_BRIGHTNESS = 64

_SAMPLES = 8
_NEIGHBORS = 5

_NO_IMAGES = "images: got none, expected at least one"


def save_grid(images: Tensor | Iterable[Tensor], path: str | Path, columns: int = 10) -> None:
    """Write one PNG with the images in rows of `columns`, separated by thin gray lines.

    Args:
        images: [n, C, H, W] in [-1, 1] with C = 1 (gray) or 3 (RGB), or an iterable of such batches.
        path: the PNG file. Its folder is created.
        columns: the number of images in a row, at least 1. The last row may be shorter.

    Raises:
        ValueError: there are no images, they have another shape, or `columns` is below 1.

    Example:
        >>> import torch
        >>> from PIL import Image
        >>> from ebgan_fast.training import save_grid
        >>> save_grid(torch.zeros(6, 1, 28, 28), "grid.png", columns=3)
        >>> Image.open("grid.png").size  # 3 x 28 + 4 x 2 pixels, 2 x 28 + 3 x 2 pixels
        (92, 62)
    """
    if columns < 1:
        raise ValueError(f"columns: got {columns}, expected at least 1")
    batches = list(_to_bytes(images))
    if not batches:
        raise ValueError(_NO_IMAGES)
    pixels = torch.cat(batches)
    n, height, width, channels = pixels.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    size = (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels)
    canvas = torch.full(size, _GAP_BRIGHTNESS, dtype=torch.uint8)
    for index, image in enumerate(pixels):
        top = _GAP + index // columns * (height + _GAP)
        left = _GAP + index % columns * (width + _GAP)
        canvas[top : top + height, left : left + width] = image
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        _picture(canvas).save(file, format="PNG")


def save_folder(images: Tensor | Iterable[Tensor], folder: str | Path) -> None:
    """Write each image as a PNG file of its own: 00000.png, 00001.png and so on.

    Args:
        images: [n, C, H, W] in [-1, 1] with C = 1 (gray) or 3 (RGB), or an iterable of such batches. Each batch is
            written before the next one is taken.
        folder: the folder, which is created if it isn't there.

    Raises:
        ValueError: there are no images, they have another shape, `folder` is a file, or the folder isn't empty.

    Example:
        >>> import os
        >>> import torch
        >>> from ebgan_fast.training import save_folder
        >>> save_folder(torch.zeros(3, 3, 64, 64), "samples")
        >>> sorted(os.listdir("samples"))
        ['00000.png', '00001.png', '00002.png']
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"{folder}: got a file that exists, expected a new folder, or a name ending in .png for a grid"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: got a folder that isn't empty, expected an empty or new one")
    index = 0
    for pixels in _to_bytes(images):
        folder.mkdir(parents=True, exist_ok=True)
        for image in pixels:
            path = folder / f"{index:05d}.png"
            with naming(path):
                _picture(image).save(path, format="PNG")
            index += 1
    if index == 0:
        raise ValueError(_NO_IMAGES)


def _to_bytes(images: Tensor | Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the pixels of each batch, uint8 [n, H, W, C]."""
    for batch in [images] if isinstance(images, Tensor) else images:
        if batch.dim() != 4 or batch.shape[1] not in (1, 3) or batch.numel() == 0:
            raise ValueError(
                f"images: got shape {list(batch.shape)}, expected [n, C, H, W] with n at least 1 and C of 1 or 3"
            )
        yield to_pixels(batch.detach().cpu()).permute(0, 2, 3, 1)


def _picture(pixels: Tensor) -> Image.Image:
    """Return the picture that has these pixels, uint8 [H, W, C]."""
    return Image.fromarray((pixels[..., 0] if pixels.shape[-1] == 1 else pixels).numpy())


def draw_interpolation(generator: AnyGenerator, path: Path, *, rows: int, columns: int, seed: int) -> None:
    """Draw a PNG in which each row goes from one noise vector to another.

    Args:
        generator: a generator in eval mode.
        path: the PNG file.
        rows: the number of rows.
        columns: the number of images in a row, at least 2.
        seed: the seed of the noise.
    """
    ends = torch.randn(2, rows, generator.noise_size, generator=torch.Generator().manual_seed(seed))
    points = spherical_interpolation(ends[0], ends[1], columns)
    save_grid(images_of(generator, points.flatten(0, 1)), path, columns)


def draw_neighbors(
    scorer: ImageScorer, generator: AnyGenerator, path: Path, *, seed: int, progress: Progress | None = None
) -> None:
    """Draw a PNG of eight rows: a sample, then the five training images whose features are nearest to the sample's.

    Args:
        scorer: a scorer for the training images.
        generator: a generator in eval mode.
        path: the PNG file.
        seed: the seed of the noise.
        progress: called with (share done, text) while the features of the training images are computed.
    """
    samples = to_pixels(sample_images(generator, _SAMPLES, seed))
    rows = neighbor_rows(scorer, samples, _NEIGHBORS, progress)
    save_grid(to_signed_unit(rows), path, len(rows) // _SAMPLES)


# Larger numbers make matplotlib's limits and ticks overflow.
_LARGEST = 1e300
_LONGEST_WORDS = 80  # characters; drawing one takes a millisecond

# The name of the field in a line, the label in the legend, and the color.
_Curve = tuple[str, str, str]

_PANELS: tuple[tuple[str, tuple[_Curve, ...]], ...] = (
    ("loss", (("loss_d", "discriminator", BLUE), ("loss_g", "generator", ORANGE))),
    (
        "energy",
        (("energy_real", "real", BLUE), ("energy_fake", "generated", ORANGE), ("margin", "margin", GRAY)),
    ),
    ("share of active hinges", (("hinge_active", "", GREEN),)),
    ("pulling-away term", (("pulling_away", "", GREEN),)),
    ("length of the gradient", (("grad_norm_d", "discriminator", BLUE), ("grad_norm_g", "generator", ORANGE))),
    ("images per second", (("images_per_s", "", GREEN),)),
)


@in_house_style
def training_curves(lines: Sequence[Line], title: str = "") -> bytes:
    """Return a PNG of the losses, energies, margin, active hinges, pulling-away term, gradients and speed over the
    steps.

    Args:
        lines: the lines of metrics.jsonl, at least one. A quantity that no line has gets no panel. A value that isn't a
            finite number gets no point.
        title: the title above the panels; any text.
    """
    told = {name for line in lines for name in line}
    panels = [panel for panel in _PANELS if told.intersection(name for name, _, _ in panel[1])]
    rows = -(-len(panels) // 2)
    figure = new_figure(10, 2.8 * rows)
    if title:
        figure.suptitle(_words(title))
    for place, (quantity, curves) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, 2, place)
        for name, label, color in curves:
            _draw(axes, lines, "step", name, label, color, "--" if name == "margin" else "-")
        _finish(axes, quantity, legend=len(curves) > 1)
        if place > len(panels) - 2:
            axes.set_xlabel("step")
    return _png(figure)


def save_curves(lines: Sequence[Line], path: Path, title: str) -> None:
    """Write the PNG of `training_curves` to a file."""
    with replacing(path) as file:
        file.write(training_curves(lines, title))


@in_house_style
def score_curves(lines: Sequence[Line]) -> bytes:
    """Return a PNG of the Frechet distance and the KID over the steps and over the time.

    Args:
        lines: the lines of scores.jsonl, at least one, all of one feature network. The network's name may be any text.
    """
    figure = new_figure(10, 5.6)
    minutes = [{**line, "minutes": line["elapsed_s"] / 60} for line in lines]
    names = (("fd", _words(lines[0]["features"]), BLUE), ("kid", "KID", ORANGE))
    for row, (name, quantity, color) in zip(figure.subplots(2, 2), names, strict=True):
        for axes, over in zip(row, ("step", "minutes"), strict=True):
            _draw(axes, minutes, over, name, "", color, "-", marker="o")
            _finish(axes, quantity, legend=False)
            axes.set_xlabel(over)
    return _png(figure)


def _draw(
    axes: Axes,
    lines: Sequence[Line],
    over: str,
    name: str,
    label: str,
    color: str,
    style: str,
    marker: str | None = None,
) -> None:
    points = [(_drawable(line[over]), _drawable(line[name])) for line in lines if name in line]
    if points:
        alone = "o" if sum(not math.isnan(height) for _, height in points) == 1 else marker
        axes.plot(*zip(*points, strict=True), color=color, linestyle=style, linewidth=1.5, label=label, marker=alone)


def _drawable(value: object) -> float:
    """Return the value as a float, or NaN if it can't be drawn. NaN leaves a gap in a curve."""
    number = float(value) if isinstance(value, (int, float)) and FINITE.holds(value) else math.nan
    return number if abs(number) <= _LARGEST else math.nan


def _words(text: str) -> str:
    """Return a text that matplotlib can draw: short, without characters that no font has, and not read as a formula."""
    return shortened(text, _LONGEST_WORDS).replace("$", r"\$")


def _finish(axes: Axes, quantity: str, *, legend: bool) -> None:
    dress(axes, quantity)
    if axes.dataLim.ymin >= 0:  # KID may be below 0, because it is unbiased
        axes.set_ylim(bottom=0)
    if legend and axes.lines:
        axes.legend()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()
