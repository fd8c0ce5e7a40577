"""The check of results tells a wrong provider from a right one that rounds differently."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.subjects import formulas
from bench.subjects.calls import Judge, results
from bench.subjects.cases import Case


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: object, code: Tensor) -> Tensor:
        return code.clone()

    @staticmethod
    def backward(context: object, grad: Tensor) -> Tensor:
        wrong = grad.clone()
        wrong[3] *= 1.001
        return wrong


WRONG: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "loss": (lambda code: formulas.pulling_away_term(code) + 1e-5, "loss is off"),
    "gradient of one sample": (lambda code: formulas.pulling_away_term(_WrongGradient.apply(code)), "gradient of code"),
    "not a number": (lambda code: formulas.pulling_away_term(code) * torch.nan, "loss is off by nan"),
    "half a product": (lambda code: formulas.pulling_away_term(code[:, ::2]), "off"),
    "not a scalar": (lambda code: formulas.pulling_away_term(code).reshape(1), "shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_result_is_named(small_case: Case, name: str) -> None:
    loss, words = WRONG[name]
    arguments = small_case.inputs(torch.float32)
    complaint = Judge(small_case, arguments).complaint(results(loss, arguments))
    assert complaint is not None
    assert words in complaint


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_another_order_of_the_same_sums_is_right(small_case: Case, dtype: torch.dtype) -> None:
    def reordered(code: Tensor) -> Tensor:
        return formulas.pulling_away_term(code.flip(1).flip(0))

    arguments = small_case.inputs(dtype)
    assert Judge(small_case, arguments).complaint(results(reordered, arguments)) is None


def test_a_bfloat16_gradient_may_be_one_unit_off_and_no_more(small_case: Case) -> None:
    arguments = small_case.inputs(torch.bfloat16)
    judge = Judge(small_case, arguments)
    right = results(small_case.formula, arguments)
    gradient = right["gradient of code"]
    wrong = gradient.clone()
    wrong[0] += 4 * torch.finfo(torch.bfloat16).eps * gradient.abs().max()
    assert judge.complaint(right) is None
    assert judge.complaint({**right, "gradient of code": wrong}) is not None
