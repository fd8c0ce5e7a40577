"""The updates of the weights: schedules, Adam, mixed precision, and the moving average of the generator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .._fitting import check_fits

Precision = Literal["float32", "bfloat16", "float16"]
MarginSchedule = Literal["constant", "linear", "cosine"]
LearningRateDecay = Literal["none", "linear", "cosine"]

_DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def margin_at(step: int, start: float, end: float, over: int, shape: MarginSchedule) -> float:
    """Return the margin of one step: `start` at step 0, `end` from step `over` on.

    The paper's appendix E suggests a large margin that decays as a good start for hard data.

    Args:
        step: the number of steps done before this one.
        start: the margin of the first step, in units of the energy.
        end: the last margin. The shape "constant" ignores it.
        over: the number of steps from start to end, at least 1.
        shape: "constant", "linear", or "cosine" (half a period: slow, fast, slow).
    """
    if shape == "constant":
        return start
    if step >= over:
        return end
    return end + (start - end) * _remaining(step / over, shape)


def learning_rate_factor(step: int, steps: int, decay: LearningRateDecay, decay_start: float) -> float:
    """Return the factor on the learning rate of one step: 1 at first, then falling toward 0 at step `steps`.

    Args:
        step: the number of steps done before this one. It is below `steps`, so the factor is never 0.
        steps: the number of steps of the run.
        decay: "none" is 1 in every step, "linear" a straight fall, "cosine" half a period of a cosine.
        decay_start: the share of the run, in [0, 1), at the full rate before the fall.
    """
    begin = decay_start * steps
    if decay == "none" or step <= begin:
        return 1.0
    return _remaining((step - begin) / (steps - begin), decay)


def _remaining(progress: float, shape: Literal["linear", "cosine"]) -> float:
    """Return 1 at progress 0 and 0 at progress 1, with a course of this shape between."""
    return 1 - progress if shape == "linear" else (1 + math.cos(math.pi * progress)) / 2


class MixedPrecision:
    """The autocast and the gradient scaling of a run.

    Args:
        precision: of the networks' products and feature maps.
        device: of the networks.

    Attributes:
        dtype: the dtype that images are fed in. In bfloat16 a pixel is off by at most half of one of its 256 steps, as
            the first convolution would round it anyway. Energies are summed in float32.
    """

    def __init__(self, precision: Precision, device: torch.device) -> None:
        self.dtype = _DTYPES[precision]
        self._device_type = device.type
        # Without a loss scale, float16 gradients below 6e-8 become 0.
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def autocast(self) -> torch.autocast:
        """Return the context for forward passes. Passes in one such block share the 16-bit copies of the weights."""
        return torch.autocast(self._device_type, self.dtype, enabled=self.dtype != torch.float32)

    @property
    def is_scaled(self) -> bool:
        """True if the gradients are scaled, as in float16."""
        return self._scaler.is_enabled()

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler. It does nothing unless the run is in float16."""
        return self._scaler

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss, scaled for the backward pass."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the optimizer's gradients by the scale, so that they can be measured before its step."""
        self._scaler.unscale_(optimizer)

    def step(self, *optimizers: torch.optim.Optimizer) -> None:
        """Update the weights. In float16, an optimizer whose gradients overflowed skips its update, and the scale is
        halved."""
        for optimizer in optimizers:
            self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:  # empty where nothing is scaled
            self._scaler.load_state_dict(state)


class Adam(torch.optim.Adam):
    """Adam over a network's parameters, with betas (beta1, 0.999). It uses torch's fused kernel where the device has
    one.

    On the CPU the learning rate is a number. On CUDA, and where a graph records the steps, it is a 0-d tensor, so that
    a replayed step reads its current value. The tensor is float64 for the CPU's kernel and float32 for CUDA's.
    `state_dict` has the same form in all cases.

    Args:
        net: the network, on its device.
        rate: the learning rate.
        beta1: the decay of the first moment.
        recorded: True if a graph records the steps.
    """

    def __init__(self, net: nn.Module, rate: float, beta1: float, *, recorded: bool = False) -> None:
        parameters, betas = list(net.parameters()), (beta1, 0.999)
        device = parameters[0].device
        on_cuda = device.type == "cuda"
        self._number = rate
        self._rate: Tensor | None = None
        if on_cuda or recorded:
            self._rate = torch.tensor(rate, dtype=torch.float32 if on_cuda else torch.float64, device=device)
        super().__init__(
            parameters,
            rate if self._rate is None else self._rate,
            betas,
            fused=_is_fused_on(device) or None,
            capturable=recorded and on_cuda,
        )
        # Suppress torch's warning about the steps before the recording.
        self._warned_capturable_if_run_uncaptured = True

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        self._number = rate
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self.param_groups:
            group["lr"] = rate

    def tensors(self) -> Iterator[Tensor]:
        """Yield both moments and the step count of every parameter."""
        for state in self.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, with the learning rate as a number."""
        state: dict[str, Any] = super().state_dict()
        for group in state["param_groups"]:
            group["lr"], group["capturable"] = self._number, False
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state that was saved on any device.

        Only the learning rate is taken from the state's options. The other options stay as they are.

        Args:
            state_dict: the state.

        Raises:
            ValueError: the moments don't fit the parameters. torch's fused kernel would read past the end of smaller
                ones.
        """
        rate = state_dict["param_groups"][0]["lr"]
        check_fits(rate, 0.0, "lr")
        moments = state_dict["state"]
        if moments:  # none before the first step
            expected = {
                index: {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
                for index, parameter in enumerate(self.param_groups[0]["params"])
            }
            check_fits(moments, expected, "state")
            # Pass on nothing else: torch reads every part that it is given.
            moments = {index: {name: moments[index][name] for name in parts} for index, parts in expected.items()}
        super().load_state_dict({"state": moments, "param_groups": super().state_dict()["param_groups"]})
        self.set_rate(rate)
        for group in self.param_groups:
            group["capturable"] = self.defaults["capturable"]
            if self._rate is not None:
                group["lr"] = self._rate


def _is_fused_on(device: torch.device) -> bool:
    """Return True if torch's fused Adam runs on the device. torch reports a missing kernel only in the first step."""
    probe = nn.Parameter(torch.zeros(1, device=device))
    probe.grad = torch.zeros_like(probe)
    try:
        torch.optim.Adam([probe], fused=True).step()
    except RuntimeError:  # NotImplementedError too
        return False
    return True


class WeightAverage:
    """The exponential moving average of a network's parameters.

    Update t, counted from 0, does average <- d * average + (1 - d) * weights with d = min(decay, (1 + t) / (10 + t)).
    While t is small, d is small, so that the initial weights fade quickly.

    Args:
        parameters: the parameters to average. The average starts as a copy of them.
        decay: in (0, 1).
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values: list[Tensor] = [parameter.detach().clone() for parameter in parameters]
        self._parameters = parameters

    @torch.no_grad()
    def update(self, t: int) -> None:
        """Move the average toward the weights, after update `t`."""
        decay = min(self.decay, (1 + t) / (10 + t))
        get_ema_multi_avg_fn(decay)(self.values, self._parameters, None)
