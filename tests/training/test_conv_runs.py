"""Convolutional runs in small: mixed precision, parts of a batch, compiled networks, the margin that data suggest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ebgan_fast
from ebgan_fast.data.image_set import TensorImages
from ebgan_fast.models import Conv
from ebgan_fast.training import TrainConfig, preset
from ebgan_fast.training.margin import mean_real_energy
from ebgan_fast.training.trainer import STATISTICS, Trainer

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
    """Bright squares of random colour and place on grey."""
    rng = torch.Generator().manual_seed(0)
    images = torch.full((count, 3, side, side), 90, dtype=torch.uint8)
    for image in images:
        top, left = torch.randint(side // 2, (2,), generator=rng).tolist()
        colour = torch.randint(256, (3, 1, 1), generator=rng, dtype=torch.uint8)
        image[:, top : top + side // 2, left : left + side // 2] = colour
    return TensorImages(images)


def gradients(trainer: Trainer) -> list[Tensor]:
    nets = trainer.generator, trainer.discriminator
    return [parameter.grad.clone() for net in nets for parameter in net.parameters() if parameter.grad is not None]


def without_batch_statistics(trainer: Trainer) -> Trainer:
    """Batch norm by its running statistics, so that a sample's gradient does not depend on its batch."""
    for net in (trainer.generator, trainer.discriminator):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    return trainer


def relative_difference(one: list[Tensor], other: list[Tensor]) -> float:
    """The length of the difference over the length of the second."""
    difference = sum((a - b).double().square().sum() for a, b in zip(one, other, strict=True))
    return float((difference / sum(b.double().square().sum() for b in other)) ** 0.5)


def test_images_and_maps_lie_channels_last() -> None:
    """So that convolutions need no copies and the losses read images and reconstructions in one order."""
    trainer = Trainer(small(), blobs())
    layouts: list[bool] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in (*inputs, *(output if isinstance(output, tuple) else (output,))):
            if tensor.dim() == 4:
                layouts.append(tensor.is_contiguous(memory_format=torch.channels_last))

    trainer.discriminator.register_forward_hook(note)
    trainer.step()
    assert layouts == [True] * 6  # images, reconstructions and codes, of generated and real


@pytest.mark.parametrize(("precision", "digits"), [("bfloat16", 8), ("float16", 11)])
def test_mixed_precision_gives_nearly_the_same_gradients(precision: str, digits: int) -> None:
    """Rounding to so many binary digits, in layers that pass errors on: within 16 roundings of float32's gradients."""
    exact, mixed = (Trainer(small(precision=name), blobs()) for name in ("float32", precision))
    set_scale(mixed, 2.0**8)
    for trainer in (exact, mixed):
        trainer.step()
    found = gradients(mixed)
    assert all(gradient.dtype == torch.float32 for gradient in found)
    assert 0 < relative_difference(found, gradients(exact)) < 16 * 2.0**-digits
    for name, value in zip(STATISTICS, (mixed._rows[0] - exact._rows[0]).tolist(), strict=True):
        assert abs(value) < 16 * 2.0**-digits * max(1.0, abs(exact._rows[0][STATISTICS.index(name)].item()))


def set_scale(trainer: Trainer, scale: float) -> None:
    """Of a float16 run's gradients, before its first step."""
    trainer.precision._scaler._init_scale = scale


def test_float16_leaves_out_a_step_that_overflows_and_halves_its_scale() -> None:
    trainer = Trainer(small(precision="float16"), blobs())
    scaler = trainer.precision._scaler
    set_scale(trainer, 2.0**40)
    before = copy.deepcopy(trainer.generator.state_dict())["layers.0.0.weight"]
    trainer.step()
    assert torch.equal(trainer.generator.state_dict()["layers.0.0.weight"], before)
    assert scaler.get_scale() == 2.0**39
    trainer.check_finite()
    trainer.step()
    assert scaler.get_scale() == 2.0**38
    assert set(STATISTICS) <= set(trainer.statistics())
    assert not {"grad_norm_g", "grad_norm_d"} & set(trainer.statistics())  # infinite: no number for a curve


