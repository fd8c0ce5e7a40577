"""The convolutional networks of the paper's runs on LSUN, CelebA and ImageNet (section 4.3 to 4.5, appendix F).

What the paper leaves open follows DCGAN (Radford et al. 2016), which it names as its model: initial weights from
N(0, 0.02^2), ReLU in the generator, LeakyReLU of slope 0.2 in the discriminator. As in its appendix C, batch norm
follows every layer but the generator's last and the discriminator's first; nor does it follow the decoder's last (see
`mlp.AutoEncoder` for the reason), which has no tanh either.
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
    """The convolutional generator: noise [N, noise_size] to images [N, C, H, W] in (-1, 1).

    Layers are fractionally strided convolutions, the first from a vector to kernel x kernel. Into each of the first
    layers the paper feeds noise of its own, as planes beside the feature maps; here all noise of a sample is one row,
    the first layer's vector followed by the planes layer by layer.

    Args:
        layers: at least two; the last gives the image's channels, without noise of its own.
        noise: noise planes into each of the first layers, the first of them a vector's length; 0 for none.

    Attributes:
        noise_size: numbers of noise a sample takes.
        image_shape: (C, H, W) of the images.
        noise_shapes: (planes, H, W) per layer that takes noise.

    Raises:
        ValueError: fewer than two layers, noise for the last layer, or a layer that can't be built.

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
        """noise: [N, noise_size]. Returns [N, C, H, W]."""
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
    """The energy's convolutional network: images [N, C, H, W] to (reconstruction [N, C, H, W], code [N, maps, h, w]).

    Args:
        encoder: layers that divide the side by their strides.
        decoder: fractionally strided layers that undo it; the last gives the image's channels.

    Attributes:
        shrink: by which the encoder divides the side of an image.

    Raises:
        ValueError: encoder and decoder whose strides differ in product, or a layer that can't be built.

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
        """images: [N, C, H, W], H and W divisible by `shrink`. Returns (recon [N, C, H, W], code [N, maps, h, w])."""
        code = self.encoder(images)
        return self.decoder(code), code


def _upwards(features: int, layer: ConvLayer, *, bias: bool, first: bool = False) -> nn.Module:
    """A fractionally strided convolution; of stride 1 on maps it is a convolution, which runs faster as one."""
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
