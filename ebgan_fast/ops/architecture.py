"""The name of a GPU in the tables of measured choices."""

from __future__ import annotations

import functools

import torch


@functools.cache
def architecture(device: torch.device) -> str:
    """ "sm_90", "gfx942" or the like; "default" where there is no GPU."""
    if device.type != "cuda":
        return "default"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"
