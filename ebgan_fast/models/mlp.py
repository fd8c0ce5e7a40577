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
    """A fully connected generator from noise [N, z_dim] to images [N, C, H, W] in (-1, 1).

    It has `n_layer` weight layers. Each but the last has `size` features, with batch norm and then ReLU. The last makes
    the pixels, with tanh and without batch norm. The initial weights are N(0, 0.02^2), the biases 0.

    A layer before batch norm has no bias: batch norm would subtract it again, and rounding noise would make it drift
    under Adam.

    Args:
        z_dim: the length of the noise vector. The paper doesn't give it.
        n_layer: the number of weight layers, at least 1, the paper's nLayerG.
        size: the number of features of each hidden layer, the paper's sizeG.
        image_shape: the shape (C, H, W) of an image.

    Attributes:
        noise_size: the length of a sample's noise, which is `z_dim`.
        image_shape: the shape (C, H, W) of an image.

    Raises:
        ValueError: a number is below 1.

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
        """Return the images [N, C, H, W] of a batch of noise [N, z_dim]."""
        images: Tensor = self.layers(noise).unflatten(1, self.image_shape)
        return images


class AutoEncoder(nn.Module):
    """The fully connected auto-encoder of the energy: images [N, C, H, W] to reconstructions [N, C, H, W] and codes.

    The codes have the shape [N, size]. The encoder has `n_layer - 1` weight layers of `size` features, each with ReLU.
    All but the first have batch norm: the paper leaves it out at the "discriminator input layer". The decoder is one
    weight layer. The initial weights are N(0, 0.002^2), the biases 0.

    Two choices are our own, because the paper is silent or unclear about them:
        The decoder's output has neither batch norm nor tanh. Batch norm there would give each pixel the same mean and
        spread in real and in generated batches. It would also make a sample's energy depend on the other samples of its
        batch. The paper names tanh only for the generator. Tanh reaches -1, the black of the background, only at
        infinity.
        Dropout has rate 0.5 and follows every encoder layer, including the last, which makes the code: at nLayerD = 2
        there is no other.

    Args:
        n_layer: the number of encoder and decoder layers together, at least 2, the paper's nLayerD.
        size: the number of features of each encoder layer, the paper's sizeD.
        dropout: True for dropout, the paper's dropoutD.
        image_shape: the shape (C, H, W) of an image.

    Raises:
        ValueError: a number is below 1, or there are fewer than 2 layers.

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
        """Return (reconstructions [N, C, H, W], codes [N, size]) of images [N, C, H, W]."""
        code = self.encoder(images.flatten(1))
        return self.decoder(code).unflatten(1, self.image_shape), code


class LogisticDiscriminator(nn.Module):
    """The plain GAN's discriminator in the paper's grid search: images [N, C, H, W] to logits [N] of being real.

    It has `n_layer` weight layers. All but the last are those of the auto-encoder; the last makes the logit. By the
    paper's rule the logit would have batch norm. It has none, because batch norm would make half of each batch look
    real.

    Args:
        n_layer: the number of weight layers, at least 1, the paper's nLayerD.
        size: the number of features of each hidden layer, the paper's sizeD.
        dropout: True for dropout, the paper's dropoutD.
        image_shape: the shape (C, H, W) of an image.

    Raises:
        ValueError: a size or the number of layers is below 1.

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
        """Return the logits [N] of images [N, C, H, W]."""
        logits: Tensor = self.output(self.hidden(images.flatten(1))).squeeze(1)
        return logits


def _hidden_layers(features: int, count: int, size: int, dropout: bool) -> nn.Sequential:
    """Return the weight layers of a discriminator, each with ReLU and all but the first with batch norm."""
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
