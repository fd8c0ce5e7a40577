"""Shuffled batches of an image set that fits in memory, resumable at any step."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn import functional


def to_signed_unit(images: Tensor) -> Tensor:
    """uint8 of any shape to float32 in [-1, 1], the paper's range (appendix C): 0 to -1, 255 to 1 exactly."""
    return images.to(torch.float32).div_(127.5).sub_(1)


class ShuffledBatches:
    """Endless batches of grey images, each epoch a new permutation that depends on (seed, epoch) alone.

    The paper's grid search works on MNIST zero-padded to 32x32 (appendix C): an image is centred in a black
    square. The last images of an epoch, too few for a batch, are dropped; the next epoch drops others.

    Args:
        images: uint8 [M, H, W]. Batches lie on its device.
        batch_size: images in a batch, B.
        seed: any integer of 64 bits, signed or not.
        image_size: side of the padded square, at least H and W. An odd margin is wider below and right.

    Raises:
        TypeError: `images` isn't a uint8 tensor.
        ValueError: a wrong shape or size, or `batch_size` outside 1..M.
    """

    def __init__(self, images: Tensor, batch_size: int, seed: int, image_size: int = 32) -> None:
        if not isinstance(images, Tensor) or images.dtype != torch.uint8:
            raise TypeError(f"got images of {getattr(images, 'dtype', type(images))}, expected a uint8 tensor")
        if images.dim() != 3:
            raise ValueError(f"got images of shape {list(images.shape)}, expected [M, H, W]")
        height, width = images.shape[1:]
        if image_size < max(height, width):
            raise ValueError(f"got image_size {image_size}, expected at least {max(height, width)}")
        if not 1 <= batch_size <= len(images):
            raise ValueError(f"got batch_size {batch_size}, expected 1 to {len(images)}, the number of images")
        top, left = (image_size - height) // 2, (image_size - width) // 2
        margins = (left, image_size - width - left, top, image_size - height - top)
        # Padded once and kept as bytes: a batch is then a gather of rows and a conversion.
        self._rows = functional.pad(images, margins).flatten(1)
        self.batch_size = batch_size
        self.seed = seed
        self.batches_per_epoch = len(images) // batch_size
        self._epoch = 0
        self._position = 0
        self._order = self._permutation(0)

    def next(self) -> Tensor:
        """The next batch: float32 [B, image_size * image_size] in [-1, 1], margins -1."""
        if self._position == self.batches_per_epoch:
            self._epoch, self._position = self._epoch + 1, 0
            self._order = self._permutation(self._epoch)
        start = self._position * self.batch_size
        self._position += 1
        return to_signed_unit(self._rows.index_select(0, self._order[start : start + self.batch_size]))

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands, `epoch` and `position` (batches taken), and what the order depends on."""
        return {"epoch": self._epoch, "position": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where `state` was taken.

        Raises:
            ValueError: the state is of another seed, batch size or number of images, hence other batches.
        """
        if set(state) != set(self.state_dict()):
            raise ValueError(f"got state keys {sorted(state)}, expected {sorted(self.state_dict())}")
        for name, expected in self._identity().items():
            if state[name] != expected:
                raise ValueError(f"got a state with {name} {state[name]}, expected {expected} as in this run")
        epoch, position = state["epoch"], state["position"]
        if epoch < 0 or not 0 <= position <= self.batches_per_epoch:
            raise ValueError(
                f"got epoch {epoch}, position {position}, expected epoch >= 0, position 0 to {self.batches_per_epoch}"
            )
        self._epoch, self._position = epoch, position
        self._order = self._permutation(epoch)

    def _identity(self) -> dict[str, int]:
        return {"seed": self.seed, "batch_size": self.batch_size, "images": len(self._rows)}

    def _permutation(self, epoch: int) -> Tensor:
        # torch's CPU generator keeps 32 bits of its seed: seed + epoch, or seed << 32, would repeat orders.
        digest = hashlib.blake2b(f"{self.seed}/{epoch}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.randperm(len(self._rows), generator=generator).to(self._rows.device)
