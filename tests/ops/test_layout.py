"""The shortcut for the usual pairs of layouts gives what the general way gives."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ebgan_fast.ops import tensors
from ebgan_fast.ops.tensors import Batch

SHAPES = [(3, 2, 4, 5), (1, 2, 4, 5), (3, 1, 4, 5), (3, 2, 1, 1), (3, 1, 1, 1), (0, 2, 4, 5), (2, 3, 2, 4, 5), (4, 6)]


def _memory_of(tensor: Tensor) -> list[float]:
    """Return a dense tensor's numbers in the order of their addresses."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset()).tolist()


def _laid_out(shape: tuple[int, ...], last: bool) -> Tensor:
    values = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    kind = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(shape))
    return values.contiguous(memory_format=kind) if last and kind is not None else values


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_ways_read_and_fill_alike(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for recon_last, target_last in itertools.product((False, True), repeat=2):
        recon, target = _laid_out(shape, recon_last), _laid_out(shape, target_last)
        pair = Batch(recon, target, True, True)
        assert _memory_of(pair.recon) == _memory_of(pair.target)  # one order, for elementwise differences
        # A kernel writes a gradient in the order in which it reads: one number for each number that it read.
        for filled in (pair.grad_recon, pair.grad_target):
            assert filled is not None
            filled.as_strided((filled.numel(),), (1,), filled.storage_offset()).copy_(
                pair.recon.as_strided((filled.numel(),), (1,), pair.recon.storage_offset())
            )
        results = [gradient for gradient in pair.gradients() if gradient is not None]
        assert all(torch.equal(gradient, recon) for gradient in results)
        assert [gradient.stride() for gradient in results] == [torch.empty_like(it).stride() for it in (recon, target)]
        monkeypatch.setattr(tensors, "are_alike", lambda *_: False)
        general = Batch(recon, target, True, True)
        monkeypatch.undo()
        for name in ("n", "elements", "recon_stride", "target_stride", "grad_recon_stride", "grad_target_stride"):
            if shape[0] > 1:
                assert getattr(pair, name) == getattr(general, name), name


@pytest.mark.parametrize("last", [False, True])
def test_the_usual_pairs_take_the_shortcut(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("the general way")

    recon, target = (_laid_out((3, 2, 4, 5), last) for _ in range(2))
    monkeypatch.setattr(tensors, "order_of", forbidden)
    Batch(recon, target, True, True)
    with pytest.raises(AssertionError, match="the general way"):
        Batch(recon, _laid_out((3, 2, 4, 5), not last), True, True)
