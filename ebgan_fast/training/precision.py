"""Mixed precision: where autocast holds, and the scaling that float16 gradients need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .config import Precision

_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class MixedPrecision:
    """Autocast and gradient scale of a run.

    Args:
        precision: of the networks' products and maps.
        device: of the networks.

    Attributes:
        dtype: what images are fed in. In bfloat16 a pixel is off by at most half of one of its 256 steps, as the
            first convolution would round it anyway; energies are summed in float32.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.dtype = _DTYPES[precision]
        self._device_type = device.type
        # Loss scale: float16 gradients below 6e-8 vanish otherwise.
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def autocast(self) -> torch.autocast:
        """The context of the networks' forward passes. Those in one block share the weights' copies in 16 bits."""
        return torch.autocast(self._device_type, self.dtype, enabled=self.dtype != torch.float32)

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler, which does nothing unless the run is in float16."""
        return self._scaler

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as backward takes it."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the optimiser's gradients to their true size, for a look at them before its step."""
        self._scaler.unscale_(optimizer)

    def step(self, *optimizers: torch.optim.Optimizer) -> None:
        """Update weights; with float16, an optimiser whose gradients overflowed leaves them and the scale halves."""
        for optimizer in optimizers:
            self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:  # empty where nothing is scaled
            self._scaler.load_state_dict(state)
