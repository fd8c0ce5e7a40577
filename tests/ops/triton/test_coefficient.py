"""The ways in which a margin or weight reaches a Triton kernel."""

from __future__ import annotations

import pytest
import torch

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

from ebgan_fast.ops.backends.triton.energy import coefficient

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


def test_a_tensor_on_the_processor_is_a_number_for_a_gpu() -> None:
    assert coefficient(torch.tensor(2.5), torch.float32, GPU) == (2.5, False)


def test_a_tensor_where_the_batch_is_stays_there_unread() -> None:
    margin = torch.tensor(2.5)
    value, is_pointer = coefficient(margin, torch.float32, CPU)
    assert value is margin
    assert is_pointer


def test_a_number_keeps_all_of_float64() -> None:
    assert coefficient(0.1, torch.float32, CPU) == (0.1, False)
    value, is_pointer = coefficient(0.1, torch.float64, CPU)
    assert value.item() == 0.1
    assert is_pointer
