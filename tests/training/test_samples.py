from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ebgan_fast.data.image_set import TensorImages, pad_to_square
from ebgan_fast.models import Generator
from ebgan_fast.training import (
    CheckpointError,
    load_generator,
    sample_images,
    save_folder,
    save_grid,
)
from ebgan_fast.training.config import to_dict
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.sampling import batches_of_images, drawn_at_once, noise_of
from ebgan_fast.training.step import Trainer
from tests.rounding import assert_within_eager

from .conftest import Configure
from .helpers import bars


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_loaded_generator_draws_what_the_run_draws(configure: Configure, tmp_path: Path, ema: float) -> None:
    run = configure(ema=ema)
    trainer = Trainer(run, TensorImages(pad_to_square(bars(50, seed=0), run.image_size)))
    for _ in range(5):
        trainer.step()
    path = tmp_path / "checkpoint.pt"
    state = {"config": to_dict(run), "image_shape": [1, 32, 32], "trainer": trainer.state_dict()}
    checkpoint.write(path, state)
    generator, loaded, step = load_generator(path)
    assert (loaded, step) == (run, 5)
    assert not generator.training
    images = sample_images(generator, 6, seed=1)
    assert torch.equal(images, sample_images(trainer.sampler(), 6, seed=1))
    raw = sample_images(Trainer.sampler(_without_average(trainer)), 6, seed=1)
    assert torch.equal(images, raw) == (ema == 0)


def test_what_is_loaded_has_names_and_unpacks(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    run = configure()
    trained = {"generator": Generator(4, 3, 16).state_dict(), "average": None, "step": 5}
    checkpoint.write(path, {"config": to_dict(run), "image_shape": [1, 32, 32], "trainer": trained})
    loaded = load_generator(path)
    generator, config, step = loaded
    assert loaded.generator is generator
    assert isinstance(generator, Generator)
    assert loaded.config is config
    assert config == run
    assert loaded.step == step == 5


def _without_average(trainer: Trainer) -> Trainer:
    trainer.average = None
    return trainer


def test_a_checkpoint_without_a_generator(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    fitting = {"generator": Generator(4, 3, 16).state_dict(), "average": None, "step": 5}
    other = {"generator": Generator(4, 3, 17).state_dict(), "average": None, "step": 5}
    fields = to_dict(configure())
    whole = {"config": fields, "image_shape": [1, 32, 32], "trainer": fitting}
    checkpoint.write(path, whole)
    load_generator(path)
    for state in [
        {**whole, "trainer": other},
        {**whole, "trainer": {**fitting, "average": [torch.zeros(1)]}},
        {**whole, "trainer": {"generator": fitting["generator"]}},
        {**whole, "config": {**fields, "networks": {**fields["networks"], "z_dim": "4"}}},
        {**whole, "image_shape": [1, 28, 28]},
        {name: value for name, value in whole.items() if name != "image_shape"},
        {name: value for name, value in whole.items() if name != "config"},
    ]:
        checkpoint.write(path, state)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: got a checkpoint without a fitting generator"):
            load_generator(path)


def test_a_devices_errors_are_not_the_checkpoints(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    whole = {"generator": Generator(4, 3, 16).state_dict(), "average": None, "step": 5}
    fields = to_dict(configure())
    checkpoint.write(path, {"config": fields, "image_shape": [1, 32, 32], "trainer": whole})

    def fail(error: Exception) -> None:
        def raising(*_: object) -> None:
            raise error

        monkeypatch.setattr("ebgan_fast.training.sampling.for_sampling", raising)

    fail(RuntimeError("of the device"))
    with pytest.raises(RuntimeError, match=r"^of the device$"):
        load_generator(path)
    fail(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(ValueError, match=r"checkpoint\.pt: got too little memory on cpu .*--device cpu") as error:
        load_generator(path)
    assert not isinstance(error.value, CheckpointError)


def test_samples_depend_on_the_seed_alone() -> None:
    generator = Generator(4, 3, 16, (3, 5, 7)).eval()
    images = sample_images(generator, 23, seed=3)
    assert images.shape == (23, 3, 5, 7)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert torch.equal(images, sample_images(generator, 23, seed=3))
    assert not torch.equal(images, sample_images(generator, 23, seed=4))
    parts = sample_images(generator, 23, seed=3, batch_size=4)
    truth = sample_images(copy.deepcopy(generator).double(), 23, seed=3)  # float64 but for the output, which is float32
    assert_within_eager(parts, truth, images, torch.float32, "images in parts")


def test_images_stay_where_they_are_wanted(configure: Configure, tmp_path: Path) -> None:
    """Images stay on the device that was asked for. The device `meta`, which holds no values, replaces a GPU: a copy
    through the CPU would raise.
    """
    run = configure(ema=0.9, n_layer_g=1)  # no batch norm, whose statistics would be measured
    trainer = Trainer(run, TensorImages(pad_to_square(bars(50, seed=0), run.image_size)))
    path = tmp_path / "checkpoint.pt"
    state = {"config": to_dict(run), "image_shape": [1, 32, 32], "trainer": trainer.state_dict()}
    checkpoint.write(path, state)
    generator = load_generator(path, "meta").generator
    images = sample_images(generator, 6, seed=1, device="meta")
    assert images.shape == (6, 1, 32, 32)
    assert images.is_meta
    with pytest.raises(NotImplementedError, match="meta"):
        sample_images(generator, 6, seed=1)


@pytest.mark.parametrize(
    ("device", "side", "memory", "expected"),
    [
        ("cpu", 64, 1 << 40, 250),
        ("cuda", 64, 1 << 40, 500),
        ("cpu", 256, 16 << 30, 64),
        ("cuda", 256, 16 << 30, 64),
        ("cpu", 256, 1 << 20, 1),
    ],
)
def test_a_batch_is_what_memory_holds(
    monkeypatch: pytest.MonkeyPatch, device: str, side: int, memory: int, expected: int
) -> None:
    """A batch holds as many images as fit into memory, at 64 MB for an image of 256 x 256: 1 KB a pixel, with a quarter
    of the memory used.
    """
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (memory, 1 << 50))
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": memory, "SC_PAGE_SIZE": 1}.__getitem__)
    parameter = SimpleNamespace(device=torch.device(device))
    generator = SimpleNamespace(image_shape=(3, side, side), parameters=lambda: iter([parameter]))
    assert drawn_at_once(generator) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"n": 0}, {"batch_size": 0}])
