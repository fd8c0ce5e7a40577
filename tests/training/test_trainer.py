"""Tests of the lean training step against the plain algorithm, which computes everything separately."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.subjects import public_loop
from ebgan_fast.data.image_set import TensorImages, pad_to_square
from ebgan_fast.training.config import TrainConfig
from ebgan_fast.training.statistics import STATISTICS, NonFiniteError
from ebgan_fast.training.step import Trainer
from tests.rounding import assert_within_eager, size

from .conftest import Configure
from .helpers import bars
from .plain_step import Budget, gradients_of


class Float64Batches:
    """A stream of image batches in float64."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def next(self) -> Tensor:
        return self.batches.next().double()


def make(config: TrainConfig) -> Trainer:
    return Trainer(config, TensorImages(pad_to_square(bars(50, seed=0), config.image_size)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("pt_weight", [0.0, 0.1])
@pytest.mark.parametrize("layers", [(1, 2), (3, 2), (3, 4)], ids=str)
def test_gradients_equal_those_of_separate_passes(
    configure: Configure, layers: tuple[int, int], pt_weight: float
) -> None:
    """Gradients equal those of separate passes: without batch norm, with it in the generator, and with it in both
    networks.

    Half of the hinges are inactive.
    """

    def made(margin: float = 1.0) -> Trainer:
        trainer = make(
            configure(
                n_layer_g=layers[0],
                n_layer_d=layers[1],
                pt_weight=pt_weight,
                log_every=1,
                dropout_d=False,
                margin_schedule="constant",
                margin_end=None,
            )
        )
        trainer.start_margin = margin
        trainer.batches = Float64Batches(trainer.batches)  # type: ignore[assignment]
        for net in (trainer.generator, trainer.discriminator):
            for module in net.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, 0.0, 0.3)  # with the initial weights all samples would be alike
        return trainer

    first = made()
    with torch.no_grad():
        noise = torch.randn(first.config.batch_size, first.generator.noise_size, generator=first.noise_rng)
        fakes = first.generator(noise)
        energies = public_loop.energy(first.discriminator(fakes)[0], fakes)
    margin = energies.sort().values[3:5].mean().item()  # between the two middle energies of eight
    budget, trainer = Budget(lambda: made(margin)), made(margin)
    assert budget.truth.statistics()["hinge_active"] == budget.eager.statistics()["hinge_active"] == 0.5
    trainer.step()
    budget.assert_gradients(gradients_of(trainer.generator, trainer.discriminator), each=True)
    budget.assert_statistics(trainer.statistics(), STATISTICS)


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
    """A dispatch mode that counts matrix products by the shape of their result."""

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
    # Weight gradients of the discriminator's first layer: one each for the real and the generated batch, none for the
    # generator's loss. The decoder's weight has the same shape, and as many gradients.
    assert products.shapes[12, 1024] == 2 + 2
    # Gradients with respect to images [8, 1024]: only for the generator's loss.
    assert products.shapes[8, 1024] == 1


def test_the_average_follows_its_formula(configure: Configure) -> None:
    decay = 0.3
    trainer = make(configure(ema=decay))
    expected = [parameter.detach().double().clone() for parameter in trainer.generator.parameters()]
    ramp = [min(decay, (1 + t) / (10 + t)) for t in range(6)]
    assert min(ramp) < decay == max(ramp)
    largest = [weights.abs() for weights in expected]
    for d in ramp:
        trainer.step()
        now = [parameter.detach().double() for parameter in trainer.generator.parameters()]
        expected = [d * average + (1 - d) * weights for average, weights in zip(expected, now, strict=True)]
        largest = [torch.maximum(most, weights.abs()) for most, weights in zip(largest, now, strict=True)]
    assert trainer.average is not None
    # An update rounds at most eight times, each by half a unit of the largest weight so far. Each later update keeps at
    # most the share `decay` of that error.
    bound = 8 / 2 * torch.finfo(torch.float32).eps / (1 - decay)
    for average, value, most in zip(trainer.average.values, expected, largest, strict=True):
        assert bool(((average.double() - value).abs() <= bound * most).all())


def test_margin_and_learning_rates_reach_the_step(configure: Configure) -> None:
    """The scheduled margin and rates reach the step. While every hinge is active, the loss shows the margin."""
    config = configure(margin=1000.0, margin_schedule="linear", margin_end=900.0, dropout_d=False, ema=0.0, log_every=1)
    trainer = make(config)
    for step in range(3):
        assert trainer.margin == 1000 - 100 * step / config.steps
        trainer.step()
        row = trainer.statistics()
        margin = row["loss_d"] - row["energy_real"] + row["energy_fake"]
        # The margin, the difference, a sum of eight and the sum with the real energy round by ten half units of the
        # margin. The energies, which are a twentieth of the margin, add one more.
        assert row["energy_fake"] < row["energy_real"] < 50
        expected = 1000 - 100 * step / config.steps
        assert abs(margin - expected) <= 11 / 2 * torch.finfo(torch.float32).eps * expected
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
    trainer, each = (make(configure(log_every=every)) for every in (3, 1))
    # Dropout draws from the global random numbers, so both trainers begin each step from the same state.
    rows = []
    for step in range(1, 8):
        before = torch.get_rng_state()
        trainer.step()
        torch.set_rng_state(before)
        each.step()
        rows.append([each.statistics()[name] for name in STATISTICS])
        first = (step - 1) // 3 * 3
        means = torch.tensor(rows[first:], dtype=torch.float64).mean(0).tolist()
        found = trainer.statistics()
        assert [found[name] for name in STATISTICS] == means


class WithOtherLoss(Trainer):
    """A trainer whose generator's loss uses the images alone, the decoder's output alone, or neither."""

    of = "fakes"

    def generator_loss(
        self, recon: Tensor, fakes: Tensor, code: Tensor, upstream: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        loss = {"fakes": 3 * fakes.sum(), "recon": recon.square().sum(), "none": torch.ones((), requires_grad=True)}
        return loss[self.of], torch.zeros(())


@pytest.mark.parametrize("of", ["fakes", "recon", "none"])
def test_an_overriding_loss_may_take_what_it_will(configure: Configure, of: str) -> None:
    """An overriding loss may use any of its inputs: its gradient reaches the generated images."""
    config = configure(dropout_d=False)
    trainer = WithOtherLoss(config, TensorImages(pad_to_square(bars(50, seed=0), config.image_size)))
    trainer.of = of
    arrived: list[Tensor] = []
    expected: list[Tensor] = []

    def listen(generator: nn.Module, inputs: Any, fakes: Tensor) -> None:
        fakes.register_hook(arrived.append)

    def expect(discriminator: nn.Module, inputs: tuple[Tensor], outputs: tuple[Tensor, Tensor]) -> None:
        (fakes,), (recon, _) = inputs, outputs
        if not expected:  # the second pass is over real images
            gradients = {
                "fakes": lambda: torch.full_like(fakes, 3.0),
                "recon": lambda: torch.autograd.grad(recon.square().sum(), fakes, retain_graph=True)[0],
                "none": lambda: torch.zeros_like(fakes),
            }
            expected.append(gradients[of]())

    trainer.generator.register_forward_hook(listen)
    trainer.discriminator.register_forward_hook(expect)
    trainer.step()
    assert len(arrived) == 1
    assert torch.equal(arrived[0], expected[0])


def test_the_gradients_lengths_are_those_of_the_last_step_of_an_interval(configure: Configure) -> None:
    trainer = make(configure(log_every=2))
    for step in range(1, 5):
        trainer.step()
        if step % 2 == 0:
            found = trainer.statistics()
            for name, net in (("grad_norm_g", trainer.generator), ("grad_norm_d", trainer.discriminator)):
                gradients = gradients_of(net)
                eager = sum(gradient.square().sum() for gradient in gradients) ** 0.5
                assert_within_eager(found[name], size(gradients), eager, torch.float32, name)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_weight_is_found_and_named(configure: Configure, value: float) -> None:
    for plant, where in [
        (lambda trainer: trainer.generator.layers[0].weight, "generator"),
        (lambda trainer: trainer.discriminator.encoder[4].running_var, "discriminator"),
        (
            lambda trainer: next(iter(trainer.optimizer_d.state.values()))["exp_avg"],
            "discriminator's optimizer",
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
    # The first batch norm's input is linear in the noise N(0, I): its mean is 0, its variance the weights' squared
    # length.
    weight, norm = sampler.layers[0].weight, sampler.layers[1]
    variance = weight.pow(2).sum(1)
    draws = 5000
    assert (norm.running_mean.abs() < 5 * (variance / draws).sqrt()).all()
    assert ((norm.running_var / variance - 1).abs() < 5 * (2 / draws) ** 0.5).all()
    assert norm.momentum == trainer.generator.layers[1].momentum
    # Sampling changes nothing in the run.
    for name in ("noise_rng", "torch_rng"):
        assert torch.equal(before[name], trainer.state_dict()[name])
    assert all(torch.equal(value, trainer.generator.state_dict()[name]) for name, value in before["generator"].items())
    assert trainer.generator.training
