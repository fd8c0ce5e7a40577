"""The peak of one provider's memory on one case, measured in a process of its own: both ends.

    python -m bench.processes.memory_peak CASE PROVIDER DEVICE

The process prints the peak, or what is wrong with the results, in JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ..results.provenance import ROOT
from ..subjects import cases
from ..subjects.calls import BOTH, Judge, on, step
from ..subjects.cases import Case
from ..timing import devices, providers
from ..timing.watches import Step, rise

_STATUS = Path("/proc/self/status")


def asked(case: Case, provider: str, device: str) -> dict[str, Any] | str:
    """Start a process for a provider, and return the process's answer, or why there is none."""
    command = [sys.executable, "-m", "bench.processes.memory_peak", case.name, provider, device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"cannot run: {next(iter(reversed(done.stderr.strip().splitlines())), done.returncode)}"
    answer: dict[str, Any] | str = json.loads(done.stdout)
    return answer


def named(case: str, provider: str, device: str) -> tuple[Case, providers.Provider, devices.Device]:
    """Return the case, the provider and the device of these names."""
    (chosen,) = (one for one in cases.LARGE if one.name == case)
    place = devices.named(device)
    (wanted,) = (one for one in providers.of(chosen, place) if one.name == provider)
    return chosen, wanted, place


def measured(case_name: str, provider_name: str, device_name: str) -> dict[str, Any] | str:
    """Return the bytes at the "peak" and the seconds of the "first_call", or what is wrong with the results."""
    torch.set_num_threads(1)
    case, provider, place = named(case_name, provider_name, device_name)
    arguments = on(case.inputs(torch.float32), place.torch)
    complaint = provider.complaint(arguments, Judge(case, arguments))
    if complaint is not None:
        return complaint
    run = step(provider.loss, [arguments], BOTH)
    with provider.chosen():
        run()  # warm-up: libraries, compiled code and workspaces are made once and kept
        peak = _on_the_cpu(run) if place.torch.type == "cpu" else rise(run, place.torch)
    return {"peak": peak, "first_call": provider.first_call[0]}


def _on_the_cpu(run: Step) -> int:
    """Return the bytes by which the resident memory rises while the step runs."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # otherwise the step would take memory that the warm-up has freed
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
    before = _kibibytes("VmRSS")
    run()
    return 1024 * (_kibibytes("VmHWM") - before)


def _kibibytes(what: str) -> int:
    (found,) = re.findall(rf"^{what}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(found)


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:])))
