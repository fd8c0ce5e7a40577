"""Images from a trained generator, which is loaded from a run and draws batch by batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._console import shortened
from .._fitting import check_fits
from ..metrics.batches import most_at_once
from ..models.averaged import for_sampling
from ..models.families import AnyGenerator
from ..models.shapes_only import shapes_only
from .config import TrainConfig, from_dict
from .run import checkpoint

_MOST_ON_GPU, _MOST = 500, 250  # images at a time
_MOST_PIXELS = 1 << 26  # of one image, 8192 x 8192
_PIXEL_BYTES = 1024  # bytes of memory for each pixel drawn: the last layers have 64 to 128 maps, some three at a time


class LoadedGenerator(NamedTuple):
    """A generator from a checkpoint, with the run's config and step. It unpacks to (generator, config, step).

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
    """The generator in eval mode, with averaged weights if the run averages."""
    config: TrainConfig
    """The config of the run."""
    step: int
    """The number of steps that the run had done."""


def load_generator(checkpoint_path: str | Path, device: torch.device | str = "cpu") -> LoadedGenerator:
    """Load the generator of a run for drawing samples: in eval mode, and with averaged weights if the run averages.

    Settings of the run that this version doesn't know or can't use are left out, with a warning.

    Args:
        checkpoint_path: the run's checkpoint.pt.
        device: the device for the generator. It may differ from the device that trained it.

    Returns:
        The generator, the run's config and the number of steps done, as a `LoadedGenerator`.

    Raises:
        CheckpointError (a ValueError): the file isn't a complete checkpoint of this version.
        ValueError: the device has too little memory.
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
    return load_run(Path(checkpoint_path), device)[0]


def load_run(path: Path, device: torch.device | str = "cpu") -> tuple[LoadedGenerator, str | None]:
    """Load the generator of a run as `load_generator` does, and the fingerprint of the run's training images.

    Args:
        path: the run's checkpoint.pt.
        device: the device for the generator.

    Returns:
        The loaded generator, and the fingerprint, or None if the checkpoint has none.

    Raises:
        CheckpointError (a ValueError): the file isn't a complete checkpoint of this version.
        ValueError: the device has too little memory.
        OSError: the file can't be opened.
    """
    state = checkpoint.read(path)
    notes: list[str] = []
    try:
        run = from_dict(state["config"], notes.append)
        generator, step = _generator_of(run, state["image_shape"], state["trainer"]), state["trainer"]["step"]
        check_fits(step, 0, "step")
    except OSError:  # caused by the machine, not by the checkpoint
        raise
    except Exception as error:  # values of any kind may stand in the state, and raise anything
        reason = shortened(str(error) or type(error).__name__)
        raise checkpoint.CheckpointError(
            f"{path}: got a checkpoint without a fitting generator ({reason}), expected one that a run wrote"
        ) from error
    for note in notes:
        warnings.warn(f"{path}: {note}", stacklevel=3)
    try:
        return LoadedGenerator(for_sampling(generator.to(device)), run, step), state.get("data")
    except torch.OutOfMemoryError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: got too little memory on {device} for the generator ({reason}), expected more: "
            "--device cpu does without the GPU"
        ) from error


def _generator_of(run: TrainConfig, image_shape: Any, trainer: dict[str, Any]) -> AnyGenerator:
    """Return the generator of a trainer's state, with averaged weights if the run averages.

    The sizes in the config are compared with the state's tensors before memory is allocated for them.

    Raises:
        ValueError: the sizes don't fit.
    """
    check_fits(image_shape, [0, 0, 0], "image_shape")
    channels, height, width = image_shape
    if min(channels, height, width) < 1 or height * width > _MOST_PIXELS:
        raise ValueError(f"image_shape: got {image_shape}, expected 1 to {_MOST_PIXELS} pixels")
    weights, average = trainer["generator"], trainer["average"]
    given = [name for name, tensor in weights.items() if tensor.dim() > 1]
    if run.networks.depth_g != len(given):
        raise ValueError(f"networks: got {run.networks.depth_g} layers in the generator, expected {len(given)}")
    with shapes_only():
        expected = run.networks.generator((channels, height, width)).state_dict()
    check_fits(dict(weights), expected, "generator")
    generator = run.networks.generator((channels, height, width))
    generator.load_state_dict(weights)
    if average is not None:
        parameters = list(generator.parameters())
        check_fits(average, parameters, "average")
        with torch.no_grad():
            for mine, averaged in zip(parameters, average, strict=True):
                mine.copy_(averaged)
    return generator


def sample_images(
    generator: AnyGenerator,
    n: int,
    seed: int,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw images from a generator. Equal n and seed give equal noise on any device and for any batch size.

    Args:
        generator: a generator in eval mode.
        n: the number of images, at least 1.
        seed: the seed of the noise, which is drawn from N(0, 1).
        batch_size: the number of images drawn at a time, at least 1. None: as many as the memory of the generator's
            device allows, up to 250, or 500 on a GPU.
        device: the device for the images.

    Returns:
        The images, float32 [n, C, H, W] in [-1, 1].

    Raises:
        ValueError: n or batch_size is below 1.

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
    return images_of(generator, noise_of(generator, n, seed), batch_size, device)


def batches_of_images(
    generator: AnyGenerator, noise: Tensor, batch_size: int | None = None, device: torch.device | str = "cpu"
) -> Iterator[Tensor]:
    """Yield the images of noise [n, noise_size] in batches, float32 [B, C, H, W] in [-1, 1]."""
    like = next(generator.parameters())
    for part in noise.split(batch_size or drawn_at_once(generator)):
        with torch.no_grad():
            images: Tensor = generator(part.to(like)).to(device, torch.float32)
        yield images


def images_of(
    generator: AnyGenerator, noise: Tensor, batch_size: int | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the images of noise [n, noise_size], float32 [n, C, H, W] in [-1, 1]. See `sample_images` for the
    arguments."""
    return torch.cat(list(batches_of_images(generator, noise, batch_size, device)))


def noise_of(generator: AnyGenerator, n: int, seed: int) -> Tensor:
    """Return the noise of `sample_images`, [n, noise_size] on the CPU."""
    return torch.randn(n, generator.noise_size, generator=torch.Generator().manual_seed(seed))


def drawn_at_once(generator: AnyGenerator, most: int = _MOST) -> int:
    """Return how many images the generator draws at a time: 500 on a GPU, else `most`, or fewer if memory is short."""
    _, height, width = generator.image_shape
    device = next(generator.parameters()).device
    return most_at_once(device, _PIXEL_BYTES * height * width, _MOST_ON_GPU if device.type == "cuda" else most)
