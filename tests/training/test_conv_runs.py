"""Tests of small convolutional runs: mixed precision, parts of a batch, compiled networks, the margin from the data."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ebgan_fast
from bench.subjects import public_loop
from ebgan_fast.data.image_set import TensorImages
from ebgan_fast.models import Conv
from ebgan_fast.training import TrainConfig, preset
from ebgan_fast.training.optim import Precision
from ebgan_fast.training.statistics import STATISTICS
from ebgan_fast.training.step import Trainer
from tests.rounding import assert_within_eager, distance
from tests.waits import Waits

from .plain_step import Budget, gradients_of

NETWORKS = Conv("(8)4c-(8)4c2s-(6)4c2s-(3)3c", "6-2", "(6)4c2s-(8)4c2s", "(6)4c2s-(3)4c2s")


def small(**fields: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "networks": NETWORKS,
        "image_size": 16,
        "batch_size": 8,
        "steps": 6,
        "log_every": 2,
        "margin": 5.0,
        "flip": False,
        "device": "cpu",
    }
    return preset("celeba64", Path("run"), **{**defaults, **fields})


def blobs(count: int = 40, side: int = 16) -> TensorImages:
    """Return images of bright squares on gray, with random color and place."""
    rng = torch.Generator().manual_seed(0)
    images = torch.full((count, 3, side, side), 90, dtype=torch.uint8)
    for image in images:
        top, left = torch.randint(side // 2, (2,), generator=rng).tolist()
        color = torch.randint(256, (3, 1, 1), generator=rng, dtype=torch.uint8)
        image[:, top : top + side // 2, left : left + side // 2] = color
    return TensorImages(images)


def gradients(trainer: Trainer) -> list[Tensor]:
    return gradients_of(trainer.generator, trainer.discriminator)


def without_batch_statistics(trainer: Trainer) -> Trainer:
    """Let batch norm use its running statistics, so that a sample's gradient does not depend on its batch."""
    for net in (trainer.generator, trainer.discriminator):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    return trainer


def test_images_and_maps_lie_channels_last() -> None:
    """Images and maps lie channels-last, so that convolutions need no copies and losses read both in one order."""
    trainer = Trainer(small(), blobs())
    layouts: list[bool] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in (*inputs, *(output if isinstance(output, tuple) else (output,))):
            if tensor.dim() == 4:
                layouts.append(tensor.is_contiguous(memory_format=torch.channels_last))

    trainer.discriminator.register_forward_hook(note)
    trainer.step()
    assert layouts == [True] * 6  # images, reconstructions and codes, of generated and of real images


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_step_is_a_plain_loops_at_each_precision(precision: Precision) -> None:
    """A step's gradients and statistics are as near to float64 as those of eager torch under autocast."""
    scale = 2.0**8 if precision == "float16" else 1.0

    def make() -> Trainer:
        return Trainer(small(precision=precision, log_every=1), blobs())

    trainer, budget = make(), Budget(make, scale=scale)
    set_scale(trainer, scale)
    trainer.step()
    found = gradients(trainer)
    assert all(gradient.dtype == torch.float32 for gradient in found)
    # No result depends on the side of the margin that rounding puts an energy on. With this seed no ReLU's input is
    # nearer to 0 than 240 times float32's error there.
    assert budget.truth.statistics()["hinge_active"] == 1.0
    assert budget.truth.statistics()["energy_fake"] < 0.8 * trainer.config.margin
    budget.assert_gradients(found, each=True)
    budget.assert_statistics(trainer.statistics(), (*STATISTICS, "grad_norm_g", "grad_norm_d"))
    # Low precision is really used: float32's gradients are nearer to the truth by a factor of 1,000 and more.
    truth, eager = budget.truth.gradients, budget.eager.gradients
    assert precision == "float32" or distance(found, truth) > distance(eager, truth) / 2


def set_scale(trainer: Trainer, scale: float) -> None:
    """Set the scale of a float16 run's losses and gradients."""
    if trainer.precision.dtype == torch.float16:
        trainer.precision.load_state_dict({**trainer.precision.state_dict(), "scale": scale})


def scale_of(trainer: Trainer) -> float:
    scale: float = trainer.precision.state_dict()["scale"]
    return scale


def test_float16_leaves_out_a_step_that_overflows_and_halves_its_scale() -> None:
    trainer = Trainer(small(precision="float16"), blobs())
    set_scale(trainer, 2.0**40)
    before = copy.deepcopy(trainer.generator.state_dict())["layers.0.0.weight"]
    trainer.step()
    assert torch.equal(trainer.generator.state_dict()["layers.0.0.weight"], before)
    assert scale_of(trainer) == 2.0**39
    trainer.check_finite()
    trainer.step()
    assert scale_of(trainer) == 2.0**38
    assert set(STATISTICS) <= set(trainer.statistics())
    assert not {"grad_norm_g", "grad_norm_d"} & set(trainer.statistics())  # infinite, so no number for a curve


