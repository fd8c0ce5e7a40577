"""Launches of the ops, compiled for GPUs that this machine lacks."""

from __future__ import annotations

from typing import Any

import gpuless.triton
from ebgan_fast.ops.backends.triton.launch import OPTIONS, Launch
from gpuless.triton import Artifact, Specialization

TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")


def _options(launch: Launch) -> dict[str, Any]:
    """Return the compiler's options, which launch.run passes too."""
    return {"num_warps": launch.num_warps, "num_stages": launch.num_stages, **OPTIONS}


def specialize(launch: Launch, target: str) -> Specialization:
    """Return the compiler's input for this launch."""
    return gpuless.triton.specialize(launch.kernel, launch.arguments, target, **_options(launch))


def compile_launch(launch: Launch, target: str, *, debug: bool = False) -> Artifact:
    """Compile the kernel as the JIT would at this launch on that target.

    With `debug`, `tl.device_assert` and the checks for integer overflow are compiled too.
    """
    return gpuless.triton.compile(launch.kernel, launch.arguments, target, debug=debug, **_options(launch))
