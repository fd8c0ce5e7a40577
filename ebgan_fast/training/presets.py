"""The paper's runs as configs (appendix C and F), with values of our own where the paper gives none.

From the paper: layers, noise planes, margins, norm l2 and the weight 0.1 of the pulling-away term. The paper calls its
generator at 64 x 64 pixels DCGAN-like and says no more. Ours is that of the published code of Radford et al. 2016, half
as wide as in their figure. Learning rate, batch size and Adam's beta1 are DCGAN's, to which the paper refers.

The numbers of steps are ours: as long as DCGAN and its successors take to settle. That is about 30 epochs of CelebA's
203,000 images, 4 of LSUN's 3 million bedrooms, and 15 of ImageNet's 1.3 million images at 128 pixels. At 256 pixels the
batch is half as large, to save memory.
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
    networks=replace(  # the paper's table gives the discriminator of 128 pixels again
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
    """Return the config of one of the paper's runs.

    Args:
        name: "mnist", "lsun64", "celeba64", "imagenet128" or "imagenet256" (dogs).
        out: the run folder.
        fields: settings that replace the preset's.

    Raises:
        ValueError: there is no preset of this name.

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
