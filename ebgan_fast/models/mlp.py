"""The fully connected networks of the paper's grid search on MNIST (section 4.1, appendix C)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from .batch_norm import BatchNorm1d

# Standard deviations of the initial weights, after the paper's appendix C.
_GENERATOR_STD = 0.02
_DISCRIMINATOR_STD = 0.002

_DROPOUT = 0.5


class Generator(nn.Module):
    """The fully connected generator: noise [N, z_dim] to images [N, C, H, W] in (-1, 1).

    `n_layer` weight layers: all but the last give `size` features, batch-normalized, then ReLU; the last
    gives the pixels through tanh, with no batch norm. Initial weights are N(0, 0.02^2), biases 0.

    A layer that batch norm follows has no bias: the norm subtracts it again, and Adam would let it drift on
    rounding noise.

    Args:
        z_dim: length of the noise vector. The paper gives none.
        n_layer: nLayerG, at least 1.
        size: sizeG, features of each hidden layer.
        image_shape: (C, H, W).

    Attributes:
        noise_size: numbers of noise a sample takes, which is z_dim.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> import torch
        >>> from ebgan_fast.models import Generator
        >>> generator = Generator(z_dim=100, n_layer=3, size=64, image_shape=(1, 28, 28))
        >>> images = generator(torch.randn(4, generator.noise_size))
        >>> images.shape
        torch.Size([4, 1, 28, 28])
        >>> bool(images.abs().max() < 1)
        True
    """

    def __init__(self, z_dim: int, n_layer: int, size: int, image_shape: tuple[int, int, int] = (1, 32, 32)) -> None:
        super().__init__()
        _check_at_least("z_dim", z_dim, 1)
        _check_at_least("n_layer", n_layer, 1)
        _check_at_least("size", size, 1)
        pixels = _pixels(image_shape)
        layers: list[nn.Module] = []
        features = z_dim
        for _ in range(n_layer - 1):
            layers += [nn.Linear(features, size, bias=False), BatchNorm1d(size), nn.ReLU(inplace=True)]
            features = size
        self.layers = nn.Sequential(*layers, nn.Linear(features, pixels), nn.Tanh())
        self.noise_size = z_dim
        self.image_shape = image_shape
        _init_weights(self, _GENERATOR_STD)

    def forward(self, noise: Tensor) -> Tensor:
        """noise: [N, z_dim]. Returns [N, C, H, W]."""
        images: Tensor = self.layers(noise).unflatten(1, self.image_shape)
        return images


class AutoEncoder(nn.Module):
    """The energy's fully connected network: images [N, C, H, W] to (reconstruction [N, C, H, W], code [N, size]).

    The encoder has `n_layer - 1` weight layers of `size` features, each with ReLU and all but the first with
    batch norm (the paper leaves it out at the "discriminator input layer"). The decoder is one weight layer.
    Initial weights are N(0, 0.002^2), biases 0.

    Our own readings, where the paper is silent or unclear:
        The decoder's output has neither batch norm nor tanh. Batch norm there would force the same mean and
        spread of each pixel on real and generated batches, and make a sample's energy depend on its
        neighbors in the batch. The paper names tanh for the generator only; tanh reaches the black of the
        background, -1, at infinity. Dropout has rate 0.5 and follows every encoder layer, the code's
        included: at nLayerD = 2 there is no other.

    Args:
        n_layer: nLayerD, encoder and decoder layers together, at least 2.
        size: sizeD, features of each encoder layer.
        dropout: dropoutD.
        image_shape: (C, H, W).

    Raises:
        ValueError: a size below 1, or fewer than 2 layers.

    Example:
        >>> import torch
        >>> import ebgan_fast
        >>> from ebgan_fast.models import AutoEncoder
        >>> discriminator = AutoEncoder(n_layer=2, size=32, image_shape=(1, 28, 28))
        >>> images = torch.zeros(4, 1, 28, 28)
        >>> recon, code = discriminator(images)
        >>> recon.shape, code.shape
        (torch.Size([4, 1, 28, 28]), torch.Size([4, 32]))
        >>> ebgan_fast.reconstruction_energy(recon, images).shape
        torch.Size([4])
    """

    def __init__(
        self, n_layer: int, size: int, dropout: bool = False, image_shape: tuple[int, int, int] = (1, 32, 32)
    ) -> None:
        super().__init__()
        _check_at_least("n_layer", n_layer, 2)
        _check_at_least("size", size, 1)
        pixels = _pixels(image_shape)
        self.encoder = _hidden_layers(pixels, n_layer - 1, size, dropout)
        self.decoder = nn.Linear(size, pixels)
        self.image_shape = image_shape
        _init_weights(self, _DISCRIMINATOR_STD)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: [N, C, H, W]. Returns (recon [N, C, H, W], code [N, size])."""
        code = self.encoder(images.flatten(1))
        return self.decoder(code).unflatten(1, self.image_shape), code


class LogisticDiscriminator(nn.Module):
    """The plain GAN's discriminator in the paper's grid search: images [N, C, H, W] to logits [N] of being real.

    `n_layer` weight layers: all but the last as the auto-encoder's, the last gives the logit. Batch norm there, which
    the paper's rule would ask for, is left out: it would say of each batch that half of it is real.

    Args:
        n_layer: nLayerD, at least 1.
        size: sizeD, features of each hidden layer.
        dropout: dropoutD.
        image_shape: (C, H, W).

    Raises:
        ValueError: a size or a number of layers below 1.

    Example:
        >>> import torch
        >>> from ebgan_fast.models import LogisticDiscriminator
        >>> discriminator = LogisticDiscriminator(n_layer=2, size=32, image_shape=(1, 28, 28))
        >>> discriminator(torch.zeros(4, 1, 28, 28)).shape
        torch.Size([4])
    """

    def __init__(
        self, n_layer: int, size: int, dropout: bool = False, image_shape: tuple[int, int, int] = (1, 32, 32)
    ) -> None:
        super().__init__()
        _check_at_least("n_layer", n_layer, 1)
        _check_at_least("size", size, 1)
        pixels = _pixels(image_shape)
        self.hidden = _hidden_layers(pixels, n_layer - 1, size, dropout)
        self.output = nn.Linear(size if n_layer > 1 else pixels, 1)
        _init_weights(self, _DISCRIMINATOR_STD)

    def forward(self, images: Tensor) -> Tensor:
        """images: [N, C, H, W]. Returns logits [N]."""
        logits: Tensor = self.output(self.hidden(images.flatten(1))).squeeze(1)
        return logits


def _hidden_layers(features: int, count: int, size: int, dropout: bool) -> nn.Sequential:
    """Weight layers of a discriminator, each with ReLU and all but the first with batch norm."""
    layers: list[nn.Module] = []
    for depth in range(count):
        first = depth == 0
        layers.append(nn.Linear(features, size, bias=first))
        if not first:
            layers.append(BatchNorm1d(size))
        layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(_DROPOUT))
        features = size
    return nn.Sequential(*layers)


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}: got {value}, expected at least {least}")


def _pixels(image_shape: tuple[int, int, int]) -> int:
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape: got {image_shape}, expected (channels, height, width), each at least 1")
    return math.prod(image_shape)


def _init_weights(net: nn.Module, std: float) -> None:
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
