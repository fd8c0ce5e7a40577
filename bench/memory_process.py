"""One provider's peak memory on one case, for `memory`: prints them, or what is wrong with the results."""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch

from .cases import on
from .correctness import Judge
from .memory import named
from .peak import rise
from .steps import BOTH, step
from .timing import Step

_STATUS = Path("/proc/self/status")


def _kibibytes(what: str) -> int:
    (found,) = re.findall(rf"^{what}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(found)


def _on_the_cpu(run: Step) -> int:
    """The bytes by which the resident memory rises while the step runs."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # else the step would take what the warm-up has left
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _kibibytes("VmRSS")
    run()
    return 1024 * (_kibibytes("VmHWM") - before)


def measured(case_name: str, provider_name: str, device_name: str) -> dict[str, Any] | str:
    """Bytes at the "peak" and seconds of the "first_call", or what is wrong."""
    torch.set_num_threads(1)
    case, provider, place = named(case_name, provider_name, device_name)
    arguments = on(case.inputs(torch.float32), place.torch)
    complaint = provider.complaint(arguments, Judge(case, arguments))
    if complaint is not None:
        return complaint
    run = step(provider.loss, [arguments], BOTH)
    with provider.chosen():
        run()  # what a first call makes for good: libraries, compiled code, workspaces
        peak = _on_the_cpu(run) if place.torch.type == "cpu" else rise(run, place.torch)
    return {"peak": peak, "first_call": provider.first_call[0]}


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:])))
