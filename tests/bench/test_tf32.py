"""The switches of tf32 are read in whichever set a program used, and put back."""

from __future__ import annotations

import pytest
import torch

from bench.results import tf32
from tests.programs import printed

# Each use has a process of its own, because nothing brings torch's two sets of switches back to their first state. The
# processes are forked from one that has imported torch.
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
import os, sys
import torch
from bench.results import tf32
gpu = torch.device("cuda")
def told():
    return tuple(tf32.state(gpu).values())
def tell(use):
    exec(use)
    before = told()
    with tf32.switched(False):
        off = told()
    with tf32.switched(True):
        on = told()
    print(before, off, on, told(), flush=True)
for use in sys.argv[1:]:
    child = os.fork()
    if not child:
        tell(use)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, use
"""


@pytest.mark.slow
def test_both_sets_of_switches_are_read_and_put_back() -> None:
    # An older torch lacks the newer switches.
    there = hasattr(torch.backends, "fp32_precision")
    uses = {name: use for name, use in _USES.items() if there or not name.startswith("newer")}
    told = printed(_PROGRAM, *(statement for statement, _ in uses.values())).splitlines()
    expected = [f"{state} (False, False) (True, True) {state}" for _, state in uses.values()]
    assert dict(zip(uses, told, strict=True)) == dict(zip(uses, expected, strict=True))


def test_a_processor_has_no_tf32() -> None:
    with tf32.switched(True):
        assert tf32.state(torch.device("cpu")) == {"matmul": False, "cudnn": False}
