"""Drawing images from a trained generator, and writing them as pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..models.mlp import Generator
from . import checkpoint, config
from .average import for_sampling
from .config import TrainConfig
from .trainer import make_generator

_GAP = 2
_GAP_BRIGHTNESS = 64


def load_generator(checkpoint_path: str | Path) -> tuple[Generator, TrainConfig, int]:
    """The generator of a run as it draws samples: in eval mode, with averaged weights if the run averages.

    Args:
        checkpoint_path: the run's checkpoint.pt.

    Returns:
        (generator on the CPU, the run's config, steps done).

    Raises:
        CheckpointError (a ValueError): not a whole checkpoint of this version.
        OSError: the file can't be opened.
    """
    path = Path(checkpoint_path)
    state = checkpoint.read(path)
    try:
        run = config.from_dict(state["config"])
        generator = make_generator(run)
        generator.load_state_dict(state["trainer"]["generator"])
        return for_sampling(generator, state["trainer"]["average"]), run, int(state["trainer"]["step"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise checkpoint.CheckpointError(f"{path}: got a checkpoint without a fitting generator ({error})") from error


@torch.no_grad()
def sample_images(generator: Generator, n: int, seed: int, batch_size: int = 500) -> Tensor:
    """Draw images; the same n and seed give the same noise on any device and for any batch size.

    Args:
        generator: in eval mode.
        n: how many, at least 1.
        seed: of the noise, N(0, 1).
        batch_size: how many at a time, at least 1.

    Returns:
        float32 [n, H, W] in [-1, 1] on the CPU.

    Raises:
        ValueError: n or batch_size below 1.
    """
    for name, value in (("n", n), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    noise = torch.randn(n, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    like = next(generator.parameters())
    images = [generator(part.to(like)).to("cpu", torch.float32) for part in noise.split(batch_size)]
    return torch.cat(images).unflatten(1, generator.image_shape)


def save_grid(images: Tensor, path: str | Path, columns: int = 10) -> None:
    """Write one PNG with the images in rows of `columns`, thin grey lines between them.

    Args:
        images: [n, H, W] in [-1, 1].
        path: a file; its folder is made.
        columns: images in a row, at least 1. The last row may be short.

    Raises:
        ValueError: no images, another shape, or columns below 1.
    """
    pixels = _to_bytes(images)
    if columns < 1:
        raise ValueError(f"columns: got {columns}, expected at least 1")
    n, height, width = pixels.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    canvas = torch.full(
        (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP), _GAP_BRIGHTNESS, dtype=torch.uint8
    )
    for index, image in enumerate(pixels):
        top = _GAP + index // columns * (height + _GAP)
        left = _GAP + index % columns * (width + _GAP)
        canvas[top : top + height, left : left + width] = image
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas.numpy()).save(path, format="PNG")


def save_folder(images: Tensor, folder: str | Path) -> None:
    """Write each image as its own PNG: 00000.png, 00001.png and so on.

    Args:
        images: [n, H, W] in [-1, 1].
        folder: made if need be.

    Raises:
        ValueError: no images, another shape, or a folder that isn't empty.
    """
    pixels = _to_bytes(images)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder}: got a folder that isn't empty, expected an empty or new one")
    for index, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(folder / f"{index:05d}.png", format="PNG")


def _to_bytes(images: Tensor) -> Tensor:
    if images.dim() != 3 or images.numel() == 0:
        raise ValueError(f"images: got shape {list(images.shape)}, expected [n, H, W] with n at least 1")
    return ((images.detach().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
