"""The common part of metrics of real and generated samples, which arrive in batches in any order and are checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from .features import check_features, colors, device_of, distances_on
from .precision import without_tf32


class Growing(Protocol):
    """A set of features that arrives in batches."""

    count: int
    """The number of samples so far."""

    def add(self, features: Tensor) -> None:
        """Add a batch of features [n, d] without keeping a reference to it. After an error the set is unchanged."""


SetT = TypeVar("SetT", bound=Growing)


class OfTwoSets(ABC, Generic[SetT]):
    """A metric of real and generated samples that arrive in batches.

    A subclass chooses how a set is kept (`_empty`), and adds a method `compute`.

    Args:
        net: a Module from uint8 images [N, 3, H, W] to features [N, d]. None: `update` takes features.
        reset_real_features: True if `reset` also forgets the real samples.

    Raises:
        TypeError: `net` isn't a Module.
    """

    def __init__(self, net: nn.Module | None, reset_real_features: bool) -> None:
        if net is not None and not isinstance(net, nn.Module):
            raise TypeError(
                f"net: got {type(net).__name__}, expected a Module of uint8 images or None; load_feature_net makes one "
                "of a name"
            )
        self.net = net
        self.reset_real_features = reset_real_features
        self._real, self._generated = self._empty(), self._empty()
        self._fits: tuple[int, torch.device] | None = None  # the length and the device of features so far

    @abstractmethod
    def _empty(self) -> SetT:
        """Return a set of no samples."""

    @torch.no_grad()
    def update(self, samples: Tensor, real: bool) -> None:
        """Add a batch of samples. If an error is raised, the metric is unchanged.

        Args:
            samples: with a net, uint8 images [N, C, H, W] on any device; a gray image (C = 1) is repeated to three
                channels. Without a net, finite features [N, d] of a floating-point dtype. All batches must have the
                same d and lie on one device.
            real: True for real samples, False for generated ones.

        Raises:
            TypeError: `samples` is no tensor or has another dtype, or `real` isn't a bool.
            ValueError: `samples` has another shape, d or device, or features aren't finite.
        """
        if not isinstance(real, bool):
            raise TypeError(
                f"real: got {type(real).__name__}, expected True for real samples, False for generated ones"
            )
        name = _name(real)
        features = samples if self.net is None else self._features(self.net, samples, name)
        check_features(features, name)
        if len(features) == 0:
            return
        features = features.to(distances_on(features.device))
        self._check_fits(features, name)
        (self._real if real else self._generated).add(features)
        self._fits = (features.shape[1], features.device)

    def reset(self) -> None:
        """Forget the generated samples, and also the real ones unless `reset_real_features` is False."""
        self._generated = self._empty()
        if self.reset_real_features:
            self._real = self._empty()

    def _features(self, net: nn.Module, images: Tensor, name: str) -> Tensor:
        given = colors(images)
        if len(given) == 0:
            return torch.empty(0, 1)
        with without_tf32():
            found: Tensor = net(given.to(device_of(net)))
        if isinstance(found, Tensor) and found.dim() == 2 and len(found) != len(given):
            raise ValueError(
                f"{name}: got {len(found)} rows of features from the net for {len(given)} images, expected one row for "
                "each image"
            )
        return found

    def _check_fits(self, features: Tensor, name: str) -> None:
        """Raise a ValueError if the features have another length or device than those before."""
        if self._fits is None or self._real.count == self._generated.count == 0:
            return
        length, device = self._fits
        if features.shape[1] != length:
            raise ValueError(
                f"{name}: got features of {features.shape[1]} numbers, expected {length} as before; a new metric takes "
                "another net's"
            )
        if features.device != device:
            raise ValueError(
                f"{name}: got features on {features.device}, expected {device} as before; features.to({str(device)!r}) "
                "moves them"
            )

    def _check_counts(self, least: int, else_: str = "") -> None:
        """Raise a ValueError if there are fewer than `least` real or generated samples; `else_` is another way out."""
        for real, kept in ((True, self._real), (False, self._generated)):
            if kept.count < least:
                raise ValueError(
                    f"{_name(real)}: got {kept.count}, expected at least {least}; update(..., real={real}) adds "
                    f"some{else_}"
                )


def _name(real: bool) -> str:
    return "real samples" if real else "generated samples"
