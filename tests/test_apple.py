"""All code that computes in float64 works for tensors on a device without float64."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.metrics import FrechetDistance, gaussian, kernel_distance
from ebgan_fast.metrics.classifier_scores import score
from ebgan_fast.models.interpolation import spherical_interpolation
from ebgan_fast.training import TrainConfig
from ebgan_fast.training.parallel import World
from ebgan_fast.training.statistics import STATISTICS, Statistics
from ebgan_fast.training.step import Trainer
from tests.apple import DEVICE, AppleTensor, ThereToo


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ONE, OTHER = _drawn(12, 10), _drawn(12, 10, seed=1)


def _frechet(one: Tensor, other: Tensor) -> Tensor:
    distance = FrechetDistance()
    distance.update(one, real=True)
    distance.update(other, real=False)
    return torch.tensor(distance.compute())


COMPUTED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a Gaussian": lambda one, other: gaussian(one).mean,
    "a Frechet distance": _frechet,
    "KID of subsets": lambda one, other: torch.tensor(kernel_distance(one, other, size=5)),
    "KID of all": lambda one, other: torch.tensor(kernel_distance(one, other, size=12)),
    "scores of logits": lambda one, other: torch.tensor(score(one, splits=2).exp_score),
    "a way between points": lambda one, other: spherical_interpolation(one, other, 3).cpu(),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_in_float64_needs_none_of_the_device(name: str) -> None:
    compute = COMPUTED[name]
    with ThereToo():
        found = compute(AppleTensor(ONE), AppleTensor(OTHER))
    assert torch.equal(found, compute(ONE, OTHER))


def test_the_stand_in_refuses_float64() -> None:
    """The stand-in refuses float64, so that the tests with it can fail."""
    for convert in (lambda it: it.double(), lambda it: it.to("cpu", torch.float64), lambda it: it.to(torch.float64)):
        with pytest.raises(TypeError, match="doesn't support float64"):
            convert(AppleTensor(ONE))
    assert AppleTensor(ONE).cpu().double().dtype == torch.float64
    assert (AppleTensor(ONE) + 1).device == DEVICE


def test_the_means_of_a_log_interval(tmp_path: object) -> None:
    config = TrainConfig(out=tmp_path, steps=4, log_every=4)  # type: ignore[arg-type]
    rows = _drawn(4, len(STATISTICS))
    found = []
    for held in (rows, AppleTensor(rows)):
        statistics = Statistics(config, torch.device("cpu"), World(), lambda step: True)
        statistics.rows = held
        found.append(statistics.means(4))
    assert found[0] == found[1]
    assert found[0]["loss_d"] == pytest.approx(float(rows.double().mean(0)[STATISTICS.index("loss_d")]), rel=1e-15)


def test_the_mean_energy_of_real_images() -> None:
    energies = [1.0, 2.0, 4.0]
    for made in (torch.tensor, lambda value: AppleTensor(torch.tensor(value))):
        waiting = [made(value) for value in energies]
        alone = SimpleNamespace(world=World(), autoencoder_step=lambda waiting=waiting: waiting.pop(0))
        assert Trainer.mean_real_energy(alone, 3, lambda step: None) == energies[-1]  # type: ignore[arg-type]


def test_a_module_moves_there_with_its_coefficients() -> None:
    """A float64 margin becomes float32 on a device without float64, where torch's own conversion would fail."""
    game = ebgan_fast.EBGAN(margin=0.1)

    def move(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return tensor.clone()

    game._apply(move)
    assert game.margin.dtype == torch.float32
    assert float(game.margin) == pytest.approx(0.1)
