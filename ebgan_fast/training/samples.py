"""Drawing images from a trained generator, and writing them as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from .._files import naming
from ..data.pixels import to_pixels
from ..metrics.batches import most_at_once
from ..models.families import AnyGenerator
from . import checkpoint, config_file
from .average import for_sampling
from .config import TrainConfig

_MOST_ON_GPU, _MOST = 500, 250  # images at a time
_PIXEL_BYTES = 1024  # of memory for each pixel drawn: the last layers' 64 to 128 maps, some three at a time

_GAP = 2
_GAP_BRIGHTNESS = 64


class LoadedGenerator(NamedTuple):
    """A generator from a checkpoint, and the run that it is of. Unpacks to (generator, config, step).

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.models import Generator
        >>> from ebgan_fast.training import LoadedGenerator, TrainConfig
        >>> loaded = LoadedGenerator(  # as load_generator returns it
        ...     Generator(z_dim=100, n_layer=3, size=32).eval(), TrainConfig(out=Path("runs/first")), step=4000
        ... )
        >>> loaded.config.margin, loaded.step
        (10.0, 4000)
        >>> generator, config, step = loaded
        >>> generator.image_shape
        (1, 32, 32)
    """

    generator: AnyGenerator
    """The network that draws: in eval mode, with averaged weights if the run averages."""
    config: TrainConfig
    """The config of the run."""
    step: int
    """The steps that the run had done."""


def load_generator(checkpoint_path: str | Path, device: torch.device | str = "cpu") -> LoadedGenerator:
    """Load the generator of a run as it draws samples: in eval mode, with averaged weights if the run averages.

    Args:
        checkpoint_path: the run's checkpoint.pt.
        device: where the generator is wanted, whatever device trained it.

    Returns:
        The generator, the run's config and the steps done, by these names or unpacked.

    Raises:
        CheckpointError (a ValueError): not a whole checkpoint of this version.
        ValueError: the device lacks the memory.
        OSError: the file can't be opened.

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.models import Mlp
        >>> from ebgan_fast.training import TrainConfig, load_generator, sample_images, train
        >>> config = TrainConfig(out=Path("runs/first"), steps=2, networks=Mlp(size_g=32, size_d=32), device="cpu")
        >>> result = train(config)  # doctest: +ELLIPSIS
        step 2 of 2  loss D ...
        done: 2 steps in ...
        >>> loaded = load_generator(result.folder / "checkpoint.pt")
        >>> loaded.step
        2
        >>> sample_images(loaded.generator, n=16, seed=0).shape
        torch.Size([16, 1, 32, 32])
    """
    path = Path(checkpoint_path)
    state = checkpoint.read(path)
    try:
        run = config_file.from_dict(state["config"])
        generator = run.networks.generator(tuple(state["image_shape"]))
        generator.load_state_dict(state["trainer"]["generator"])
        average, step = state["trainer"]["average"], int(state["trainer"]["step"])
        if average is not None:
            # Into the parameters here, where a misfit is the checkpoint's fault and nothing else is.
            with torch.no_grad():
                for mine, given in zip(generator.parameters(), average, strict=True):
                    mine.copy_(given)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise checkpoint.CheckpointError(f"{path}: got a checkpoint without a fitting generator ({error})") from error
    try:
        return LoadedGenerator(for_sampling(generator.to(device)), run, step)
    except torch.OutOfMemoryError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: got too little memory on {device} for the generator ({reason}), expected more: "
            "--device cpu does without the GPU"
        ) from error


@torch.no_grad()
def sample_images(
    generator: AnyGenerator,
    n: int,
    seed: int,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw images; the same n and seed give the same noise on any device and for any batch size.

    Args:
        generator: in eval mode.
        n: how many, at least 1.
        seed: of the noise, N(0, 1).
        batch_size: how many at a time, at least 1. None: as many as the generator's device has memory for, up to 250,
            or 500 on a GPU.
        device: where the images are wanted.

    Returns:
        float32 [n, C, H, W] in [-1, 1].

    Raises:
        ValueError: n or batch_size below 1.

    Example:
        >>> import torch
        >>> from ebgan_fast.models import Generator
        >>> from ebgan_fast.training import sample_images
        >>> generator = Generator(z_dim=100, n_layer=3, size=32, image_shape=(1, 28, 28)).eval()
        >>> images = sample_images(generator, n=16, seed=0)
        >>> images.shape
        torch.Size([16, 1, 28, 28])
        >>> torch.equal(images, sample_images(generator, n=16, seed=0))
        True
    """
    for name, value in (("n", n), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: got {value}, expected at least 1")
    noise = torch.randn(n, generator.noise_size, generator=torch.Generator().manual_seed(seed))
    return images_of(generator, noise, batch_size, device)


@torch.no_grad()
def images_of(
    generator: AnyGenerator, noise: Tensor, batch_size: int | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """The images that noise [n, noise_size] gives: float32 [n, C, H, W] in [-1, 1], see `sample_images`."""
    like = next(generator.parameters())
    parts = noise.split(batch_size or drawn_at_once(generator))
    return torch.cat([generator(part.to(like)).to(device, torch.float32) for part in parts])


def drawn_at_once(generator: AnyGenerator, most: int = _MOST) -> int:
    """The number of images that the generator draws at a time: 500 on a GPU, `most` elsewhere; fewer for memory."""
    _, height, width = generator.image_shape
    device = next(generator.parameters()).device
    return most_at_once(device, _PIXEL_BYTES * height * width, _MOST_ON_GPU if device.type == "cuda" else most)


def save_grid(images: Tensor, path: str | Path, columns: int = 10) -> None:
    """Write one PNG with the images in rows of `columns`, thin grey lines between them.

    Args:
        images: [n, C, H, W] in [-1, 1], C = 1 (grey) or 3 (RGB).
        path: a file; its folder is made.
        columns: images in a row, at least 1. The last row may be short.

    Raises:
        ValueError: no images, another shape, or columns below 1.

    Example:
        >>> import torch
        >>> from PIL import Image
        >>> from ebgan_fast.training import save_grid
        >>> save_grid(torch.zeros(6, 1, 28, 28), "grid.png", columns=3)
        >>> Image.open("grid.png").size  # 3 x 28 + 4 x 2 pixels, 2 x 28 + 3 x 2 pixels
        (92, 62)
    """
    pixels = _to_bytes(images)
    if columns < 1:
        raise ValueError(f"columns: got {columns}, expected at least 1")
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
    with naming(path):
        _picture(canvas).save(path, format="PNG")


def save_folder(images: Tensor, folder: str | Path) -> None:
    """Write each image as its own PNG: 00000.png, 00001.png and so on.

    Args:
        images: [n, C, H, W] in [-1, 1], C = 1 (grey) or 3 (RGB).
        folder: made if need be.

    Raises:
        ValueError: no images, another shape, or a folder that isn't empty.

    Example:
        >>> import os
        >>> import torch
        >>> from ebgan_fast.training import save_folder
        >>> save_folder(torch.zeros(3, 3, 64, 64), "samples")
        >>> sorted(os.listdir("samples"))
        ['00000.png', '00001.png', '00002.png']
    """
    pixels = _to_bytes(images)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder}: got a folder that isn't empty, expected an empty or new one")
    for index, image in enumerate(pixels):
        path = folder / f"{index:05d}.png"
        with naming(path):
            _picture(image).save(path, format="PNG")


def _to_bytes(images: Tensor) -> Tensor:
    """[n, H, W, C]."""
    if images.dim() != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise ValueError(
            f"images: got shape {list(images.shape)}, expected [n, C, H, W] with n at least 1 and C of 1 or 3"
        )
    return to_pixels(images.detach().cpu()).permute(0, 2, 3, 1)


def _picture(pixels: Tensor) -> Image.Image:
    """Of uint8 [H, W, C]."""
    return Image.fromarray((pixels[..., 0] if pixels.shape[-1] == 1 else pixels).numpy())