def test_parts_of_a_batch_add_up_to_it() -> None:
    """Without the pulling-away term and batch statistics, which look at a part alone."""
    whole, parts = (
        without_batch_statistics(Trainer(small(pt_weight=0.0, accumulate=count), blobs())) for count in (1, 4)
    )
    for trainer in (whole, parts):
        trainer.step()
    assert relative_difference(gradients(parts), gradients(whole)) < 1e-5
    torch.testing.assert_close(parts._rows[0][:5], whole._rows[0][:5])


def test_the_term_of_parts_is_their_mean() -> None:
    trainer = without_batch_statistics(Trainer(small(accumulate=2), blobs()))
    noise = torch.randn(8, trainer.generator.noise_size, generator=torch.Generator().manual_seed(0))
    terms = []
    with torch.no_grad():
        for part in noise.chunk(2):
            code = trainer.discriminator(trainer.generator(part))[1].flatten(1).double()
            unit = code / code.norm(dim=1, keepdim=True)
            terms.append(((unit @ unit.T).square().sum() - 4) / 12)
    trainer.step()
    assert trainer._rows[0][STATISTICS.index("pulling_away")].item() == pytest.approx(sum(terms).item() / 2, rel=1e-4)


@pytest.mark.slow
def test_compiled_networks_train_alike() -> None:
    """Three minutes of C++ on a machine of one core in full size; these nets are tiny."""
    plain, compiled = (Trainer(small(compile=choice), blobs()) for choice in (False, True))
    for trainer in (plain, compiled):
        trainer.step()
    assert relative_difference(gradients(compiled), gradients(plain)) < 1e-3
    assert list(compiled.generator.state_dict()) == list(plain.generator.state_dict())
    compiled.sampler()


def test_the_margin_that_the_data_suggest() -> None:
    """It falls while the auto-encoder learns, and repeats."""
    shown: list[int] = []

    def margin(steps: int) -> float:
        return mean_real_energy(Trainer(small(lr_d=0.002), blobs()), steps, shown.append)

    early, late = margin(5), margin(60)
    assert 0 < late < 0.7 * early
    assert shown == [*range(1, 6), *range(1, 61)]
    assert margin(5) == early
    generator = Trainer(small(), blobs())
    before = copy.deepcopy(generator.generator.state_dict())
    mean_real_energy(generator, 2, shown.append)
    assert all(torch.equal(value, before[name]) for name, value in generator.generator.state_dict().items())


def test_the_margin_is_the_mean_over_the_last_tenth(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(small(), blobs())
    energies = iter(torch.arange(20.0))
    monkeypatch.setattr(trainer, "autoencoder_step", lambda: next(energies))
    assert mean_real_energy(trainer, 20, lambda step: None) == 18.5


def learn(config: TrainConfig, steps: int) -> list[float]:
    trainer = Trainer(config, blobs())
    energies = []
    for _ in range(steps):
        trainer.step()
        energies.append(trainer._rows[(trainer.step_count - 1) % config.log_every][2].item())
    return energies


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_set_of_blobs_is_learned(precision: str) -> None:
    energies = learn(small(precision=precision, lr_d=0.002, steps=80), 80)
    assert sum(energies[-5:]) < 0.6 * sum(energies[:5])


def assert_no_wait(make: Callable[[], Trainer]) -> None:
    """Between two log lines, a step reads no value back from the device: a GPU could run ahead, or replay it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Waits(TorchDispatchMode):
        found: list[str] = []  # noqa: RUF012

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "_local_scalar_dense" in str(func) or "nonzero" in str(func):
                self.found.append(str(func))
            return func(*args, **(kwargs or {}))

    trainer = make()
    # The C++ kernels for the CPU read a margin, which lies beside them; a GPU's take it where it is.
    with ebgan_fast.use_backend("reference"), Waits() as waits:
        trainer.step()
    assert waits.found == []


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_waits_for_no_value(accumulate: int) -> None:
    assert_no_wait(lambda: Trainer(small(log_every=10, accumulate=accumulate), blobs()))
