"""Write files as users have them, with the current code: two stopped runs, a packed set, a killed study.

    python -m tests.written_before.write FOLDER

The paths in the files are those of a folder that is removed afterward.
"""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ebgan_fast import cli
from ebgan_fast.data.prepare import prepare_images
from ebgan_fast.models import Conv, Mlp
from ebgan_fast.training import preset, sample_images, session, train
from ebgan_fast.training.step import Trainer
from tests.training.scoring import PixelNet, take_pixels

SWEEP = "--margins 1 4 16 --seeds 1 --steps 3 --batch-size 8 --size-g 8 --size-d 8 --samples 50 --workers 1"
STOPPED_AFTER = 4


def digits(count: int) -> np.ndarray:
    """Return stripes of different direction and brightness, uint8 [count, 28, 28]."""
    number, y, x = np.ogrid[:count, :28, :28]
    return np.where((x * (number % 5) + y * (number % 3 + 1)) % 28 < 9, 255 - number % 50, 0).astype(np.uint8)


def picture(number: int) -> np.ndarray:
    """Return a picture in which each color has a slope, uint8 [8, 12, 3]."""
    y, x, channel = np.ogrid[:8, :12, :3]
    return ((5 * number + 3 * y * (channel + 1) + 7 * x + 80 * channel) % 256).astype(np.uint8)


def _write_digits(folder: Path) -> None:
    folder.mkdir()
    for part, count in (("train", 512), ("t10k", 10)):  # two of the classifier's batches, the fewest that it takes
        for name, values in (("images-idx3", digits(count)), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
            content = gzip.compress(head + values.tobytes(), mtime=0)
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(content)


def _pack(folder: Path) -> None:
    """Pack twelve pictures into two shards. A thirteenth picture can't be read."""
    pictures = Path("pictures")
    pictures.mkdir()
    for number in range(12):
        Image.fromarray(picture(number)).save(pictures / f"{number:02d}.png")
    (pictures / "03b.png").write_bytes(b"no picture")
    prepare_images(pictures, folder, 8, workers=1, shard_bytes=8 * 8 * 8 * 3)


def _stop_runs(patch: pytest.MonkeyPatch) -> None:
    """Stop one run by a signal in a step, and one by a signal in a score. Both stop inside a log interval."""
    common = {"steps": 6, "batch_size": 4, "log_every": 3, "ema": 0.9, "threads": 1, "device": "cpu"}
    step = Trainer.step

    def stopped(trainer: Trainer) -> None:
        if trainer.step_count == STOPPED_AFTER - 1:
            signal.raise_signal(signal.SIGTERM)
        step(trainer)

    mlp = Mlp(z_dim=4, n_layer_g=3, size_g=2, n_layer_d=3, size_d=2, dropout_d=True)
    schedules = {"margin": 1.0, "margin_schedule": "cosine", "margin_end": 0.3, "lr_decay": "linear"}
    own = {"image_size": 28, "sample_every": 3, "seed": 4, **schedules}
    run = preset("mnist", Path("run"), networks=mlp, data=Path("digits"), **common, **own)
    with patch.context() as stopping:
        stopping.setattr(Trainer, "step", stopped)
        stopping.setattr(session, "sample_images", lambda generator, count, seed: sample_images(generator, 20, seed))
        assert train(run).step == STOPPED_AFTER

    net = PixelNet()
    net.stop_at = 4  # the net is tried once; then come the training images, the samples of step 2 and those of step 4
    take_pixels(patch, net, Path("cache").absolute())
    conv = Conv("(2)4c-(2)4c2s-(3)3c", "4-1", "(2)4c2s-(2)3c", "(3)4c2s")
    scored = {"evaluate_every": 2, "evaluate_samples": 20, "features": "pixels"}
    images = preset(
        "celeba64", Path("run_images"), networks=conv, data=Path("packed"), image_size=8, **common, **scored
    )
    assert train(images).step == STOPPED_AFTER
    for folder in (run.out, images.out):
        (folder / "curves.png").unlink()


def _kill_study(folder: Path) -> None:
    """Start a sweep whose process is killed in the second of three trials."""
    if not (forked := os.fork()):
        with pytest.MonkeyPatch.context() as patch:
            step = Trainer.step

            def killed(trainer: Trainer) -> None:
                if trainer.config.margin == 4:
                    os.kill(os.getpid(), signal.SIGKILL)
                step(trainer)

            patch.setattr(Trainer, "step", killed)
            patch.setattr(socket, "gethostname", lambda: "another-machine")
            os._exit(
                cli.main(["margin-sweep", "--out", str(folder), "--data", "digits", "--device", "cpu", *SWEEP.split()])
            )
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == -signal.SIGKILL


def write(folder: Path) -> None:
    """Write everything into a new folder."""
    folder = folder.absolute()
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("EBGAN_FAST_CACHE", f"{place}/cache")
        _write_digits(Path("digits"))
        _pack(Path("packed"))
        _kill_study(Path("study"))
        _stop_runs(patch)
        folder.mkdir()
        for name in ("digits", "packed", "run", "run_images"):
            shutil.copytree(name, folder / name)
        shutil.copy("study/journal.log", folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
