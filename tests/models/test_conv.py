from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.models import Conv, ConvAutoEncoder, ConvGenerator, parse_layers, parse_noise

GENERATOR = "(8)4c-(6)4c2s-(5)4c2s-(3)3c"
NOISE = "7-4-2"


def make_generator(layers: str = GENERATOR, noise: str = NOISE) -> ConvGenerator:
    return ConvGenerator(parse_layers(layers), parse_noise(noise))


def make_autoencoder() -> ConvAutoEncoder:
    return ConvAutoEncoder(parse_layers("(4)4c2s-(6)4c2s-(8)4c2s"), parse_layers("(6)4c2s-(4)4c2s-(3)4c2s"))


def kinds(net: nn.Module) -> list[str]:
    return [type(module).__name__ for module in net.modules() if not list(module.children())]


def test_the_generators_layers_and_shapes() -> None:
    generator = make_generator()
    up, norm = "ConvTranspose2d", ["BatchNorm2d", "ReLU"]
    assert kinds(generator) == [up, *norm, up, *norm, up, *norm, "Conv2d", "Tanh"]
    assert generator.noise_shapes == [(7, 1, 1), (4, 4, 4), (2, 8, 8)]
    assert generator.noise_size == 7 + 4 * 16 + 2 * 64
    assert generator.image_shape == (3, 16, 16)
    assert generator(torch.randn(5, generator.noise_size)).shape == (5, 3, 16, 16)


def test_the_autoencoders_layers_and_shapes() -> None:
    net = make_autoencoder()
    leaky, down, up = "LeakyReLU", ["Conv2d", "BatchNorm2d"], ["ConvTranspose2d", "BatchNorm2d"]
    expected = ["Conv2d", leaky, *down, leaky, *down, leaky, *up, leaky, *up, leaky, "ConvTranspose2d"]
    assert kinds(net) == expected
    recon, code = net(torch.randn(2, 3, 24, 16))
    assert recon.shape == (2, 3, 24, 16)
    assert code.shape == (2, 8, 3, 2)
    assert net.shrink == 8


def test_a_bias_where_no_batch_norm_follows() -> None:
    for net in (make_generator(), make_autoencoder()):
        leaves = [module for module in net.modules() if not list(module.children())]
        for module, following in zip(leaves, [*leaves[1:], None], strict=True):
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                assert (module.bias is None) == isinstance(following, nn.BatchNorm2d)


def planes_reach(generator: ConvGenerator, first: int, last: int) -> Tensor:
    """Return the gradient of an image's sum of squares by its noise values `first` to `last`."""
    generator.eval()
    noise = torch.randn(1, generator.noise_size, requires_grad=True)
    generator(noise).square().sum().backward()
    assert noise.grad is not None
    return noise.grad[0, first:last]


def test_every_noise_plane_reaches_the_image() -> None:
    generator = make_generator()
    assert bool((planes_reach(generator, 0, generator.noise_size) != 0).all())


def test_the_planes_stand_where_their_layer_has_its_maps() -> None:
    """The corner value of a plane of the third layer changes only the image's corner.

    A value of the first vector changes all of the image.
    """
    generator = make_generator().eval()
    noise = torch.randn(1, generator.noise_size)
    before = generator(noise)
    corner = noise.clone()
    corner[0, 7 + 4 * 16] += 1  # plane 0 of the third layer, row 0, column 0
    changed = (generator(corner) != before).any(1)[0]
    assert bool(changed[0, 0])
    assert not bool(changed[6:].any())
    assert not bool(changed[:, 6:].any())
    everywhere = noise.clone()
    everywhere[0, 0] += 1
    assert bool((generator(everywhere) != before).any(1).all())


@pytest.mark.parametrize("net", [make_generator("(64)4c-(64)4c2s-(3)4c2s", "64"), make_autoencoder()], ids=["G", "D"])
def test_initial_weights(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            weight = module.weight.detach().double()
            n = weight.numel()
            assert abs(weight.mean().item()) < 5 * 0.02 / math.sqrt(n)
            assert abs(weight.std().item() / 0.02 - 1) < 5 / math.sqrt(2 * n)
            assert module.bias is None or bool((module.bias == 0).all())


@pytest.mark.parametrize(
    ("layers", "noise", "message"),
    [
        ("(3)4c", "5", "got 1 layer, expected at least 2"),
        ("(8)4c-(3)4c2s", "5-4", "got planes for 2 layers, expected 1 to 1"),
        ("(8)4c-(3)4c", "5", r"layer \(3\)4c: got kernel 4 with stride 1"),
    ],
)
def test_generators_that_cannot_be_built(layers: str, noise: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_generator(layers, noise)


def test_an_autoencoder_must_give_back_its_images_size() -> None:
    with pytest.raises(ValueError, match="divides the side of an image by 4 and a decoder that multiplies it by 2"):
        ConvAutoEncoder(parse_layers("(4)4c2s-(6)4c2s"), parse_layers("(3)4c2s"))


SMALL = Conv(GENERATOR, NOISE, "(4)4c2s-(6)4c2s", "(4)4c2s-(3)4c2s")


def test_settings_that_do_not_fit_the_images() -> None:
    shape = (3, 16, 16)
    assert SMALL.generator(shape).image_shape == shape
    assert SMALL.discriminator(shape)(torch.zeros(2, *shape))[0].shape == (2, *shape)
    with pytest.raises(ValueError, match=r"generator_layers: got .* \[3, 16, 16\], expected \[3, 32, 32\]"):
        SMALL.generator((3, 32, 32))
    with pytest.raises(ValueError, match=r"decoder_layers: got .* last layer of 1 maps"):
        SMALL.discriminator((1, 16, 16))
    with pytest.raises(ValueError, match=r"encoder_layers: got strides of product 4, expected .* 18"):
        SMALL.discriminator((3, 18, 18))
    with pytest.raises(ValueError, match="'x'"):
        Conv("x", "3", "(4)4c2s", "(3)4c2s").generator(shape)
