"""The lean step against the plain algorithm, with everything computed apart."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ebgan_fast.data.image_set import TensorImages, pad_to_square
from ebgan_fast.training.config import TrainConfig
from ebgan_fast.training.trainer import STATISTICS, NonFiniteError, Trainer

from .conftest import Configure
from .helpers import bars


class Float64Batches:
    """A stream of images in float64."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def next(self) -> Tensor:
        return self.batches.next().double()


def make(config: TrainConfig) -> Trainer:
    return Trainer(config, TensorImages(pad_to_square(bars(50, seed=0), config.image_size)))


def plain_energy(recon: Tensor, images: Tensor) -> Tensor:
    return (recon - images).pow(2).flatten(1).sum(1).sqrt()


def plain_pulling_away(code: Tensor) -> Tensor:
    unit = code / code.norm(dim=1, keepdim=True)
    squares = (unit @ unit.T).pow(2)
    n = len(code)
    return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1))


def gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def assert_same_up_to_rounding(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Relative to each tensor's largest element, within torch's own bounds for float64 (1e-7)."""
    assert len(actual) == len(expected) > 0
    for one, other in zip(actual, expected, strict=True):
        scale = other.abs().max()
        assert scale > 0
        torch.testing.assert_close(one / scale, other / scale)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pt_weight", [0.0, 0.1])
@pytest.mark.parametrize("layers", [(1, 2), (3, 2), (3, 4)], ids=str)
def test_gradients_equal_those_of_separate_passes(
    configure: Configure, layers: tuple[int, int], pt_weight: float
) -> None:
    """Without batch norm, with it in the generator, and with it in both. Half of the hinges are off."""
    config = configure(
        n_layer_g=layers[0],
        n_layer_d=layers[1],
        pt_weight=pt_weight,
        dropout_d=False,
        margin_schedule="constant",
        margin_end=None,
    )
    trainer = make(config)
    trainer.batches = Float64Batches(trainer.batches)  # type: ignore[assignment]
    for net in (trainer.generator, trainer.discriminator):
        for module in net.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.3)  # the initial ones give samples that are all alike
    generator, discriminator = copy.deepcopy(trainer.generator), copy.deepcopy(trainer.discriminator)
    real = copy.deepcopy(trainer.batches).next()
    rng = torch.Generator()
    rng.set_state(trainer.noise_rng.get_state())
    noise = torch.randn(config.batch_size, generator.noise_size, generator=rng)

    fakes = generator(noise)
    recon, code = discriminator(fakes)
    pulling_away = plain_pulling_away(code)
    loss_g = plain_energy(recon, fakes).mean() + pt_weight * pulling_away
    loss_g.backward()

    discriminator.zero_grad()
    with torch.no_grad():
        fakes = generator(noise)
    energy_real = plain_energy(discriminator(real)[0], real)
    energy_fake = plain_energy(discriminator(fakes)[0], fakes)
    margin = energy_fake.detach().sort().values[3:5].mean().item()  # between the two middle ones of eight
    loss_d = energy_real.mean() + (margin - energy_fake).clamp_min(0).mean()
    loss_d.backward()

    trainer.start_margin = margin
    trainer.step()
    assert_same_up_to_rounding(gradients(trainer.generator), gradients(generator))
    assert_same_up_to_rounding(gradients(trainer.discriminator), gradients(discriminator))
    expected = {
        "loss_d": loss_d,
        "loss_g": loss_g,
        "energy_real": energy_real.mean(),
        "energy_fake": energy_fake.mean(),
        "hinge_active": torch.tensor(0.5),
        "pulling_away": pulling_away,
    }
    for name, value in zip(STATISTICS, trainer._rows[0].tolist(), strict=True):
        assert value == pytest.approx(expected[name].item(), rel=1e-7)


def test_the_discriminator_gets_no_gradient_from_the_generators_loss(configure: Configure) -> None:
    trainer = make(configure())
    arrived: Counter[str] = Counter()
    order: list[str] = []
    for net in ("generator", "discriminator"):
        for name, parameter in getattr(trainer, net).named_parameters():
            parameter.register_post_accumulate_grad_hook(lambda _, label=f"{net}.{name}": arrived.update([label]))
            parameter.register_post_accumulate_grad_hook(lambda _, label=net: order.append(label))
    trainer.step()
    assert order == sorted(order, reverse=True), "the discriminator's came before the generator's loss was done"
    parameters = [*trainer.generator.parameters(), *trainer.discriminator.parameters()]
    assert len(arrived) == len(parameters)
    assert set(arrived.values()) == {1}


class Products(TorchDispatchMode):
    """Counts matrix products by the shape of their result."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default:
            self.shapes[tuple(sorted(result.shape))] += 1
        return result


def test_a_step_computes_no_gradient_that_it_does_not_use(configure: Configure) -> None:
    trainer = make(configure())
    passes: Counter[str] = Counter()
    for net in ("generator", "discriminator"):
        getattr(trainer, net).register_forward_hook(lambda *_, label=net: passes.update([label]))
    with Products() as products:
        trainer.step()
    assert passes == {"generator": 1, "discriminator": 2}
    # Weight gradients of the discriminator's first layer: for the real and the generated batch, none for the
    # generator's loss. As many of its decoder, whose shape is the same.
    assert products.shapes[12, 1024] == 2 + 2
    # Gradient with respect to images [8, 1024]: for the generator's loss alone.
    assert products.shapes[8, 1024] == 1


def test_the_average_follows_its_formula(configure: Configure) -> None:
    decay = 0.3
    trainer = make(configure(ema=decay))
    expected = [parameter.detach().double().clone() for parameter in trainer.generator.parameters()]
    ramp = [min(decay, (1 + t) / (10 + t)) for t in range(6)]
    assert min(ramp) < decay == max(ramp)
    for d in ramp:
        trainer.step()
        now = [parameter.detach().double() for parameter in trainer.generator.parameters()]
        expected = [d * average + (1 - d) * weights for average, weights in zip(expected, now, strict=True)]
    assert trainer.average is not None
    for average, value in zip(trainer.average.values, expected, strict=True):
        torch.testing.assert_close(average.double(), value, rtol=1.3e-6, atol=1e-8)  # torch's rtol for float32


def test_margin_and_learning_rates_reach_the_step(configure: Configure) -> None:
    """While every hinge is active, the loss gives the margin away."""
    config = configure(margin=1000.0, margin_schedule="linear", margin_end=900.0, dropout_d=False, ema=0.0)
    trainer = make(config)
    for step in range(3):
        assert trainer.margin == 1000 - 100 * step / config.steps
        trainer.step()
        row = dict(zip(STATISTICS, trainer._rows[step].tolist(), strict=True))
        margin = row["loss_d"] - row["energy_real"] + row["energy_fake"]
        assert margin == pytest.approx(1000 - 100 * step / config.steps, rel=1e-6)
        rate = 0.001 * (1 - step / config.steps)
        assert [trainer.optimizer_g.param_groups[0]["lr"], trainer.optimizer_d.param_groups[0]["lr"]] == [rate] * 2


def test_a_learned_set_of_bars_has_lower_energy(configure: Configure) -> None:
    trainer = make(
        configure(steps=150, log_every=10, size_d=64, dropout_d=False, margin_schedule="constant", margin_end=None)
    )
    energies = []
    for step in range(150):
        trainer.step()
        if (step + 1) % 10 == 0:
            energies.append(trainer.statistics()["energy_real"])
    assert energies[-1] < 0.5 * energies[0]


def test_statistics_are_means_over_the_interval(configure: Configure) -> None:
    trainer = make(configure(log_every=3))
    rows = []
    for step in range(1, 8):
        trainer.step()
        rows.append(trainer._rows[(step - 1) % 3].double().clone())
        first = (step - 1) // 3 * 3
        means = torch.stack(rows[first:]).mean(0).tolist()
        found = trainer.statistics()
        assert [found[name] for name in STATISTICS] == means


def test_the_gradients_lengths_are_those_of_the_last_step_of_an_interval(configure: Configure) -> None:
    trainer = make(configure(log_every=2))
    for step in range(1, 5):
        trainer.step()
        lengths = [
            sum(gradient.double().square().sum().item() for gradient in gradients(net)) ** 0.5
            for net in (trainer.generator, trainer.discriminator)
        ]
        if step % 2 == 0:
            found = trainer.statistics()
            assert [found["grad_norm_g"], found["grad_norm_d"]] == pytest.approx(lengths, rel=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_weight_is_found_and_named(configure: Configure, value: float) -> None:
    for plant, where in [
        (lambda trainer: trainer.generator.layers[0].weight, "generator"),
        (lambda trainer: trainer.discriminator.encoder[4].running_var, "discriminator"),
        (
            lambda trainer: next(iter(trainer.optimizer_d.state.values()))["exp_avg"],
            "discriminator's optimiser",
        ),
        (lambda trainer: trainer.average.values[0], "average of the generator"),
    ]:
        trainer = make(configure())
        trainer.step()
        trainer.check_finite()
        plant(trainer).detach().view(-1)[-1] = value
        with pytest.raises(NonFiniteError, match=f"step 1: got an infinite or NaN value in the {where},"):
            trainer.check_finite()


def test_a_non_finite_loss_is_found_and_dated(configure: Configure) -> None:
    trainer = make(configure(log_every=10))
    for step in range(1, 7):
        if step == 4:
            trainer.discriminator.decoder.bias.data[5] = float("nan")
        trainer.step()
    with pytest.raises(NonFiniteError, match="step 4: got loss_d nan"):
        trainer.statistics()


def test_too_few_images(configure: Configure) -> None:
    with pytest.raises(ValueError, match="got batch_size 51, expected 1 to 50"):
        make(configure(batch_size=51))


def test_the_sampler_is_the_average_with_its_own_statistics(configure: Configure, tmp_path: Path) -> None:
    trainer = make(configure())
    for _ in range(5):
        trainer.step()
    before = copy.deepcopy(trainer.state_dict())
    sampler = trainer.sampler()
    assert trainer.average is not None
    assert not sampler.training
    assert all(map(torch.equal, sampler.parameters(), trainer.average.values))
    # The first batch norm's input is linear in the noise N(0, I): mean 0 and the weights' squared length.
    weight, norm = sampler.layers[0].weight, sampler.layers[1]
    variance = weight.pow(2).sum(1)
    draws = 5000
    assert (norm.running_mean.abs() < 5 * (variance / draws).sqrt()).all()
    assert ((norm.running_var / variance - 1).abs() < 5 * (2 / draws) ** 0.5).all()
    assert norm.momentum == trainer.generator.layers[1].momentum
    # Sampling leaves no trace in the run.
    for name in ("noise_rng", "torch_rng"):
        assert torch.equal(before[name], trainer.state_dict()[name])
    assert all(torch.equal(value, trainer.generator.state_dict()[name]) for name, value in before["generator"].items())
    assert trainer.generator.training
