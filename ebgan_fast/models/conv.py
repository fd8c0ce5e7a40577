"""The convolutional networks of the paper's runs on LSUN, CelebA and ImageNet (section 4.3 to 4.5, appendix F).

The paper names DCGAN (Radford et al. 2016) as its model. So everything that the paper leaves open follows DCGAN:
initial weights from N(0, 0.02^2), ReLU in the generator, LeakyReLU of slope 0.2 in the discriminator. As in the paper's
appendix C, batch norm follows every layer but the generator's last and the discriminator's first. The decoder's last
layer has neither batch norm nor tanh (see `mlp.AutoEncoder` for the reason).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .batch_norm import BatchNorm2d
from .notation import ConvLayer

_STD = 0.02
_LEAK = 0.2


class ConvGenerator(nn.Module):
    """A convolutional generator from noise [N, noise_size] to images [N, C, H, W] in (-1, 1).

    The layers are fractionally strided convolutions. The first turns a vector into maps of kernel x kernel. The paper
    gives each of the first layers its own noise, as planes beside the feature maps. Here all noise of a sample is one
    row: the vector of the first layer, followed by the planes layer by layer.

    Args:
        layers: at least two layers. The maps of the last are the image's channels; this layer takes no noise.
        noise: the number of noise planes for each of the first layers, or 0 for none. The first number is the length of
            the vector.

    Attributes:
        noise_size: the length of a sample's row of noise.
        image_shape: the shape (C, H, W) of an image.
        noise_shapes: the shape (planes, H, W) of the noise of each layer that takes noise.

    Raises:
        ValueError: there are fewer than two layers, noise for the last layer, or a layer that can't be built.

    Example:
        >>> import torch
        >>> from ebgan_fast.models import ConvGenerator, parse_layers, parse_noise
        >>> generator = ConvGenerator(parse_layers("(32)4c-(16)4c2s-(3)4c2s"), parse_noise("100-8"))
        >>> generator.noise_shapes  # a vector of 100, then 8 planes beside the first layer's maps
        [(100, 1, 1), (8, 4, 4)]
        >>> generator(torch.randn(2, generator.noise_size)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(self, layers: tuple[ConvLayer, ...], noise: tuple[int, ...]) -> None:
        super().__init__()
        if len(layers) < 2:
            raise ValueError(f"generator: got {len(layers)} layer, expected at least 2")
        if not 1 <= len(noise) < len(layers):
            raise ValueError(
                f"noise: got planes for {len(noise)} layers, expected 1 to {len(layers) - 1}: each of the generator's "
                f"{len(layers)} layers but the last may have some"
            )
        blocks: list[nn.Module] = []
        self.noise_shapes: list[tuple[int, int, int]] = []
        features, side = 0, 1
        for index, layer in enumerate(layers):
            planes = noise[index] if index < len(noise) else 0
            if index < len(noise):
                self.noise_shapes.append((planes, side, side))
            last = index == len(layers) - 1
            convolution = _upwards(features + planes, layer, first=index == 0, bias=last)
            blocks.append(
                nn.Sequential(convolution, nn.Tanh())
                if last
                else nn.Sequential(convolution, BatchNorm2d(layer.maps), nn.ReLU(inplace=True))
            )
            features = layer.maps
            side = layer.kernel if index == 0 else side * layer.stride
        self.layers = nn.ModuleList(blocks)
        self.noise_size = sum(math.prod(shape) for shape in self.noise_shapes)
        self.image_shape = (features, side, side)
        _init_weights(self)

    def forward(self, noise: Tensor) -> Tensor:
        """Return the images [N, C, H, W] of a batch of noise [N, noise_size]."""
        parts = noise.split([math.prod(shape) for shape in self.noise_shapes], dim=1)
        maps: Tensor | None = None
        for index, layer in enumerate(self.layers):
            if index < len(parts) and parts[index].numel():
                planes = parts[index].unflatten(1, self.noise_shapes[index])
                maps = planes if maps is None else torch.cat((maps, planes.to(maps.dtype)), dim=1)
            maps = layer(maps)
        assert maps is not None
        return maps


class ConvAutoEncoder(nn.Module):
    """The convolutional auto-encoder of the energy: images [N, C, H, W] to reconstructions [N, C, H, W] and codes.

    The codes have the shape [N, maps, h, w].

    Args:
        encoder: layers that divide the image's side by their strides.
        decoder: fractionally strided layers that multiply the side again. The last layer's maps are the image's
            channels.

    Attributes:
        shrink: the factor by which the encoder divides the side of an image.

    Raises:
        ValueError: the products of the encoder's and of the decoder's strides differ, or a layer can't be built.

    Example:
        >>> import torch
        >>> from ebgan_fast.models import ConvAutoEncoder, parse_layers
        >>> discriminator = ConvAutoEncoder(parse_layers("(8)4c2s-(16)4c2s"), parse_layers("(8)4c2s-(3)4c2s"))
        >>> recon, code = discriminator(torch.zeros(2, 3, 16, 16))
        >>> recon.shape, code.shape
        (torch.Size([2, 3, 16, 16]), torch.Size([2, 16, 4, 4]))
    """

    def __init__(self, encoder: tuple[ConvLayer, ...], decoder: tuple[ConvLayer, ...]) -> None:
        super().__init__()
        self.shrink = math.prod(layer.stride for layer in encoder)
        grow = math.prod(layer.stride for layer in decoder)
        if self.shrink != grow:
            raise ValueError(
                f"got an encoder that divides the side of an image by {self.shrink} and a decoder that multiplies it "
                f"by {grow}, expected the same factor"
            )
        channels = decoder[-1].maps
        features = channels
        downwards: list[nn.Module] = []
        for index, layer in enumerate(encoder):
            first = index == 0
            downwards.append(nn.Conv2d(features, layer.maps, layer.kernel, layer.stride, layer.padding, bias=first))
            if not first:
                downwards.append(BatchNorm2d(layer.maps))
            downwards.append(nn.LeakyReLU(_LEAK, inplace=True))
            features = layer.maps
        self.encoder = nn.Sequential(*downwards)
        upwards: list[nn.Module] = []
        for layer in decoder[:-1]:
            upwards += [_upwards(features, layer, bias=False), BatchNorm2d(layer.maps)]
            upwards.append(nn.LeakyReLU(_LEAK, inplace=True))
            features = layer.maps
        self.decoder = nn.Sequential(*upwards, _upwards(features, decoder[-1], bias=True))
        _init_weights(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (reconstructions [N, C, H, W], codes [N, maps, h, w]) of images [N, C, H, W].

        H and W must be multiples of `shrink`.
        """
        code = self.encoder(images)
        return self.decoder(code), code


def _upwards(features: int, layer: ConvLayer, *, bias: bool, first: bool = False) -> nn.Module:
    """Return a fractionally strided convolution. One of stride 1 on maps is made as a convolution, which is faster."""
    if first:
        return nn.ConvTranspose2d(features, layer.maps, layer.kernel, layer.stride, bias=bias)
    if layer.stride == 1:
        return nn.Conv2d(features, layer.maps, layer.kernel, padding=layer.padding, bias=bias)
    return nn.ConvTranspose2d(features, layer.maps, layer.kernel, layer.stride, layer.padding, bias=bias)


def _init_weights(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, _STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
