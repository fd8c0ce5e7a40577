"""The way of the weights along their gradients: schedules, Adam, mixed precision, and the generator's average."""

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
    """The margin of one step: `start` at step 0, `end` from step `over` on.

    After the paper's appendix E, a large margin that decays is a good start for hard data.

    Args:
        step: steps done before this one.
        start: margin of the first step, in units of the energy.
        end: margin at the end; unused when the shape is "constant".
        over: how many steps the way from start to end takes, at least 1.
        shape: "constant", "linear", or "cosine" (half a period: slow, fast, slow).
    """
    if shape == "constant":
        return start
    if step >= over:
        return end
    return end + (start - end) * _remaining(step / over, shape)


def learning_rate_factor(step: int, steps: int, decay: LearningRateDecay, decay_start: float) -> float:
    """The factor on the learning rate of one step: 1, falling toward 0 at step `steps`.

    Args:
        step: steps done before this one, below `steps`; so the factor never is 0.
        steps: length of the run.
        decay: "none" is 1 throughout, "linear" a straight fall, "cosine" half a period of a cosine.
        decay_start: share of the run, in [0, 1), at full rate before the fall.
    """
    begin = decay_start * steps
    if decay == "none" or step <= begin:
        return 1.0
    return _remaining((step - begin) / (steps - begin), decay)


def _remaining(progress: float, shape: Literal["linear", "cosine"]) -> float:
    """From 1 at progress 0 to 0 at progress 1."""
    return 1 - progress if shape == "linear" else (1 + math.cos(math.pi * progress)) / 2


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
    def is_scaled(self) -> bool:
        """Return True if the gradients are scaled, which float16's are."""
        return self._scaler.is_enabled()

    @property
    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler, which does nothing unless the run is in float16."""
        return self._scaler

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss as backward takes it."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the optimizer's gradients to their true size, for a look at them before its step."""
        self._scaler.unscale_(optimizer)

    def step(self, *optimizers: torch.optim.Optimizer) -> None:
        """Update weights; with float16, an optimizer whose gradients overflowed leaves them and the scale halves."""
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
    """Adam over a network's parameters, with betas (beta1, 0.999) and torch's fused kernel where the device has it.

    Its rate is a number on the CPU. On CUDA, and where its steps are recorded, it is a 0-d tensor, so that a recorded
    step reads the rate of its day. The CPU's kernel takes it as float64, CUDA's as float32. What `state_dict` gives is
    the same for all.

    Args:
        net: the network, on its device.
        rate: the learning rate.
        beta1: the decay of the first moment.
        recorded: True if a graph records its steps.
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
        # torch would warn of the steps before the recording.
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
        """Both moments and the count of steps of every parameter."""
        for state in self.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def state_dict(self) -> dict[str, Any]:
        """The state, with the rate as a number."""
        state: dict[str, Any] = super().state_dict()
        for group in state["param_groups"]:
            group["lr"], group["capturable"] = self._number, False
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from where the state was taken, on any device.

        Of its options the rate alone is taken: the others are those of this optimizer.

        Raises:
            ValueError: moments of other parameters; torch's fused kernel would read past the end of smaller ones.
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
            # Nothing else of them: torch looks into every part that it is given.
            moments = {index: {name: moments[index][name] for name in parts} for index, parts in expected.items()}
        super().load_state_dict({"state": moments, "param_groups": super().state_dict()["param_groups"]})
        self.set_rate(rate)
        for group in self.param_groups:
            group["capturable"] = self.defaults["capturable"]
            if self._rate is not None:
                group["lr"] = self._rate


def _is_fused_on(device: torch.device) -> bool:
    """Return True if torch's fused Adam runs there, which torch tells in the first step."""
    probe = nn.Parameter(torch.zeros(1, device=device))
    probe.grad = torch.zeros_like(probe)
    try:
        torch.optim.Adam([probe], fused=True).step()
    except RuntimeError:  # NotImplementedError too
        return False
    return True


class WeightAverage:
    """Exponential moving average of a network's parameters.

    At update t, counted from 0: average <- d * average + (1 - d) * weights,
    with d = min(decay, (1 + t) / (10 + t)), a ramp that lets the initial weights fade at once.

    Args:
        parameters: what is averaged; the average starts as a copy of them.
        decay: in (0, 1).
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values: list[Tensor] = [parameter.detach().clone() for parameter in parameters]
        self._parameters = parameters

    @torch.no_grad()
    def update(self, t: int) -> None:
        """Follow the weights after update `t`."""
        decay = min(self.decay, (1 + t) / (10 + t))
        get_ema_multi_avg_fn(decay)(self.values, self._parameters, None)
