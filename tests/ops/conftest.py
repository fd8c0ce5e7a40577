from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings

# Both run before the test modules are imported: some modules hold tensors, or ask for the backends, at import.
from . import sessions, simulated_cuda

simulated_cuda.install_if_asked()
sessions.check()

from .cases import DEVICE  # noqa: E402

if DEVICE.type != "cpu":
    torch.set_default_device(DEVICE)

# The same cases in every run: a case that fails here fails on every machine.
settings.register_profile(
    "ops",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ops")
