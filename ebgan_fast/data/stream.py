"""Shuffled batches of an image set, resumable at any step and shared out to any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from .image_set import ImageSet, TensorImages
from .pixels import to_signed_unit
from .prefetch import Prefetcher

_AHEAD = 2  # batches that wait for a step: one would do if all took equally long


class ImageStream:
    """Endless batches, each epoch a new permutation that depends on (seed, epoch) alone.

    The last images of an epoch, too few for a batch, are dropped; the next epoch drops others. The batch is that of all
    processes together: each takes its rows, so that what is learned from doesn't depend on their number. A set that
    isn't in memory is read by a thread ahead of the steps.

    Args:
        images: what to draw from.
        batch_size: images in a batch, all processes together.
        seed: any integer of 64 bits, signed or not.
        device: where batches are wanted.
        dtype: of the batches.
        flip: mirror every other image, by a coin for each (seed, epoch, place in the epoch).
        rank: this process.
        ranks: number of processes.

    Raises:
        ValueError: `batch_size` outside 1 to the number of images, or not a multiple of `ranks`.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        seed: int,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        flip: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not 1 <= batch_size <= len(images):
            raise ValueError(f"got batch_size {batch_size}, expected 1 to {len(images)}, the number of images")
        if batch_size % ranks:
            raise ValueError(f"got batch_size {batch_size}, expected a multiple of the number of processes, {ranks}")
        self._in_memory = isinstance(images, TensorImages)
        self._images = images.to(device) if isinstance(images, TensorImages) else images
        self.batch_size, self.seed, self.flip = batch_size, seed, flip
        self._device, self._dtype = device, dtype
        local = batch_size // ranks
        self._share = slice(rank * local, (rank + 1) * local)
        self.batches_per_epoch = len(images) // batch_size
        self._epoch = 0
        self._position = 0
        self._reader: Prefetcher[Tensor] | None = None
        self._items: Iterator[Tensor] | None = None

    def next(self) -> Tensor:
        """This process's rows of the next batch: [batch_size / ranks, C, H, W] in [-1, 1], channels_last if C > 1."""
        if self._items is None:
            self._items = self._batches(self._epoch, self._position)
            if not self._in_memory:
                self._reader = Prefetcher(self._items, _AHEAD)
        pixels = next(self._items) if self._reader is None else self._reader.next()
        if self._position == self.batches_per_epoch:
            self._epoch, self._position = self._epoch + 1, 0
        self._position += 1
        return to_signed_unit(pixels.to(self._device, non_blocking=True), self._dtype)

    def close(self) -> None:
        """End the reading ahead. `next` may begin it anew."""
        if self._reader is not None:
            self._reader.close()
        self._reader = self._items = None

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands, `epoch` and `position` (batches taken), and what the order depends on."""
        return {"epoch": self._epoch, "position": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where `state` was taken, on any number of processes.

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
        self.close()
        self._epoch, self._position = epoch, position

    def _identity(self) -> dict[str, int]:
        return {"seed": self.seed, "batch_size": self.batch_size, "images": len(self._images), "flip": int(self.flip)}

    def _batches(self, epoch: int, position: int) -> Iterator[Tensor]:
        """This process's rows of every batch from there on, as bytes."""
        while True:
            order = torch.randperm(len(self._images), generator=self._rng(f"{self.seed}/{epoch}"))
            mirrored = torch.randint(2, (len(order),), generator=self._rng(f"{self.seed}/{epoch}/flip")).bool()
            for batch in range(position, self.batches_per_epoch):
                rows = slice(batch * self.batch_size + self._share.start, batch * self.batch_size + self._share.stop)
                yield self._read(order[rows], mirrored[rows])
            epoch, position = epoch + 1, 0

    def _read(self, indices: Tensor, mirrored: Tensor) -> Tensor:
        pixels = self._images.gather(indices)
        if self.flip:
            chosen = mirrored.to(pixels.device)[:, None, None, None]
            pixels = torch.where(chosen, pixels.flip(3), pixels)
        if pixels.shape[1] > 1:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        return pixels.pin_memory() if self._device.type == "cuda" and not self._in_memory else pixels

    @staticmethod
    def _rng(name: str) -> torch.Generator:
        # torch's CPU generator keeps 32 bits of its seed: seed + epoch, or seed << 32, would repeat orders.
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