def test_parts_of_a_batch_add_up_to_it() -> None:
    """The parts' gradients add up to the batch's. This leaves out the pulling-away term and batch statistics, which
    look at one part alone.
    """

    def make() -> Trainer:
        return without_batch_statistics(Trainer(small(pt_weight=0.0, accumulate=4), blobs()))

    budget, parts = Budget(make), make()
    parts.step()
    budget.assert_gradients(gradients(parts))
    budget.assert_statistics(parts.statistics(), STATISTICS[:5])


def test_the_term_of_parts_is_their_mean() -> None:
    def make() -> Trainer:
        return without_batch_statistics(Trainer(small(accumulate=2), blobs()))

    def mean_of_terms(dtype: torch.dtype) -> float:
        nets = make()
        noise = torch.randn(8, nets.generator.noise_size, generator=nets.noise_rng).to(dtype)
        with torch.no_grad():
            fakes = [nets.generator.to(dtype)(part) for part in noise.chunk(2)]
            codes = [nets.discriminator.to(dtype)(images)[1].flatten(1) for images in fakes]
        return sum(public_loop.pulling_away(code).item() for code in codes) / 2

    trainer = make()
    trainer.step()
    found = trainer.statistics()["pulling_away"]
    assert_within_eager(found, mean_of_terms(torch.float64), mean_of_terms(torch.float32), torch.float32, "mean term")


@pytest.mark.slow
def test_compiled_networks_train_alike() -> None:
    """Compiled networks have the same loss, statistics and gradients as plain networks.

    The nets are small, with batch norm in both and noise planes, because every C++ kernel takes 2 s to compile.
    """
    networks = Conv("(4)4c-(4)4c2s-(3)3c", "4-1", "(4)4c2s-(4)3c", "(3)4c2s")

    def trainer(**fields: bool) -> Trainer:
        return Trainer(small(networks=networks, image_size=8, **fields), blobs(side=8))

    budget = Budget(trainer)
    plain, compiled = trainer(), trainer(compile=True)
    compiled.step()
    budget.assert_gradients(gradients(compiled))
    budget.assert_statistics(compiled.statistics(), STATISTICS)
    assert list(compiled.generator.state_dict()) == list(plain.generator.state_dict())
    compiled.sampler()


def test_the_margin_that_the_data_suggest() -> None:
    """The margin that the data suggest falls while the auto-encoder learns, and is the same in each search."""
    shown: list[int] = []

    def margin(steps: int) -> float:
        return Trainer(small(lr_d=0.002), blobs()).mean_real_energy(steps, shown.append)

    early, late = margin(5), margin(60)
    assert 0 < late < 0.7 * early
    assert shown == [*range(1, 6), *range(1, 61)]
    assert margin(5) == early
    generator = Trainer(small(), blobs())
    before = copy.deepcopy(generator.generator.state_dict())
    generator.mean_real_energy(2, shown.append)
    assert all(torch.equal(value, before[name]) for name, value in generator.generator.state_dict().items())


def test_the_margin_is_the_mean_over_the_last_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(small(), blobs())
    energies = iter(torch.arange(20.0))
    monkeypatch.setattr(trainer, "autoencoder_step", lambda: next(energies))
    assert trainer.mean_real_energy(20, lambda step: None) == 18.5


def learn(config: TrainConfig, steps: int) -> list[float]:
    trainer = Trainer(config, blobs())
    energies = []
    for _ in range(steps):
        trainer.step()
        energies.append(trainer.statistics()["energy_real"])
    return energies


# float16 is slow on a CPU: 4 s.
@pytest.mark.parametrize("precision", ["float32", "bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_set_of_blobs_is_learned(precision: str) -> None:
    energies = learn(small(precision=precision, lr_d=0.002, steps=50, log_every=1), 50)
    assert sum(energies[-5:]) < 0.6 * sum(energies[:5])


def assert_no_wait(make: Callable[[], Trainer]) -> None:
    """Check that a step between two log lines reads no value from the device, so a GPU could run ahead or replay it."""
    trainer = make()
    # The C++ kernels for the CPU read a margin in CPU memory. A GPU's kernels read it from the device.
    with ebgan_fast.use_backend("reference"), Waits() as waits:
        trainer.step()
    assert waits.found == []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_waits_for_no_value(accumulate: int) -> None:
    assert_no_wait(lambda: Trainer(small(log_every=10, accumulate=accumulate), blobs()))
