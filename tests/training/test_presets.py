"""Tests of the presets against the paper's table (appendix F), which is written out here layer by layer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from bench.subjects import public_loop
from ebgan_fast.data.image_set import TensorImages
from ebgan_fast.training import preset
from ebgan_fast.training.config import PresetName, validate
from ebgan_fast.training.step import Trainer
from tests.rounding import assert_within_eager

PAPERS = [name for name in get_args(PresetName) if name != "mnist"]

# For each layer: maps in (with noise planes), maps out, kernel, stride, side of the output.
_G64 = [(100, 512, 4, 1, 4), (512, 256, 4, 2, 8), (256, 128, 4, 2, 16), (128, 64, 4, 2, 32), (64, 3, 4, 2, 64)]
_D64 = [(3, 64, 4, 2, 32), (64, 128, 4, 2, 16), (128, 256, 4, 2, 8)]
_D64 += [(256, 128, 4, 2, 16), (128, 64, 4, 2, 32), (64, 3, 4, 2, 64)]
_G128 = [(100, 1024, 4, 1, 4), (1024 + 64, 512, 4, 2, 8), (512 + 32, 256, 4, 2, 16), (256 + 16, 128, 4, 2, 32)]
_G128 += [(128 + 8, 64, 4, 2, 64), (64 + 4, 64, 4, 2, 128), (64, 3, 3, 1, 128)]
_G256 = [(100, 2048, 4, 1, 4), (2048 + 64, 1024, 4, 2, 8), (1024 + 32, 512, 4, 2, 16), (512 + 16, 256, 4, 2, 32)]
_G256 += [(256 + 8, 128, 4, 2, 64), (128 + 4, 64, 4, 2, 128), (64 + 2, 64, 4, 2, 256), (64, 3, 3, 1, 256)]


def _d(side: int) -> list[tuple[int, int, int, int, int]]:
    """Return the encoder's and decoder's layers at 128 and 256 pixels."""
    maps = [3, 64, 128, 256, 512]
    encoder = [(a, b, 4, 2, side >> i + 1) for i, (a, b) in enumerate(pairwise(maps))]
    decoder = [(b, a, 4, 2, side >> i) for i, (a, b) in enumerate(pairwise(maps))]
    return encoder + decoder[::-1]


TABLE: dict[str, tuple[int, float, list[Any], list[Any], int]] = {
    # side, margin, generator, discriminator, length of a code
    "lsun64": (64, 80.0, _G64, _D64, 16_384),
    "celeba64": (64, 20.0, _G64, _D64, 16_384),
    "imagenet128": (128, 40.0, _G128, _d(128), 32_768),
    "imagenet256": (256, 80.0, _G256, _d(256), 131_072),
}


def _convolutions(net: nn.Module, *inputs: torch.Tensor) -> list[tuple[int, int, int, int, int]]:
    """Return each convolution's sizes and its output's side, in the order in which they run."""
    seen = []

    def note(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        assert isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        assert output.shape[2] == output.shape[3]
        seen.append((module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0], output.shape[2]))

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(note)
    net(*inputs)
    return seen


@pytest.mark.parametrize("name", PAPERS)
def test_layers_are_the_papers(name: PresetName) -> None:
    side, margin, generator_table, discriminator_table, code_length = TABLE[name]
    config = preset(name, Path("run"))
    validate(config)
    assert (config.image_size, config.margin, config.norm, config.pt_weight) == (side, margin, "l2", 0.1)
    shape = (3, side, side)
    with torch.device("meta"):
        generator = config.networks.generator(shape)
        discriminator = config.networks.discriminator(shape)
        assert _convolutions(generator, torch.empty(2, generator.noise_size)) == generator_table
        assert _convolutions(discriminator, torch.empty(2, *shape)) == discriminator_table
        assert discriminator(torch.empty(2, *shape))[1][0].numel() == code_length


def _parameters(table: list[tuple[int, int, int, int, int]], biased: set[int]) -> int:
    """Return the number of parameters: the kernels, and for each map two numbers of batch norm or one of a bias."""
    return sum(
        inputs * outputs * kernel**2 + outputs * (1 if index in biased else 2)
        for index, (inputs, outputs, kernel, _, _) in enumerate(table)
    )


@pytest.mark.parametrize("name", PAPERS)
def test_parameter_counts(name: PresetName) -> None:
    side, _, generator_table, discriminator_table, _ = TABLE[name]
    networks = preset(name, Path("run")).networks
    with torch.device("meta"):
        generator = networks.generator((3, side, side))
        discriminator = networks.discriminator((3, side, side))
    last = len(generator_table) - 1
    assert sum(p.numel() for p in generator.parameters()) == _parameters(generator_table, {last})
    ends = {0, len(discriminator_table) - 1}
    assert sum(p.numel() for p in discriminator.parameters()) == _parameters(discriminator_table, ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_one_full_size_step(name: PresetName) -> None:
    """One step of full-size networks, images and losses works. The batch has two images, the fewest that have pairs, to
    save memory.
    """
    side = TABLE[name][0]
    margin = 10 * TABLE[name][1]  # so large that every hinge is active
    config = preset(name, Path("run"), batch_size=2, margin=margin, flip=False, log_every=1, device="cpu")
    rng = torch.Generator().manual_seed(0)
    images = TensorImages(torch.randint(256, (2, 3, side, side), generator=rng, dtype=torch.uint8))
    trainer = Trainer(config, images)
    nets = trainer.generator, trainer.discriminator
    before = [parameter.detach().clone() for net in nets for parameter in net.parameters()]
    passes: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor | tuple[Tensor, Tensor]) -> None:
        passes.append((inputs[0].detach(), (output[0] if isinstance(output, tuple) else output).detach()))

    for net in nets:
        net.register_forward_hook(note)
    trainer.step()
    trainer.check_finite()
    (noise, drawn), (fake, recon_fake), (real, recon_real) = passes
    rng = torch.Generator().manual_seed(config.seed)
    assert torch.equal(noise, torch.randn(2, trainer.generator.noise_size, generator=rng))
    assert torch.equal(fake, drawn)
    expected = images.gather(torch.arange(2)) / 127.5 - 1
    assert torch.equal(real, expected) or torch.equal(real, expected.flip(0))  # in the order of the epoch

    def losses(dtype: torch.dtype) -> dict[str, float]:
        """Return losses of the networks' outputs, so that no bound depends on how a processor convolves."""
        energies = [
            public_loop.energy(recon.to(dtype), batch.to(dtype))
            for recon, batch in ((recon_real, real), (recon_fake, fake))
        ]
        hinge = nn.functional.relu(config.margin - energies[1])
        means = [values.mean().item() for values in (*energies, hinge)]
        return {"energy_real": means[0], "energy_fake": means[1], "loss_d": means[0] + means[2]}

    found, truth, eager = trainer.statistics(), losses(torch.float64), losses(torch.float32)
    assert found["hinge_active"] == 1.0
    for name, value in truth.items():
        assert_within_eager(found[name], value, eager[name], torch.float32, name)
    after = [parameter for net in nets for parameter in net.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_preset_with_other_settings() -> None:
    config = preset("celeba64", Path("here"), batch_size=32)
    assert (config.out, config.batch_size, config.margin) == (Path("here"), 32, 20.0)
    with pytest.raises(ValueError, match="preset: got 'celeba', expected one of mnist, lsun64, celeba64"):
        preset("celeba", Path("here"))  # type: ignore[arg-type]
