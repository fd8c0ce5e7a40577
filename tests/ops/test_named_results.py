"""Results unpack and keep their names in eager mode, compiled, transformed, data parallel and exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import ebgan_fast
from ebgan_fast import DiscriminatorResult, GeneratorResult
from tests.conftest import Fork
from tests.older_versions import needs_whole_graphs

from .cases import every_backend, normal

BATCHES = [normal(3, 4, seed=seed) for seed in range(4)]
CODE = normal(3, 5, seed=4)

LOSSES: dict[str, tuple[type, tuple[str, ...], Callable[..., Any]]] = {
    "discriminator": (
        DiscriminatorResult,
        ("loss", "energy_real", "energy_fake"),
        lambda *batches: ebgan_fast.discriminator_loss(*batches, 3.0),
    ),
    "generator": (
        GeneratorResult,
        ("loss", "energy", "pulling_away"),
        lambda recon, fake, *_: ebgan_fast.generator_loss(recon, fake, CODE.to(recon.dtype), pt_weight=0.5),
    ),
    "generator without a code": (
        GeneratorResult,
        ("loss", "energy", "pulling_away"),
        lambda recon, fake, *_: ebgan_fast.generator_loss(recon, fake),
    ),
}
each_loss = pytest.mark.parametrize("loss", LOSSES)


def _check(loss: str, found: Any, batches: list[Tensor] = BATCHES) -> None:
    """Fail unless the result has its type, its field names, and the values of the single ops."""
    kind, names, _ = LOSSES[loss]
    assert type(found) is kind
    assert found._fields == names
    energies = [ebgan_fast.reconstruction_energy(*batches[index : index + 2]) for index in (0, 2)]
    if loss == "discriminator":
        expected = [ebgan_fast.hinge_margin_loss(*energies, 3.0), *energies]
    else:
        has_code = loss == "generator"
        term = ebgan_fast.pulling_away_term(CODE.to(batches[0].dtype)) if has_code else energies[0].new_zeros(())
        expected = [energies[0].mean() + 0.5 * term, energies[0], term]
    for name, part, value in zip(names, found, expected, strict=True):
        assert part is getattr(found, name)
        torch.testing.assert_close(part.detach().cpu(), value.cpu())


@every_backend
@each_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("trained", [False, True], ids=["no gradient", "gradient"])
def test_results_have_names_and_unpack(backend: str, loss: str, dtype: torch.dtype, trained: bool) -> None:
    batches = [batch.to(dtype).requires_grad_(trained) for batch in BATCHES]
    with ebgan_fast.use_backend(backend):
        found = LOSSES[loss][2](*batches)
        _check(loss, found, batches)
    assert [part.requires_grad for part in found] == [trained, False, False]


def test_a_trained_coefficient_names_its_results_too() -> None:
    margin, weight = torch.tensor(3.0).requires_grad_(), torch.tensor(0.5).requires_grad_()
    _check("discriminator", ebgan_fast.discriminator_loss(*BATCHES, margin))
    _check("generator", ebgan_fast.generator_loss(*BATCHES[:2], CODE, pt_weight=weight))


@needs_whole_graphs
@each_loss
@pytest.mark.slow
def test_compiled(loss: str) -> None:
    _check(loss, torch.compile(LOSSES[loss][2], fullgraph=True, backend="aot_eager")(*BATCHES))


@each_loss
def test_under_vmap(loss: str) -> None:
    stacks = [torch.stack([batch, 2 * batch]) for batch in BATCHES]
    found = torch.vmap(LOSSES[loss][2])(*stacks)
    assert type(found) is LOSSES[loss][0]
    for index in range(2):
        batches = [stack[index] for stack in stacks]
        _check(loss, type(found)(*(part[index] for part in found)), batches)


class _Model(nn.Module):
    """An auto-encoder whose forward returns its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, dtype=torch.float64)
        self.loss = ebgan_fast.nn.DiscriminatorLoss(3.0)

    def forward(self, real: Tensor, fake: Tensor) -> DiscriminatorResult:
        result: DiscriminatorResult = self.loss(self.layer(real), real, self.layer(fake), fake)
        return result


@needs_whole_graphs
@pytest.mark.slow
def test_exported_saved_and_loaded(tmp_path: Path) -> None:
    model = _Model()
    inputs = BATCHES[0], BATCHES[1]
    torch.export.save(torch.export.export(model, inputs), tmp_path / "model.pt2")
    found = torch.export.load(tmp_path / "model.pt2").module()(*inputs)
    assert type(found) is DiscriminatorResult
    for part, expected in zip(found, model(*inputs), strict=True):
        torch.testing.assert_close(part, expected)


_OPTIONS: dict[str, dict[str, bool]] = {
    "usual": {},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traced_they_are_a_plain_tuple() -> None:
    model = _Model()
    inputs = BATCHES[0], BATCHES[1]
    found = torch.jit.trace(model, inputs)(*inputs)
    assert type(found) is tuple
    for part, expected in zip(found, model(*inputs), strict=True):
        torch.testing.assert_close(part, expected)


def _data_parallel(folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    torch.manual_seed(0)
    model = _Model()
    for name, options in _OPTIONS.items():
        parallel = DistributedDataParallel(model, **options)  # type: ignore[arg-type]
        result = parallel(*(batch.cpu() for batch in BATCHES[:2]))
        result.loss.backward()
        torch.save((type(result).__name__, *result), f"{folder}/{name}.pt")
        del parallel, result  # docs/one-pass.md says why
    dist.destroy_process_group()


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_data_parallel(fork: Fork, tmp_path: Path) -> None:
    child = fork(_data_parallel, str(tmp_path))
    assert child.status() == 0, child.said
    torch.manual_seed(0)
    expected = _Model()(*(batch.cpu() for batch in BATCHES[:2]))
    for name in _OPTIONS:
        kind, *parts = torch.load(tmp_path / f"{name}.pt")
        assert kind == "DiscriminatorResult"
        for part, value in zip(parts, expected, strict=True):
            torch.testing.assert_close(part, value)
