"""EfficientNet-Lite0, the feature net whose weights can be installed as a package.

It is the B0 of Tan and Le (2019) in the form that its authors made for phones: without squeeze-excitation, with ReLU6
in place of swish, and with a stem and head of fixed width. The modules have the names that the file of weights uses.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 224
FEATURES = 1280
_CLASSES = 1000
_EPSILON = 1e-3  # of batch norm, as in TensorFlow
_STEM = 32

# Each stage: the number of blocks, the kernel's side, the stride of the first block, the expansion, the output maps.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SamePad(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding, with which the weights were trained. It has no bias.

    If the padding is odd, the extra pixel is at the end. Maps [B, inputs, H, W] become
    [B, outputs, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in maps.shape[2:]]
        top, left = missing[0] // 2, missing[1] // 2
        return super().forward(functional.pad(maps, (left, missing[1] - left, top, missing[0] - top)))


def _norm(maps: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(maps, eps=_EPSILON)


class _Block(nn.Module):
    """A block that widens the maps, convolves each by itself, and narrows them again.

    The input is added to the result if the shapes agree.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = SamePad(inputs, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SamePad(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = SamePad(wide, outputs, 1)
        self._bn2 = _norm(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        out: Tensor = functional.relu6(self._bn0(self._expand_conv(maps))) if self.expands else maps
        out = functional.relu6(self._bn1(self._depthwise_conv(out)))
        out = self._bn2(self._project_conv(out))
        return out + maps if self.adds else out


class EfficientNetLite0(nn.Module):
    """A net from uint8 images [N, 3, H, W] to features [N, 1280], the means of the last maps.

    Images are scaled to 224 x 224 by an antialiased bicubic filter. Then each value x becomes (x - 127) / 128, as when
    the net was trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePad(3, _STEM, 3, stride=2)
        self._bn0 = _norm(_STEM)
        blocks: list[nn.Module] = []
        inputs = _STEM
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SamePad(inputs, FEATURES, 1)
        self._bn1 = _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, _CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features [N, 1280] of uint8 images [N, 3, H, W]."""
        scaled = functional.interpolate(images.float(), (SIDE, SIDE), mode="bicubic", antialias=True)
        maps = ((scaled.clamp(0, 255) - 127) / 128).contiguous(memory_format=torch.channels_last)
        maps = functional.relu6(self._bn0(self._conv_stem(maps)))
        maps = functional.relu6(self._bn1(self._conv_head(self._blocks(maps))))
        return maps.mean((2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """Return the logits [N, 1000] of ImageNet's classes for uint8 images [N, 3, H, W]."""
        logits: Tensor = self._fc(self(images))
        return logits


def load_efficientnet_lite0(weights: Path) -> EfficientNetLite0:
    """Return the net with its weights, in eval mode.

    Raises:
        RuntimeError: the file holds another net's weights.
        OSError: the file can't be read.
    """
    net = EfficientNetLite0()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval()
