"""The switches of tf32: read in whichever set was used, and put back."""

from __future__ import annotations

import pytest
import torch

from bench import tf32
from tests.programs import printed

# A process each: torch's two sets of switches can't be brought back to a state in which neither was touched.
_USES = {
    "untouched": ("pass", (False, True)),
    "older": ("torch.set_float32_matmul_precision('high'); torch.backends.cudnn.allow_tf32 = False", (True, False)),
    "newer": (
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'; torch.backends.cudnn.conv.fp32_precision = 'ieee'",
        (True, False),
    ),
    "newer, of all": ("torch.backends.fp32_precision = 'tf32'", (True, True)),
}

_PROGRAM = """
import torch
from bench import tf32
{use}
gpu = torch.device("cuda")
def told():
    return tuple(tf32.state(gpu).values())
before = told()
with tf32.switched(False):
    off = told()
with tf32.switched(True):
    on = told()
print(before, off, on, told())
"""


@pytest.mark.parametrize("use", _USES)
def test_both_sets_of_switches_are_read_and_put_back(use: str) -> None:
    statement, expected = _USES[use]
    if use.startswith("newer") and not hasattr(torch.backends, "fp32_precision"):
        pytest.skip(f"torch {torch.__version__} has no newer switches")
    assert printed(_PROGRAM.format(use=statement)).strip() == f"{expected} (False, False) (True, True) {expected}"


def test_a_processor_has_no_tf32() -> None:
    with tf32.switched(True):
        assert tf32.state(torch.device("cpu")) == {"matmul": False, "cudnn": False}
