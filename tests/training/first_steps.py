"""Digests of the state after the first three steps of small runs: one of each preset, and variations of their settings.

    python -m tests.training.first_steps              prints the digests
    python -m tests.training.first_steps --record     writes this processor's digests into first_steps.json

Empty the list in first_steps.json first, if a change of the bits is intended.

Two versions of the code compute the same bits if they print the same. The losses come from the reference backend, so
torch alone decides the bits. torch must use kernels that every x86-64 processor with AVX2 has. It uses none of oneDNN's
kernels, which also depend on the sizes of the processor's caches. MKL's square roots cannot be fixed in this way: they
begin with an approximation by the processor. On an AMD EPYC with AVX-512, 20,000 of 100,000 roots are the other
neighbor of the exact root. So a record holds only for processors that compute the same `roots`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebgan_fast.data import TensorImages
from ebgan_fast.doctor import processor
from ebgan_fast.models import Conv, Mlp
from ebgan_fast.models.families import Networks
from ebgan_fast.training import TrainConfig, preset
from ebgan_fast.training.config import PresetName
from ebgan_fast.training.step import Trainer

RECORD = Path(__file__).with_name("first_steps.json")
STEPS = 3

# torch and MKL read these when they are loaded. MKL_CBWR=COMPATIBLE is MKL's only setting that also works on AMD
# processors.
ENVIRONMENT = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "EBGAN_FAST_BACKEND": "reference"}

_COUNT, _BATCH = 10, 4  # two batches an epoch
_SIZES: dict[str, Any] = {"z_dim": 8, "size_g": 16, "size_d": 16}


def cases() -> dict[str, TrainConfig]:
    """Return the configs to record: every preset with narrow networks, and variations of two presets."""
    mnist, celeba = _small("mnist", Mlp(**_SIZES)), _narrow("celeba64")
    return {
        "mnist": mnist,
        "lsun64": _narrow("lsun64"),
        "celeba64": celeba,
        "imagenet128": _narrow("imagenet128"),
        "imagenet256": _narrow("imagenet256"),
        "mnist, dropout": replace(mnist, networks=Mlp(**_SIZES, dropout_d=True)),
        "mnist, deeper": replace(mnist, networks=Mlp(**_SIZES, n_layer_d=4), norm="mse", margin=1.0),
        "mnist, two parts": replace(mnist, accumulate=2),
        "mnist, no term": replace(mnist, pt_weight=0.0),
        "mnist, no term, logged": replace(mnist, pt_weight=0.0, log_every=2),
        "mnist, schedules": replace(
            mnist, steps=STEPS, margin_schedule="cosine", margin_end=2.0, lr_decay="linear", lr_decay_start=0.5
        ),
        "mnist, short average": replace(mnist, ema=0.05),
        "mnist, no average": replace(mnist, ema=0.0),
        "mnist, steps to a margin": replace(mnist, margin="auto"),
        "celeba64, two parts": replace(celeba, accumulate=2),
        "celeba64, bfloat16": replace(celeba, precision="bfloat16"),
        "celeba64, float16": replace(celeba, precision="float16"),
    }


def _narrow(name: PresetName) -> TrainConfig:
    networks = preset(name, Path()).networks
    assert isinstance(networks, Conv)
    return _small(name, replace(networks, width=1 / 32))


def _small(name: PresetName, networks: Networks) -> TrainConfig:
    return preset(name, Path(), networks=networks, batch_size=_BATCH, device="cpu")


def images_of(config: TrainConfig) -> TensorImages:
    """Return images computed by a formula, whose bytes look like noise."""
    shape = (_COUNT, 1 if config.preset == "mnist" else 3, config.image_size, config.image_size)
    numbers = torch.arange(torch.Size(shape).numel())
    return TensorImages(((numbers * 2654435761) >> 13 & 255).to(torch.uint8).view(shape))


def state_after(config: TrainConfig) -> dict[str, Any]:
    """Return the state from which a run goes on, after the first steps."""
    trainer = Trainer(config, images_of(config))
    step = trainer.autoencoder_step if config.margin == "auto" else trainer.step
    for _ in range(STEPS):
        step()
    trainer.close()
    return trainer.state_dict()


def digest_of(state: object) -> str:
    """Return the BLAKE2b digest of every value. Memory layout and the order of dicts don't change it."""
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(state):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parts(value: object) -> Iterator[bytes]:
    if isinstance(value, Tensor):
        yield f"{value.dtype} {list(value.shape)}".encode()
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        yield f"dict of {len(value)}".encode()
        for name in sorted(value, key=repr):
            yield repr(name).encode()
            yield from _parts(value[name])
    elif isinstance(value, (list, tuple)):
        yield f"list of {len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, float):
        yield value.hex().encode()
    elif isinstance(value, (int, str)) or value is None:
        yield repr(value).encode()
    else:
        raise TypeError(f"got a {type(value).__name__} in a state, expected tensors and plain values")


def roots() -> str:
    """Return the digest of 4096 square roots as torch computes them here."""
    return digest_of(torch.arange(1.0, 4097.0).sqrt())


def digests() -> dict[str, str]:
    """Return the digests of all cases, and of "roots". A new process computes them, as torch chooses kernels when
    loaded.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.first_steps"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _main() -> None:
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        found = digests()
    else:
        torch.set_num_threads(1)
        torch.backends.mkldnn.set_flags(False)
        found = {"roots": roots(), **{name: digest_of(state_after(config)) for name, config in cases().items()}}
    if sys.argv[1:] == ["--record"]:
        # Records of other processors are true only for the same code. `git diff` shows if this processor's have
        # changed.
        others = [one for one in json.loads(RECORD.read_text()) if one["digests"]["roots"] != found["roots"]]
        record = {"torch": torch.__version__, "processor": processor(), "digests": found}
        RECORD.write_text(json.dumps([*others, record], indent=1) + "\n")
    else:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    _main()
