"""The choice of an instruction set; sessions.py runs the kernels' tests on each set."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import ebgan_fast

if not ebgan_fast.backends()["cpu"].available:
    pytest.skip(f"backend cpu: {ebgan_fast.backends()['cpu'].reason}", allow_module_level=True)

from ebgan_fast import _C
from tests.programs import printed

SWITCH = "EBGAN_FAST_CPU_ISA"
INFO = _C.build_info()


def _in_a_process_with(isa: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, SWITCH: isa},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_an_unknown_instruction_set_is_refused_by_name() -> None:
    done = _in_a_process_with("avx9", "-c", "import torch, ebgan_fast; ebgan_fast.pulling_away_term(torch.ones(2, 2))")
    assert done.returncode != 0
    assert f"{SWITCH}: got 'avx9', expected" in done.stdout
    assert "'baseline'" in done.stdout


# torch is imported once. Each set has a process of its own, as the package chooses the set when it is imported.
PICKED = """
import os, sys, torch
for isa in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    os.environ["EBGAN_FAST_CPU_ISA"] = isa
    from ebgan_fast import _C
    print(_C.build_info()["isa"], flush=True)
    os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_environment_variable_picks_the_set() -> None:
    assert printed(PICKED, *INFO["isas_supported"]).split() == INFO["isas_supported"]


@pytest.mark.slow
@pytest.mark.skipif(SWITCH in os.environ, reason=f"{SWITCH} already picks one set")
def test_the_doctor_names_the_set_and_says_why() -> None:
    report = ("-c", "from ebgan_fast.doctor import report; print(report())")
    slowest = INFO["isas_supported"][0]
    assert f"instruction set {slowest} ({SWITCH} asks for it)" in _in_a_process_with(slowest, *report).stdout
    unasked = _in_a_process_with("", *report).stdout
    assert f"instruction set {INFO['isas_supported'][-1]} (the fastest of those compiled in" in unasked
    for isa in set(INFO["isas_compiled"]) - set(INFO["isas_supported"]):
        assert re.search(rf"it lacks .*\b{isa}\b", unasked)
