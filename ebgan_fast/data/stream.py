"""Shuffled batches of an image set. They can be resumed at any step and divided among any number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._console import shown
from .._fitting import check_fits
from .image_set import ImageSet, TensorImages
from .pixels import to_signed_unit
from .prefetch import Prefetcher
from .residence import on_device

if TYPE_CHECKING:
    from typing_extensions import Self


class ImageStream:
    """An endless stream of batches. Each epoch is a new permutation, which depends on (seed, epoch) alone.

    The last images of an epoch are dropped if they are too few for a batch; the next epoch drops others. A batch is
    divided among all processes: each takes its rows. So the images of a step don't depend on the number of processes.

    A set in memory is sent to the device's memory if it fits there (`residence`). A thread reads any other set ahead of
    the steps; `close`, or the end of a `with` block, ends the thread. Both ways give the same batches bit for bit.

    Args:
        images: the set to draw from.
        batch_size: images in a batch of all processes together.
        seed: any integer of 64 bits, signed or not.
        device: the device that the batches go to.
        dtype: the dtype of the batches.
        flip: mirror about half of the images, by a random bit for each (seed, epoch, place in the epoch).
        rank: the number of this process.
        ranks: the number of processes.
        prefetch: batches that wait for a step, beside the one that the thread reads. 0: no thread.

    Raises:
        ValueError: `batch_size` is outside 1 to the number of images, or not a multiple of `ranks`; `rank` is outside
            0 to `ranks` - 1; or `prefetch` is below 0.

    Example:
        >>> import torch
        >>> from ebgan_fast.data import ImageStream, TensorImages
        >>> images = TensorImages(torch.arange(100, dtype=torch.uint8).reshape(100, 1, 1, 1))
        >>> stream = ImageStream(images, batch_size=32, seed=0, device=torch.device("cpu"))
        >>> stream.next().shape
        torch.Size([32, 1, 1, 1])
        >>> state = stream.state_dict()  # a resumed run goes on from here
        >>> resumed = ImageStream(images, batch_size=32, seed=0, device=torch.device("cpu"))
        >>> resumed.load_state_dict(state)
        >>> torch.equal(resumed.next(), stream.next())
        True
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
        prefetch: int = 2,
    ) -> None:
        if not 1 <= batch_size <= len(images):
            raise ValueError(f"got batch_size {batch_size}, expected 1 to {len(images)}, the number of images")
        if batch_size % ranks:
            raise ValueError(f"got batch_size {batch_size}, expected a multiple of the number of processes, {ranks}")
        if not 0 <= rank < ranks:
            raise ValueError(f"got rank {rank}, expected 0 to {ranks - 1}")
        if prefetch < 0:
            raise ValueError(f"got prefetch {prefetch}, expected at least 0")
        self.batch_size, self.seed, self.flip = batch_size, seed, flip
        self.batches_per_epoch = len(images) // batch_size
        self._device, self._dtype = device, dtype
        # Nothing is loaded from the disk here: a run loads its set before the first step, and reports it (`settled`).
        held = on_device(images, device) if isinstance(images, TensorImages) else None
        self._ahead = prefetch if held is None else 0
        local = batch_size // ranks
        self._source = _Batches(
            images if held is None else held,
            batch_size,
            seed,
            flip,
            rows=slice(rank * local, (rank + 1) * local),
            home=torch.device("cpu") if held is None else device,
            pinned=device.type == "cuda" and held is None,
            dtype=dtype if device.type == "cpu" else None,
        )
        self._epoch = 0
        self._position = 0
        self._items: Iterator[Tensor] | None = None
        self._reader: Prefetcher[Tensor] | None = None

    @property
    def reads_ahead(self) -> bool:
        """True while a thread reads batches ahead of the steps: for a set on disk, from the first `next` to `close`."""
        return self._reader is not None

    def next(self) -> Tensor:
        """Return this process's rows of the next batch: [batch_size / ranks, C, H, W] in [-1, 1].

        They are channels_last if C > 1. An error that reading the images raised is raised here; the next call then
        tries the same batch again.
        """
        try:
            batch = self._next_item()
        except BaseException:
            self.close()
            raise
        if self._position == self.batches_per_epoch:
            self._epoch, self._position = self._epoch + 1, 0
        self._position += 1
        if batch.dtype == torch.uint8:
            batch = to_signed_unit(batch.to(self._device, non_blocking=True), self._dtype)
        return batch

    def _next_item(self) -> Tensor:
        if self._items is None:
            self._items = self._source.begin(self._epoch, self._position)
            if self._ahead:
                self._reader = Prefetcher(self._items, self._ahead)
        return next(self._items) if self._reader is None else self._reader.next()

    def close(self) -> None:
        """End the thread that reads ahead. A later `next` starts another."""
        if self._reader is not None:
            self._reader.close()
        self._reader = self._items = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def state_dict(self) -> dict[str, int]:
        """Return the stream's place, `epoch` and `position` (batches taken), and the settings that fix the order."""
        return {"epoch": self._epoch, "position": self._position, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the place where `state` was taken, on any number of processes.

        Args:
            state: the result of `state_dict`.

        Raises:
            ValueError: the state has other keys or an impossible place, or belongs to a stream of other batches: of
                another seed, batch size, number of images or flip.
        """
        if set(state) != set(self.state_dict()):
            raise ValueError(f"got state keys {sorted(state)}, expected {sorted(self.state_dict())}")
        check_fits(state, {"epoch": 0, "position": 0}, "state")
        for name, expected in self._identity().items():
            if state[name] != expected:
                raise ValueError(f"got a state with {name} {shown(state[name])}, expected {expected} as in this run")
        epoch, position = state["epoch"], state["position"]
        if position > self.batches_per_epoch:
            raise ValueError(f"state.position: got {position}, expected 0 to {self.batches_per_epoch}")
        self.close()
        self._epoch, self._position = epoch, position

    def _identity(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "images": len(self._source.images),
            "flip": int(self.flip),
        }


@dataclass(frozen=True)
class _Batches:
    """One process's rows of every batch.

    It holds no reference to the stream: the reading thread must end when the stream is garbage collected.

    Attributes:
        images: the set to draw from.
        batch_size: images in a batch of all processes together.
        seed: the seed of the order.
        flip: True to mirror about half of the images.
        rows: this process's rows of each batch.
        home: the device of the indices.
        pinned: True if batches lie in memory that a GPU can fetch by itself. torch reuses it for later batches.
        dtype: the dtype that `to_signed_unit` makes of the bytes, for steps on the CPU. None: the batches stay bytes,
            which the stream converts on its device.
    """

    images: ImageSet
    batch_size: int
    seed: int
    flip: bool
    rows: slice
    home: torch.device
    pinned: bool
    dtype: torch.dtype | None

    def begin(self, epoch: int, position: int) -> Iterator[Tensor]:
        """Give every batch from this place on, [rows, C, H, W], channels_last if C > 1, without an end."""
        count = len(self.images)
        while True:
            # Sent to the images' device once an epoch: if indices were sent for each batch, a GPU's step would wait.
            order = torch.randperm(count, generator=self._rng(f"{self.seed}/{epoch}")).to(self.home)
            coins = torch.randint(2, (count,), generator=self._rng(f"{self.seed}/{epoch}/flip")).bool().to(self.home)
            for start in range(position * self.batch_size, count - self.batch_size + 1, self.batch_size):
                rows = slice(start + self.rows.start, start + self.rows.stop)
                yield self._read(order[rows], coins[rows])
            epoch, position = epoch + 1, 0

    def _read(self, indices: Tensor, coins: Tensor) -> Tensor:
        channels, height, width = self.images.shape
        layout = torch.channels_last if channels > 1 else torch.contiguous_format
        pixels = torch.empty(
            (len(indices), channels, height, width),
            dtype=torch.uint8,
            device=self.home,
            pin_memory=self.pinned,
            memory_format=layout,
        )
        self.images.gather(indices, pixels)
        if self.flip:
            pixels.copy_(torch.where(coins[:, None, None, None], pixels.flip(3), pixels))
        return pixels if self.dtype is None else to_signed_unit(pixels, self.dtype)

    @staticmethod
    def _rng(name: str) -> torch.Generator:
        # torch's CPU generator keeps 32 bits of its seed: seeds of seed + epoch, or of seed << 32, would repeat orders.
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
