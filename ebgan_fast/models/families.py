"""The settings from which a run's networks are built: a class for each family, which also builds the networks."""

from __future__ import annotations

from dataclasses import dataclass

from .._settings import COUNT, POSITIVE, SWITCH, integer, needed, setting, text
from .conv import ConvAutoEncoder, ConvGenerator
from .mlp import AutoEncoder, Generator
from .notation import parse_layers, parse_noise, widened

AnyGenerator = Generator | ConvGenerator
AnyDiscriminator = AutoEncoder | ConvAutoEncoder

_NOTATION = text("a string in the paper's notation")  # the layers in it are checked when the networks are built


@dataclass(frozen=True)
class Mlp:
    """The settings of the fully connected networks in the paper's grid search.

    The defaults are those of its best EBGAN (figure 4).

    Example:
        >>> import torch
        >>> from ebgan_fast.models import Mlp
        >>> networks = Mlp(size_g=64, size_d=32)
        >>> generator = networks.generator((1, 28, 28))
        >>> recon, code = networks.discriminator((1, 28, 28))(generator(torch.randn(4, networks.z_dim)))
        >>> recon.shape, code.shape
        (torch.Size([4, 1, 28, 28]), torch.Size([4, 32]))
    """

    z_dim: int = setting(100, COUNT)
    """The length of the noise vector, drawn from N(0, 1)."""
    n_layer_g: int = setting(5, COUNT)
    """The number of weight layers of the generator, the paper's nLayerG."""
    n_layer_d: int = setting(2, integer(2, expected="an integer of at least 2, one encoder and one decoder layer"))
    """The number of the discriminator's encoder and decoder layers, the paper's nLayerD. One of them is the decoder."""
    size_g: int = setting(800, COUNT)
    """The number of features of each hidden layer of the generator, the paper's sizeG."""
    size_d: int = setting(1024, COUNT)
    """The number of features of each encoder layer of the discriminator, the paper's sizeD."""
    dropout_d: bool = setting(False, SWITCH)
    """True for dropout of rate 0.5 after each encoder layer, the paper's dropoutD."""

    @property
    def channels(self) -> int | None:
        """The number of channels of the images that the networks make. None: as many as the data have."""
        return None

    @property
    def depth_g(self) -> int:
        """The number of weight layers of the generator."""
        return self.n_layer_g

    def generator(self, image_shape: tuple[int, int, int]) -> Generator:
        """Return a new generator of images of the shape (C, H, W)."""
        return Generator(self.z_dim, self.n_layer_g, self.size_g, image_shape)

    def discriminator(self, image_shape: tuple[int, int, int]) -> AutoEncoder:
        """Return a new discriminator of images of the shape (C, H, W)."""
        return AutoEncoder(self.n_layer_d, self.size_d, self.dropout_d, image_shape)


@dataclass(frozen=True)
class Conv:
    """The settings of convolutional networks, in the paper's notation (appendix F).

    Example:
        >>> from ebgan_fast.models import Conv
        >>> networks = Conv(
        ...     generator_layers="(128)4c-(64)4c2s-(3)4c2s",
        ...     noise_planes="100",
        ...     encoder_layers="(32)4c2s-(64)4c2s",
        ...     decoder_layers="(32)4c2s-(3)4c2s",
        ...     width=0.5,
        ... )
        >>> networks.generator((3, 16, 16)).image_shape
        (3, 16, 16)
        >>> networks.discriminator((3, 16, 16)).shrink
        4
        >>> networks.generator((3, 64, 64))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: generator_layers: got layers that give images of shape [3, 16, 16], expected [3, 64, 64] ...
    """

    generator_layers: str = needed(_NOTATION)
    """The generator's layers in the paper's notation, such as (512)4c-(256)4c2s-(128)4c2s-(64)4c2s-(3)4c2s."""
    noise_planes: str = needed(_NOTATION)
    """The length of the noise vector, then the numbers of noise planes that the generator's next layers take.
    100-64-32 is a vector of 100, 64 planes for the second layer and 32 planes for the third."""
    encoder_layers: str = needed(_NOTATION)
    """The layers of the discriminator's encoder in the paper's notation."""
    decoder_layers: str = needed(_NOTATION)
    """The layers of the discriminator's decoder in the paper's notation."""
    width: float = setting(1.0, POSITIVE)
    """The factor on the maps of every layer but those that make an image: 0.5 halves the networks' width."""

    @property
    def channels(self) -> int | None:
        """The number of channels of the images that the networks make. None: as many as the data have."""
        try:
            return parse_layers(self.decoder_layers)[-1].maps
        except ValueError:  # raised again when the networks are built
            return None

    @property
    def depth_g(self) -> int:
        """The number of weight layers of the generator."""
        return self.generator_layers.count("-") + 1

    def generator(self, image_shape: tuple[int, int, int]) -> ConvGenerator:
        """Return a new generator of images of the shape (C, H, W).

        Raises:
            ValueError: the layers can't be read or built, or make images of another shape.
        """
        layers = widened(parse_layers(self.generator_layers), self.width, keep_last=True)
        built = ConvGenerator(layers, parse_noise(self.noise_planes))
        if built.image_shape != image_shape:
            raise ValueError(
                f"generator_layers: got layers that give images of shape {list(built.image_shape)}, expected "
                f"{list(image_shape)} as the data's (channels, height, width)"
            )
        return built

    def discriminator(self, image_shape: tuple[int, int, int]) -> ConvAutoEncoder:
        """Return a new discriminator of images of the shape (C, H, W).

        Raises:
            ValueError: the layers can't be read or built, or don't fit images of that shape.
        """
        encoder = widened(parse_layers(self.encoder_layers), self.width, keep_last=False)
        built = ConvAutoEncoder(encoder, widened(parse_layers(self.decoder_layers), self.width, keep_last=True))
        channels, height, width = image_shape
        if parse_layers(self.decoder_layers)[-1].maps != channels:
            raise ValueError(
                f"decoder_layers: got {self.decoder_layers!r}, expected a last layer of {channels} maps, the data's "
                "channels"
            )
        if height % built.shrink or width % built.shrink:
            raise ValueError(
                f"encoder_layers: got strides of product {built.shrink}, expected one that divides the image's side, "
                f"{height}"
            )
        return built


Networks = Mlp | Conv

FAMILIES: dict[str, type[Mlp] | type[Conv]] = {"mlp": Mlp, "conv": Conv}
"""The families of networks, by their names in a run's config.json."""
