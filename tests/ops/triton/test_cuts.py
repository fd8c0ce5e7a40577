"""A Gram matrix is cut into programs so that a large GPU is busy.

Every multiprocessor has work, where the depth gives each split enough of its own.
"""

from __future__ import annotations

import pytest
import torch

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

from ebgan_fast.ops.backends.triton import pulling_away, tables

MULTIPROCESSORS = 132  # of an H100
# The depths are powers of two, and so is the number of equal parts.
POWER_OF_TWO = 1 << (MULTIPROCESSORS.bit_length() - 1)
STEPS = 4  # the fewest of a split: as deep as its tile is wide, it writes no more than it reads

PRIMAL = [(64, 16384), (128, 16384), (64, 131072), (128, 32768), (128, 1024), (64, 512), (512, 1024), (1024, 16384)]
DUAL = [(2048, 512), (2048, 256), (2048, 128), (2048, 64), (300, 200), (150, 70)]
every_case = pytest.mark.parametrize("shape", PRIMAL + DUAL, ids=lambda it: f"{it[0]}x{it[1]}")
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
every_architecture = pytest.mark.parametrize("arch", ["default", "sm_90", "sm_100", "gfx942"])


def _cut(shape: tuple[int, int], dtype: torch.dtype, arch: str) -> tuple[pulling_away.Cut, tables.ProductTile, int]:
    n, d = shape
    side, depth = min(n, d), max(n, d)
    tile = tables.gram_tile(side, d < n, dtype, arch)
    return pulling_away.cut(side, depth, d < n, tile, arch), tile, depth


@every_architecture
@every_dtype
@every_case
def test_splits_cover_the_depth(shape: tuple[int, int], dtype: torch.dtype, arch: str) -> None:
    cut, tile, depth = _cut(shape, dtype, arch)
    per_side = -(-min(shape) // tile.rows)
    assert cut.tiles == sum(range(per_side + 1))
    assert cut.split_depth % tile.depth == 0
    assert (cut.splits - 1) * cut.split_depth < depth <= cut.splits * cut.split_depth


@every_architecture
@every_dtype
@every_case
def test_multiprocessors_are_busy_where_the_depth_allows_it(
    shape: tuple[int, int], dtype: torch.dtype, arch: str
) -> None:
    cut, tile, depth = _cut(shape, dtype, arch)
    most_splits = max(1, depth // (STEPS * tile.depth))
    dual = shape in DUAL
    wanted, enough = (2 * MULTIPROCESSORS, MULTIPROCESSORS) if dual else (MULTIPROCESSORS, POWER_OF_TWO)
    assert cut.tiles * cut.splits <= max(wanted, cut.tiles)
    enough = enough // cut.tiles * cut.tiles  # every tile has the same number of splits
    assert cut.tiles * cut.splits >= min(enough, cut.tiles * most_splits)
    assert cut.splits == 1 or cut.split_depth >= STEPS * tile.depth


# float32 on sm_90. Steps of 32 elements in tiles of up to 128 samples; dual: 16 samples in tiles of 64 elements.
SPLITS = [
    ((64, 16384), 1, 16384 // (4 * 32)),  # exactly as many as the depth allows
    ((128, 16384), 1, 16384 // (4 * 32)),
    ((64, 131072), 1, 128),  # 132 are wanted; splits of 32 steps are the shortest that stay below
    ((128, 32768), 1, 128),
    ((2048, 512), 36, 264 // 36),
    ((2048, 256), 10, 264 // 10),
    ((2048, 128), 3, 2048 // (4 * 16)),  # as many as the depth allows
]


@pytest.mark.parametrize(("shape", "tiles", "splits"), SPLITS, ids=str)
def test_the_shapes_of_training(shape: tuple[int, int], tiles: int, splits: int) -> None:
    cut, _, _ = _cut(shape, torch.float32, "sm_90")
    assert (cut.tiles, cut.splits) == (tiles, splits)


@pytest.mark.parametrize("shape", [(64, 200), (5, 3), (100, 30)], ids=str)
def test_a_small_code_is_one_programs(shape: tuple[int, int]) -> None:
    assert _cut(shape, torch.float32, "sm_90")[0].alone
