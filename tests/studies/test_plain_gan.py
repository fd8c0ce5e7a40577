"""The plain GAN follows the gradients of its losses, uses the optimizers of its config, and reports overflows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from ebgan_fast.data.image_set import TensorImages
from ebgan_fast.models.mlp import LogisticDiscriminator
from ebgan_fast.studies.networks.plain_gan import GanConfig, GanTrainer
from ebgan_fast.training.statistics import NonFiniteError
from tests.rounding import assert_within_eager


def images() -> TensorImages:
    return TensorImages(
        torch.randint(0, 256, (40, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    )


def config(**fields: object) -> GanConfig:
    small: dict[str, object] = {
        "n_layer_g": 2,
        "n_layer_d": 3,
        "size_g": 8,
        "size_d": 8,
        "dropout_d": False,
        "optim_g": "sgd",
        "optim_d": "sgd",
        "lr": 0.1,
        "z_dim": 3,
        "batch_size": 10,
    }
    return GanConfig(**{**small, **fields})  # type: ignore[arg-type]


def test_a_step_descends_goodfellows_losses() -> None:
    """The losses are the discriminator's cross-entropy and -log D(G(z)), with both networks as they were before the
    step."""
    trainer, twin = GanTrainer(config(lr=1.0), images()), GanTrainer(config(lr=1.0), images())
    for _ in range(3):  # at the start the gradient of the logit's bias is 0
        trainer.step()
        twin.step()
    real, noise = twin.batches.next(), torch.randn(10, 3, generator=twin.noise_rng)

    def gradients(dtype: torch.dtype) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the losses (D, G), the gradients of the discriminator, and those of the generator."""
        generator, discriminator = copy.deepcopy(twin.generator).to(dtype), copy.deepcopy(twin.discriminator).to(dtype)
        fakes = generator(noise.to(dtype))
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        ones, zeros = torch.ones(10, dtype=dtype), torch.zeros(10, dtype=dtype)
        loss_d = bce(discriminator(real.to(dtype)), ones) + bce(discriminator(fakes.detach()), zeros)
        loss_g = bce(discriminator(fakes), ones)
        of_discriminator = torch.autograd.grad(loss_d, list(discriminator.parameters()), retain_graph=True)
        of_generator = torch.autograd.grad(loss_g, list(generator.parameters()))
        return torch.stack([loss_d, loss_g]), list(of_discriminator), list(of_generator)

    truth, eager = gradients(torch.float64), gradients(torch.float32)
    losses = torch.stack(trainer.step())
    assert_within_eager(losses, truth[0], eager[0], torch.float32, "losses")
    for net, before, exact, near in (
        (trainer.discriminator, twin.discriminator, truth[1], eager[1]),
        (trainer.generator, twin.generator, truth[2], eager[2]),
    ):
        name = type(net).__name__
        found = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        # Compare a network's gradients as one vector: for biases before a batch norm they are only rounding.
        assert_within_eager(found, exact, near, torch.float32, f"gradients of the {name}")
        start = list(before.parameters())
        after, near = ([a - b for a, b in zip(start, steps, strict=True)] for steps in (exact, near))
        assert_within_eager(list(net.parameters()), after, near, torch.float32, f"weights of the {name}")


def test_optimizers_are_those_of_the_config() -> None:
    trainer = GanTrainer(config(optim_g="adam"), images())
    assert isinstance(trainer.optimizer_g, torch.optim.Adam)
    assert isinstance(trainer.optimizer_d, torch.optim.SGD)
    assert trainer.optimizer_g.param_groups[0]["lr"] == trainer.optimizer_d.param_groups[0]["lr"] == 0.1


def test_it_learns_to_draw_the_one_image_there_is() -> None:
    one = TensorImages(torch.full((20, 1, 4, 4), 255, dtype=torch.uint8))
    # A discriminator of two layers has no batch norm, which would make all constant batches look alike.
    trainer = GanTrainer(config(n_layer_d=2, optim_g="adam", optim_d="adam", lr=0.01), one)
    for _ in range(300):
        trainer.step()
    assert trainer.sampler()(torch.randn(50, 3)).mean() > 0.9


def test_weights_that_overflow_are_told_of() -> None:
    trainer = GanTrainer(config(), images())
    trainer.step()
    trainer.check_finite()
    with torch.no_grad():
        next(trainer.generator.parameters())[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="weight in the Generator"):
        trainer.check_finite()


def test_the_discriminators_layers_are_the_papers() -> None:
    """The discriminator has nLayerD weight layers. Batch norm follows all but the first and the last; dropout follows
    each hidden layer."""
    kinds = [type(module).__name__ for module in LogisticDiscriminator(3, 8, True, (1, 4, 4)).modules()]
    assert [kind for kind in kinds if kind in ("Linear", "BatchNorm1d", "Dropout")] == [
        "Linear",
        "Dropout",
        "Linear",
        "BatchNorm1d",
        "Dropout",
        "Linear",
    ]
    assert LogisticDiscriminator(1, 8, True, (1, 4, 4))(torch.zeros(2, 1, 4, 4)).shape == (2,)
    with pytest.raises(ValueError, match="n_layer: got 0"):
        LogisticDiscriminator(0, 8)
