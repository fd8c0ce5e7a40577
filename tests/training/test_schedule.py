from __future__ import annotations

import math

import pytest

from ebgan_fast.training.optim import learning_rate_factor, margin_at


@pytest.mark.parametrize("step", [0, 5, 10**9])
def test_a_constant_margin(step: int) -> None:
    assert margin_at(step, 10.0, 3.0, 4, "constant") == 10.0


def test_a_linear_margin() -> None:
    assert [margin_at(step, 16.0, 0.0, 4, "linear") for step in range(7)] == [16, 12, 8, 4, 0, 0, 0]
    assert [margin_at(step, 1.0, 3.0, 2, "linear") for step in range(4)] == [1, 2, 3, 3]


def test_a_cosine_margin() -> None:
    for step in range(12):
        expected = 2 + 14 * (1 + math.cos(math.pi * step / 12)) / 2
        assert margin_at(step, 16.0, 2.0, 12, "cosine") == pytest.approx(expected)
    assert margin_at(12, 16.0, 2.0, 12, "cosine") == 2.0
    assert margin_at(6, 16.0, 2.0, 12, "cosine") == pytest.approx(9)


def test_a_schedule_of_one_step() -> None:
    assert [margin_at(step, 5.0, 1.0, 1, "linear") for step in range(3)] == [5, 1, 1]


def test_no_decay() -> None:
    assert {learning_rate_factor(step, 10, "none", 0.0) for step in range(10)} == {1.0}


def test_linear_decay() -> None:
    assert [learning_rate_factor(step, 4, "linear", 0.0) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [learning_rate_factor(step, 8, "linear", 0.5) for step in range(8)] == [1] * 5 + [0.75, 0.5, 0.25]


def test_cosine_decay() -> None:
    for step in range(10, 20):
        expected = (1 + math.cos(math.pi * (step - 10) / 10)) / 2
        assert learning_rate_factor(step, 20, "cosine", 0.5) == pytest.approx(expected)
    assert {learning_rate_factor(step, 20, "cosine", 0.5) for step in range(11)} == {1.0}
