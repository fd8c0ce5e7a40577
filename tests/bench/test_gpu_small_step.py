"""The small step that compute-sanitizer watches launches every Triton kernel, in few variants."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

import ebgan_fast
from bench.gpu import small_step
from ebgan_fast.ops.backends.triton import launch
from gpuless.triton import flattened
from tests import stand_in

Variant = tuple[object, ...]


def _variants(backend: str) -> set[tuple[str, Variant]]:
    """Return the kernels that Triton would compile for the shapes of a backend, by name, dtypes and constants."""
    launches: list[launch.Launch] = []
    sizes, norms = small_step.SHAPES[backend]
    with (
        mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor),
        mock.patch.object(launch, "run", launches.append),
        stand_in.backend("triton"),
        ebgan_fast.use_backend("triton"),
    ):
        for size in sizes:
            for dtype in small_step.DTYPES:
                for norm in norms:
                    small_step.losses(*size, dtype, norm)
    return {(it.kernel.__name__, _variant(it)) for it in launches}


def _variant(it: launch.Launch) -> Variant:
    dtypes = tuple(value.dtype for value in flattened(it.arguments).values() if isinstance(value, torch.Tensor))
    constants = tuple((name, value) for name, value in it.arguments.items() if name.isupper())
    return dtypes, constants, it.num_warps, it.num_stages


def test_few_variants_of_every_kernel_are_to_be_compiled() -> None:
    """Triton compiles each variant anew, so its shapes make at most half as many variants as CUDA's."""
    watched, all_shapes = _variants("triton"), _variants("cuda")
    assert {name for name, _ in watched} == {name for name, _ in all_shapes}
    assert 0 < 2 * len(watched) <= len(all_shapes)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert small_step.main(["triton"]) == 1
    assert "sees no GPU" in capsys.readouterr().out
