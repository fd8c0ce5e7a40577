"""Pictures that tell more of a generator than a grid: ways between samples, and samples beside what they resemble."""

from __future__ import annotations

from pathlib import Path

import torch

from .._progress import Progress
from ..data.pixels import to_pixels, to_signed_unit
from ..metrics.neighbours import neighbour_rows
from ..models.families import AnyGenerator
from ..models.interpolation import spherical_interpolation
from .evaluation import Evaluator
from .samples import images_of, sample_images, save_grid

_SAMPLES = 8
_NEIGHBOURS = 5


def draw_interpolation(generator: AnyGenerator, path: Path, *, rows: int, columns: int, seed: int) -> None:
    """A PNG whose every row goes from one point of the noise to another.

    Args:
        generator: in eval mode.
        path: the file.
        rows: ways.
        columns: images on each, at least 2.
        seed: of the noise.
    """
    ends = torch.randn(2, rows, generator.noise_size, generator=torch.Generator().manual_seed(seed))
    points = spherical_interpolation(ends[0], ends[1], columns)
    save_grid(images_of(generator, points.flatten(0, 1)), path, columns)


def draw_neighbours(
    evaluator: Evaluator, generator: AnyGenerator, path: Path, *, seed: int, progress: Progress | None = None
) -> None:
    """A PNG with eight samples in the first column, each before the five training images whose features are nearest.

    Args:
        evaluator: of the training images.
        generator: in eval mode.
        path: the file.
        seed: of the noise.
        progress: told how far the training images' features are, as (share done, text).
    """
    samples = to_pixels(sample_images(generator, _SAMPLES, seed))
    rows = neighbour_rows(evaluator.scorer, samples, _NEIGHBOURS, progress)
    save_grid(to_signed_unit(rows), path, len(rows) // _SAMPLES)
