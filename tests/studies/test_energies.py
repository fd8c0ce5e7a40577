"""An auto-encoder alone learns to reconstruct. In an EBGAN it follows equation 1, and its generator equation 2.

The area under the curve is what it is said to be.
"""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from bench.subjects import public_loop
from ebgan_fast.data.image_set import TensorImages
from ebgan_fast.models import Generator
from ebgan_fast.studies.networks.energies import EnergyConfig, EnergyTrainer, LeakyAutoEncoder, area_under_curve
from ebgan_fast.training.statistics import NonFiniteError
from tests.rounding import assert_within_eager

CONFIG = EnergyConfig(margin=0.0477, pt_weight=0.3, lr=0.01, batch_size=16, ema=0.9, seed=3)


def points() -> TensorImages:
    chance = torch.Generator().manual_seed(0)
    return TensorImages(torch.randint(0, 256, (50, 1, 1, 2), generator=chance, dtype=torch.uint8))


def trainer(generated: bool, config: EnergyConfig = CONFIG) -> tuple[EnergyTrainer, Generator | None]:
    torch.manual_seed(1)
    generator = Generator(4, 3, 8, (1, 1, 2)) if generated else None
    return EnergyTrainer(config, points(), LeakyAutoEncoder(2, 8, 8), generator), generator


def test_a_code_has_its_length_and_each_point_its_own_energy() -> None:
    torch.manual_seed(0)
    network = LeakyAutoEncoder(2, 8, 1)
    some = torch.randn(6, 1, 1, 2)
    recon, code = network(some)
    assert recon.shape == some.shape
    assert code.shape == (6, 1)
    alone = torch.cat([network(one)[0] for one in some.split(1)])
    exact = network.double()(some.double())[0]
    assert_within_eager(recon, exact, alone, torch.float32, "reconstructions in a batch")


@pytest.mark.parametrize("generated", [False, True])
def test_a_step_descends_its_loss(generated: bool) -> None:
    one, generator = trainer(generated)
    twin, _ = trainer(generated)
    real = twin._batches.next()
    noise = torch.randn(16, 4, generator=twin._noise) if generated else None

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        """Return the gradients of the auto-encoder, and of the generator if there is one."""
        network = copy.deepcopy(one.discriminator).to(dtype)
        images = real.to(dtype)
        energy = public_loop.energy(network(images)[0], images)
        if noise is None or generator is None:
            return list(torch.autograd.grad(energy.mean(), list(network.parameters())))
        drawing = copy.deepcopy(generator).to(dtype)
        fakes = drawing(noise.to(dtype))
        held = fakes.detach()
        energy_held = public_loop.energy(network(held)[0], held)
        # The margin lies amid the energies, 0.007 from the nearest. So another margin gives other gradients.
        assert int((energy_held < CONFIG.margin).sum()) == 5
        loss = energy.mean() + (CONFIG.margin - energy_held).clamp(min=0).mean()
        of_d = torch.autograd.grad(loss, list(network.parameters()))
        recon, code = network(fakes)
        loss = public_loop.energy(recon, fakes).mean() + CONFIG.pt_weight * public_loop.pulling_away(code)
        return [*of_d, *torch.autograd.grad(loss, list(drawing.parameters()))]

    truth, eager = gradients(torch.float64), gradients(torch.float32)
    one.step()
    networks = [one.discriminator, *([generator] if generator else [])]
    before = [twin.discriminator, *([twin._generator] if twin._generator else [])]
    for network, old in zip(networks, before, strict=True):
        assert network is not None
        moved = zip(network.parameters(), old.parameters(), strict=True)
        # The first step of Adam moves a weight by its rate times the sign of the gradient.
        assert all((a - b).abs().max() > CONFIG.lr / 2 for a, b in moved)
    found = [parameter.grad for network in networks for parameter in network.parameters()]
    assert len(found) == len(truth)
    for index, (gradient, exact, near) in enumerate(zip(found, truth, eager, strict=True)):
        assert gradient is not None
        assert_within_eager(gradient, exact, near, torch.float32, f"gradient {index}")


def test_the_average_draws() -> None:
    one, generator = trainer(generated=True)
    assert generator is not None
    initial = copy.deepcopy(generator)
    one.step()
    sampler = one.sampler()
    assert sampler is not None
    for drawing, first, last in zip(sampler.parameters(), initial.parameters(), generator.parameters(), strict=True):
        # The first update has the decay 1 / 10.
        exact = 0.1 * first.double() + 0.9 * last.double()
        assert_within_eager(drawing, exact, 0.1 * first + 0.9 * last, torch.float32, "average")
    alone, _ = trainer(generated=False)
    assert alone.sampler() is None


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    one, _ = trainer(generated=True, config=dataclasses.replace(CONFIG, lr=1e30))
    for _ in range(3):
        one.step()
    with pytest.raises(NonFiniteError, match="step 3: got loss nan"):
        one.check_finite()
    one.close()


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    chance = torch.Generator().manual_seed(0)
    real = torch.randint(0, 8, (31,), generator=chance).float()
    others = torch.randint(2, 11, (17,), generator=chance).float()
    pairs = [(one, other) for one in real.tolist() for other in others.tolist()]
    expected = sum((other > one) + (other == one) / 2 for one, other in pairs) / len(pairs)
    assert area_under_curve(real, others) == pytest.approx(expected, rel=1e-12)
    assert area_under_curve(real, real + 100) == 1.0
    assert area_under_curve(real, real) == pytest.approx(0.5, rel=1e-12)
