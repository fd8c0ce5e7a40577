"""Two small runs that have every kind of file and state that a run can lose: scores, checkpoints, pictures, a margin of
its own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ebgan_fast.models import Mlp
from ebgan_fast.training import TrainConfig

from ...data.layouts import pack
from ..helpers import bars, write_idx
from ..test_conv_runs import blobs

_FIELDS: dict[str, dict[str, Any]] = {
    # Some steps have a log line, a grid, a checkpoint and a score together, others have one of them.
    "packed": {
        "steps": 20,
        "image_size": 8,
        "flip": True,
        "margin_schedule": "cosine",
        "margin_end": 2.0,
        "lr_decay": "linear",
        "log_every": 4,
        "sample_every": 5,
        "checkpoint_every": 6,
        "evaluate_every": 7,
    },
    "margin-auto": {
        "steps": 9,
        "image_size": 28,
        "margin": "auto",
        "margin_auto_steps": 6,
        "log_every": 2,
        "sample_every": 100,
        "checkpoint_every": 3,
        "evaluate_every": 4,
    },
}
VARIANTS = tuple(_FIELDS)


def write_images(folder: Path) -> None:
    """Make the folder, and write each variant's images into it."""
    folder.mkdir(parents=True)
    pack(folder / "packed", blobs(side=8).gather(torch.arange(40)), [40])
    write_idx(folder / "margin-auto", bars(40, seed=0))


def config(variant: str, out: Path, images: Path) -> TrainConfig:
    """Return the config of a variant, with the images that `write_images` wrote into the folder `images`."""
    fields = {
        "networks": Mlp(z_dim=4, n_layer_g=2, size_g=8, n_layer_d=2, size_d=8, dropout_d=True),
        "batch_size": 8,
        "ema": 0.9,
        "evaluate_samples": 40,  # as many as training images: one kernel distance in place of a hundred
        "features": "pixels",
        "threads": 1,
        "device": "cpu",
    }
    if "keep" in {field.name for field in dataclasses.fields(TrainConfig)}:
        fields["keep"] = 2
    return TrainConfig(out=out, data=images / variant, **{**fields, **_FIELDS[variant]})
