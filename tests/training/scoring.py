"""Runs that score themselves by a feature net with eight features."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.metrics.features import FeatureNet
from ebgan_fast.models import Mlp
from ebgan_fast.training import TrainConfig, scoring

from .test_conv_runs import small


class PixelNet:
    """A feature net of eight numbers: the channels' means in two halves of the image, and two more.

    Attributes:
        calls: The number of batches that the net was given.
        stop_at: The number of the batch during which a SIGTERM arrives.
        before: A function that gets each batch first. An error that it raises is the net's error.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.stop_at = 0
        self.before: Callable[[Tensor], None] = lambda images: None

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.before(images)
        if self.calls == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        halves = torch.cat([half.float().mean((2, 3)) for half in images.chunk(2, 3)], dim=1)
        return torch.cat([halves, images.float().std((1, 2, 3))[:, None], halves[:, :1] ** 2 / 256], dim=1)


def take_pixels(patch: pytest.MonkeyPatch, net: PixelNet, cache: Path) -> None:
    """Let runs score by this net, and keep its features in `cache`."""
    patch.setenv("EBGAN_FAST_CACHE", str(cache))
    patch.setattr(scoring, "load_feature_net", lambda spec: FeatureNet(net, f"FD ({spec})", f"pixels {spec}", 8))


def scored(out: Path, packed: Path, **fields: Any) -> TrainConfig:
    """Return the config of a run of 6 steps that is scored after 3 and 6. By default its networks are Mlp, which draw
    fast.
    """
    defaults: dict[str, Any] = {
        "networks": Mlp(z_dim=4, n_layer_g=2, size_g=8, size_d=8),
        "data": packed,
        "flip": True,
        "evaluate_every": 3,
        "evaluate_samples": 50,
        "features": "pixels",
        "sample_every": 4,
        "checkpoint_every": 2,
        "threads": 1,
    }
    run = small(**{**defaults, **fields})
    return TrainConfig(**{**{name: getattr(run, name) for name in run.__dataclass_fields__}, "out": out})


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
