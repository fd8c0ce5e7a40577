from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ebgan_fast.models import AutoEncoder, Generator


def kinds(net: nn.Module) -> list[str]:
    return [type(module).__name__ for module in net.modules() if not list(module.children())]


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("image_shape", [(1, 32, 32), (3, 5, 7)])
def test_shapes(image_shape: tuple[int, int, int]) -> None:
    images = Generator(7, 3, 11, image_shape)(torch.randn(4, 7))
    recon, code = AutoEncoder(3, 13, image_shape=image_shape)(images)
    assert images.shape == recon.shape == (4, *image_shape)
    assert code.shape == (4, 13)


def test_layers_of_the_generator() -> None:
    assert kinds(Generator(7, 1, 11)) == ["Linear", "Tanh"]
    assert kinds(Generator(7, 3, 11)) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "Tanh"]


def test_layers_of_the_discriminator() -> None:
    """The input layer has no batch norm (the paper's appendix C), nor, as we read the paper, has the output."""
    assert kinds(AutoEncoder(2, 11)) == ["Linear", "ReLU", "Linear"]
    assert kinds(AutoEncoder(4, 11)) == ["Linear", "ReLU"] + ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]


def test_dropout_after_every_encoder_layer() -> None:
    net = AutoEncoder(3, 11, dropout=True)
    assert kinds(net) == ["Linear", "ReLU", "Dropout", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    assert [module.p for module in net.modules() if isinstance(module, nn.Dropout)] == [0.5, 0.5]


def test_parameter_counts_of_the_papers_best() -> None:
    """The best EBGAN is configuration b of figure 4: nLayerG 5, sizeG 800, nLayerD 2, sizeD 1024."""
    hidden = 800 + 800  # the gain and shift of batch norm, in place of a bias
    assert count(Generator(100, 5, 800)) == 100 * 800 + 3 * 800 * 800 + 4 * hidden + 800 * 1024 + 1024
    assert count(AutoEncoder(2, 1024)) == 2 * (1024 * 1024 + 1024)
    assert count(AutoEncoder(4, 256)) == (1024 * 256 + 256) + 2 * (256 * 256 + 512) + (256 * 1024 + 1024)


@pytest.mark.parametrize(
    ("net", "std"),
    [(Generator(100, 4, 300), 0.02), (AutoEncoder(3, 300), 0.002)],
    ids=["generator", "discriminator"],
)
def test_initial_weights(net: nn.Module, std: float) -> None:
    for module in net.modules():
        if not isinstance(module, nn.Linear):
            continue
        weight = module.weight.detach().double()
        n = weight.numel()
        # The bounds are five standard errors: of the mean, of the standard deviation, and of the share within one
        # standard deviation.
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(n)
        assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * n)
        within = math.erf(1 / math.sqrt(2))
        share = (weight.abs() < std).double().mean().item()
        assert abs(share - within) < 5 * math.sqrt(within * (1 - within) / n)
        assert module.bias is None or bool((module.bias == 0).all())


def test_the_code_is_what_the_decoder_reads() -> None:
    net = AutoEncoder(3, 11)
    recon, code = net(torch.randn(6, 1, 32, 32))
    assert bool((code >= 0).all())
    assert torch.equal(recon.flatten(1), net.decoder(code))


def test_generated_pixels_are_in_range() -> None:
    generator = Generator(3, 2, 4)
    images = generator(1e6 * torch.randn(8, 3))
    assert images.abs().max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Generator(0, 3, 8), "z_dim: got 0"),
        (lambda: Generator(4, 0, 8), "n_layer: got 0"),
        (lambda: Generator(4, 3, 0), "size: got 0"),
        (lambda: Generator(4, 3, 8, (1, 0, 32)), r"image_shape: got \(1, 0, 32\)"),
        (lambda: AutoEncoder(1, 8), "n_layer: got 1, expected at least 2"),
        (lambda: AutoEncoder(2, -1), "size: got -1"),
        (lambda: AutoEncoder(2, 8, image_shape=(32, 32)), r"image_shape: got \(32, 32\)"),
    ],
)
def test_impossible_sizes(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