def test_impossible_numbers_of_samples(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))}: got 0, expected at least 1"):
        sample_images(Generator(4, 1, 1).eval(), **{"n": 3, "seed": 0, **fields})


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_grid_shows_each_image_in_its_place(tmp_path: Path) -> None:
    levels = [-1.0, -0.5, 0.0, 0.5, 1.0]
    images = torch.tensor(levels)[:, None, None, None].expand(5, 1, 4, 6)
    save_grid(images, tmp_path / "new" / "grid.png", columns=3)
    pixels = read(tmp_path / "new" / "grid.png")
    assert pixels.shape == (2 * (4 + 2) + 2, 3 * (6 + 2) + 2)
    expected = np.full(pixels.shape, 64)
    for index, byte in enumerate([0, 64, 128, 191, 255]):
        row, column = divmod(index, 3)
        expected[2 + 6 * row : 6 + 6 * row, 2 + 8 * column : 8 + 8 * column] = byte
    assert (pixels == expected).all()


def test_colors_keep_their_places(tmp_path: Path) -> None:
    """Colors keep their places: one pixel is red, and all others are blue."""
    image = torch.tensor([-1.0, -1.0, 1.0])[:, None, None].repeat(1, 2, 3)
    image[:, 1, 2] = torch.tensor([1.0, -1.0, -1.0])
    save_grid(image[None], tmp_path / "grid.png")
    save_folder(image[None], tmp_path / "folder")
    expected = np.tile(np.array([0, 0, 255]), (2, 3, 1))
    expected[1, 2] = (255, 0, 0)
    assert (read(tmp_path / "grid.png")[2:4, 2:5] == expected).all()
    assert (read(tmp_path / "folder" / "00000.png") == expected).all()


def test_a_grid_is_no_wider_than_its_images(tmp_path: Path) -> None:
    save_grid(torch.zeros(2, 1, 3, 3), tmp_path / "grid.png", columns=10)
    assert read(tmp_path / "grid.png").shape == (7, 12)


def test_a_folder_of_images(tmp_path: Path) -> None:
    images = torch.stack([torch.full((1, 2, 3), -1.0), torch.full((1, 2, 3), 1.0)])
    save_folder(images, tmp_path / "a" / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["00000.png", "00001.png"]
    assert (read(tmp_path / "a" / "b" / "00001.png") == np.full((2, 3), 255)).all()
    with pytest.raises(ValueError, match="b: got a folder that isn't empty"):
        save_folder(images, tmp_path / "a" / "b")


def test_batches_are_written_as_they_come(tmp_path: Path) -> None:
    """Batches are written as they arrive, so memory holds at most one. The pictures equal those of a single tensor."""
    generator = Generator(4, 3, 16, (3, 5, 7)).eval()
    seen = []

    def by_three() -> Iterator[torch.Tensor]:
        for batch in batches_of_images(generator, noise_of(generator, 8, seed=0), 3):
            seen.append(len(list(folder.iterdir())) if folder.exists() else 0)
            yield batch

    folder = tmp_path / "parts"
    save_folder(by_three(), folder)
    assert seen == [0, 3, 6]
    images = sample_images(generator, 8, seed=0, batch_size=3)
    save_folder(images, tmp_path / "whole")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }
    save_grid(images, tmp_path / "whole.png", columns=3)
    save_grid(images.split(3), tmp_path / "parts.png", columns=3)
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "parts.png").read_bytes()


def test_a_grid_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grid.png"
    save_grid(torch.zeros(2, 1, 3, 3), path)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_grid(torch.ones(2, 1, 3, 3), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["grid.png"]


def test_pictures_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns: got 0"):
        save_grid(torch.zeros(2, 1, 3, 3), tmp_path / "grid.png", columns=0)
    for images in (torch.zeros(0, 1, 3, 3), torch.zeros(2, 2, 3, 3), torch.zeros(3, 3, 3)):
        with pytest.raises(ValueError, match="images: got shape"):
            save_grid(images, tmp_path / "grid.png")
        with pytest.raises(ValueError, match="images: got shape"):
            save_folder(images, tmp_path / "folder")
    for write, path in ((save_grid, tmp_path / "grid.png"), (save_folder, tmp_path / "folder")):
        with pytest.raises(ValueError, match="images: got none"):
            write(iter(()), path)
    assert not list(tmp_path.iterdir())
