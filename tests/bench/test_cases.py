"""The registered cases compute the right loss, have half of the hinges on, and count their work right."""

from __future__ import annotations

import pytest
import torch

from bench.subjects.calls import Judge, leaves, results
from bench.subjects.cases import CASES, Case, discriminator, energy, generator, pulling_away

SMALL = [case for case in CASES if case.work.elements < 1e6 and case.work.operations < 5e7]


def _named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def test_every_op_has_a_small_case() -> None:
    """The tests below reach every builder by a small case, except that of the lone energy."""
    assert {case.op for case in CASES} - {case.op for case in SMALL} == {"reconstruction_energy"}


@pytest.mark.usefixtures("cpu_backend")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [*SMALL, _named("reconstruction_energy 64x3x64x64")], ids=lambda case: case.name)
def test_the_package_computes_the_formula(case: Case, dtype: torch.dtype) -> None:
    arguments = case.inputs(dtype)
    assert all(leaf.dtype == dtype for leaf in leaves(arguments).values())
    assert Judge(case, arguments).complaint(results(case.package, arguments)) is None


@pytest.mark.usefixtures("cpu_backend")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case", [discriminator(8, 48, norm="l2"), generator(8, 48, d=16, norm="l2")], ids=lambda case: case.name
)
def test_a_shape_that_names_a_norm_is_of_that_norm(case: Case, dtype: torch.dtype) -> None:
    assert case.shape.endswith(", l2")
    arguments = case.inputs(dtype)
    assert Judge(case, arguments).complaint(results(case.package, arguments)) is None
    assert Judge(case, {**arguments, "norm": "mse"}).complaint(results(case.package, arguments)) is not None


def test_the_losses_have_a_case_of_the_default_norm() -> None:
    for name in ("discriminator_loss 64x3x64x64", "generator_loss 64x3x64x64, code 64x16384"):
        assert _named(f"{name}, l2").work == _named(name).work


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(case, name, id=f"{case.name}, {name}")
        for case in (pulling_away(16, 48), energy(8, 3, 5))
        for name in case.published
    ],
)
def test_public_formulas_compute_the_same(case: Case, name: str, dtype: torch.dtype) -> None:
    arguments = case.inputs(dtype)
    assert Judge(case, arguments).complaint(results(case.published[name], arguments)) is None


def test_public_formulas_are_left_out_where_nobody_would_wait() -> None:
    every = {"full Gram", "broadcast NxNxd", "python loop"}
    assert set(pulling_away(64, 16384).published) == every
    assert set(pulling_away(128, 16384).published) == {"full Gram"}
    assert set(pulling_away(128, 1024).published) == every - {"python loop"}


@pytest.mark.parametrize(
    "name", ["discriminator_loss 64x784", "discriminator_loss 64x3x64x64, l2", "hinge_margin_loss 64"]
)
def test_half_of_the_hinges_are_on(name: str) -> None:
    case = _named(name)
    arguments = case.inputs(torch.float32)
    gradients = results(case.formula, arguments)
    (fake,) = (gradients[name] for name in gradients if "fake" in name)
    assert int(fake.reshape(64, -1).any(1).sum()) == 32


def test_inputs_are_the_same_in_every_run() -> None:
    case = _named("pulling_away_term 64x256")
    assert torch.equal(case.inputs(torch.float32)["code"], case.inputs(torch.float32)["code"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_traffic_is_every_tensor_once_and_every_gradient_once(case: Case) -> None:
    arguments = case.inputs(torch.float32)
    read = sum(value.numel() for value in arguments.values() if isinstance(value, torch.Tensor))
    assert case.work.elements == read + sum(leaf.numel() for leaf in leaves(arguments).values())


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("pulling_away_term 64x16384", 3 * 64 * 64 * 16384),
        ("pulling_away_term 4096x256", 3 * 4096 * 256 * 256),
        ("generator_loss 64x1x32x32, code 64x1024", 3 * 64 * 64 * 1024),
    ],
)
def test_products_are_counted_in_the_smaller_gram_matrix(name: str, operations: int) -> None:
    assert _named(name).work.operations == operations
