"""The paper's runs as configs (appendix C and F), and what the project chose where the paper is silent.

Layers, noise planes, margins, norm l2 and the weight 0.1 of the pulling-away term are the paper's. Its generator at
64x64 is only called DCGAN-like: here it is that of Radford et al. 2016 as published in code, half as wide as in their
figure. Learning rate, batch and Adam's beta1 are DCGAN's, which the paper refers to. The lengths are ours: what DCGAN
and its successors take to settle, about 30 epochs of CelebA's 203,000 images, 4 of LSUN's 3 million bedrooms, 15 of
ImageNet's 1.3 million at 128 pixels. 256 pixels halve the batch, for memory.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..models.families import Conv
from .config import PresetName, TrainConfig

_NOWHERE = Path()

_64 = TrainConfig(
    out=_NOWHERE,
    preset="celeba64",
    networks=Conv(
        generator_layers="(512)4c-(256)4c2s-(128)4c2s-(64)4c2s-(3)4c2s",
        noise_planes="100",
        encoder_layers="(64)4c2s-(128)4c2s-(256)4c2s",
        decoder_layers="(128)4c2s-(64)4c2s-(3)4c2s",
    ),
    steps=50_000,
    batch_size=128,
    image_size=64,
    flip=True,
    margin=20.0,
    lr_g=0.0002,
    lr_d=0.0002,
    sample_every=2_500,
    checkpoint_every=2_500,
)

_128_networks = Conv(
    generator_layers="(1024)4c-(512)4c2s-(256)4c2s-(128)4c2s-(64)4c2s-(64)4c2s-(3)3c",
    noise_planes="100-64-32-16-8-4",
    encoder_layers="(64)4c2s-(128)4c2s-(256)4c2s-(512)4c2s",
    decoder_layers="(256)4c2s-(128)4c2s-(64)4c2s-(3)4c2s",
)

_128 = replace(
    _64,
    preset="imagenet128",
    networks=_128_networks,
    steps=150_000,
    image_size=128,
    margin=40.0,
)

_256 = replace(
    _128,
    preset="imagenet256",
    networks=replace(  # the paper's table says of the discriminator: as at 128
        _128_networks,
        generator_layers="(2048)4c-(1024)4c2s-(512)4c2s-(256)4c2s-(128)4c2s-(64)4c2s-(64)4c2s-(3)3c",
        noise_planes="100-64-32-16-8-4-2",
    ),
    batch_size=64,
    image_size=256,
    margin=80.0,
)

_PRESETS: dict[PresetName, TrainConfig] = {
    "mnist": TrainConfig(out=_NOWHERE),
    "lsun64": replace(_64, preset="lsun64", steps=100_000, margin=80.0),
    "celeba64": _64,
    "imagenet128": _128,
    "imagenet256": _256,
}


def preset(name: PresetName, out: Path, **fields: object) -> TrainConfig:
    """The config of one of the paper's runs.

    Args:
        name: "mnist", "lsun64", "celeba64", "imagenet128" or "imagenet256" (dogs).
        out: the run folder.
        fields: settings in the place of the preset's.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.training import preset
        >>> config = preset("celeba64", out=Path("runs/faces"), data=Path("packed"), batch_size=64)
        >>> config.image_size, config.margin, config.batch_size
        (64, 20.0, 64)
        >>> config.networks.encoder_layers
        '(64)4c2s-(128)4c2s-(256)4c2s'
    """
    if name not in _PRESETS:
        raise ValueError(f"preset: got {name!r}, expected one of {', '.join(_PRESETS)}")
    return replace(_PRESETS[name], out=out, **fields)  # type: ignore[arg-type]
