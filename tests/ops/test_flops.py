"""Fused ops report the operations of their matrix products to torch's FlopCounterMode, as torch's own ops do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import ebgan_fast
from tests.older_versions import needs_whole_graphs, reads_sources

from .cases import every_kernel

ROOT = Path(__file__).parents[2]
every_shape = pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (4, 2, 3), (7,), (2, 1)], ids=str)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)


def _counted(counter: FlopCounterMode) -> dict[str, int]:
    return {str(op): count for op, count in counter.get_flop_counts().get("Global", {}).items() if count}


def _of_products(code: Tensor, backward: bool) -> int:
    """Return torch's count for the same algorithm in torch's products.

    They are the smaller Gram matrix and, with `backward`, its product with the codes.
    """
    rows = code.detach().reshape(code.shape[0], -1)
    n, d = rows.shape
    with FlopCounterMode(display=False) as counter:
        gram = torch.mm(rows, rows.T) if n <= d else torch.mm(rows.T, rows)
        if backward:
            torch.mm(gram, rows) if n <= d else torch.mm(rows, gram)
    return counter.get_total_flops()


@every_kernel
@every_shape
@every_dtype
def test_the_pulling_away_term_counts_its_products(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    code = torch.rand(shape).to(dtype).requires_grad_()
    with ebgan_fast.use_backend(backend):
        with FlopCounterMode(display=False) as counter:
            value = ebgan_fast.pulling_away_term(code)
        forward = _of_products(code, backward=False)
        assert _counted(counter) == {"ebgan_fast.pulling_away_term": forward}
        with FlopCounterMode(display=False) as counter:
            value.backward()
        backward = _of_products(code, backward=True) - forward
        assert _counted(counter) == {"ebgan_fast.pulling_away_term_backward": backward}
        assert forward > 0
        assert backward > 0


@every_kernel
@every_shape
@every_dtype
@pytest.mark.parametrize("needed", [True, False], ids=["for_the_code", "without"])
def test_the_generator_loss_counts_its_products(
    backend: str, shape: tuple[int, ...], dtype: torch.dtype, needed: bool
) -> None:
    recon, fake = (torch.rand(shape[0], 3).to(dtype).requires_grad_() for _ in range(2))
    code = torch.rand(shape).to(dtype).requires_grad_(needed)
    with ebgan_fast.use_backend(backend), FlopCounterMode(display=False) as counter:
        ebgan_fast.generator_loss(recon, fake, code)[0].backward()
    assert _counted(counter) == {"ebgan_fast.generator_loss": _of_products(code, backward=needed)}


@every_kernel
def test_nothing_is_counted_without_a_code_or_a_pair_of_codes(backend: str) -> None:
    recon, code = torch.rand(4, 3).requires_grad_(), torch.rand(1, 5).requires_grad_()
    with ebgan_fast.use_backend(backend), FlopCounterMode(display=False) as counter:
        ebgan_fast.generator_loss(recon, recon.detach())[0].backward()
        ebgan_fast.discriminator_loss(recon, recon.detach(), recon, recon.detach(), 1.0)[0].backward()
        ebgan_fast.pulling_away_term(code).backward()
    assert _counted(counter) == {}


@needs_whole_graphs
@every_kernel
def test_an_exported_model_counts_as_the_model_does(backend: str) -> None:
    class Model(torch.nn.Module):
        def forward(self, code: Tensor) -> Tensor:
            return ebgan_fast.pulling_away_term(code)

    code = torch.rand(4, 6, requires_grad=True)
    with ebgan_fast.use_backend(backend):
        graph = torch.export.export(Model(), (code,)).module()
        with FlopCounterMode(display=False) as counter:
            graph(code).backward()
    assert counter.get_total_flops() == _of_products(code, backward=True)


def test_arguments_by_name_count_alike() -> None:
    code = torch.rand(4, 6, device="cpu")
    with FlopCounterMode(display=False) as counter:
        torch.ops.ebgan_fast.pulling_away_term.default(backend="cpu", code=code)
    assert counter.get_total_flops() == _of_products(code, backward=False)


# The counter is imported before the package, between the package and a copy of it, or after both.
_BESIDE = """
import importlib, sys
sys.path[:0] = sys.argv[1:3]
names = ["torch.utils.flop_counter", "ebgan_fast", "ebgan_fast_0123abcd", "vendor.ebgan_fast"]
order = list(map(int, sys.argv[3]))
modules = {}
for index in order:
    modules[names[index]] = importlib.import_module(names[index])
    if index and order.index(0) > order.index(index):
        assert names[0] not in sys.modules
import torch, inspect
counter = modules.pop(names[0])
assert inspect.getsource(counter)
assert type(counter.__loader__) is type(inspect.__loader__), counter.__loader__
for name, package in modules.items():
    with counter.FlopCounterMode(display=False) as count:
        package.pulling_away_term(torch.rand(4, 6))
    assert count.get_total_flops() == 2 * 4 * 4 * 6, name
print("counted")
"""


@reads_sources
@pytest.mark.slow
@pytest.mark.skipif(not ebgan_fast.backends()["cpu"].available, reason="a copy without kernels counts torch's products")
@pytest.mark.parametrize("order", ["0123", "1023", "1230"])
def test_copies_of_the_package_are_counted_whenever_the_counter_is_imported(tmp_path: Path, order: str) -> None:
    for name in ("ebgan_fast_0123abcd", "vendor/ebgan_fast"):
        shutil.copytree(ROOT / "ebgan_fast", tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", _BESIDE, str(tmp_path), str(ROOT), order]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["counted"]
