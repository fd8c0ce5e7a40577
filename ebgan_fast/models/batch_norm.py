"""Batch norm like torch's, but without counting its steps, because nothing reads the count.

torch's batch norm adds 1 to `num_batches_tracked` in every training step, which costs a kernel launch for each layer.
Only the plain mean over steps (momentum None) needs the count. The buffers and their names are torch's, so checkpoints
of either kind can be loaded into the other.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


class BatchNorm1d(nn.BatchNorm1d):
    """Batch norm of [N, C] or [N, C, L] that counts its steps only if momentum is None."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` normalized, in the same shape."""
        return super().forward(input) if self.momentum is None else _uncounted(self, input, self.momentum)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm of [N, C, H, W] that counts its steps only if momentum is None."""

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` normalized, in the same shape."""
        return super().forward(input) if self.momentum is None else _uncounted(self, input, self.momentum)


def _uncounted(norm: _BatchNorm, values: Tensor, momentum: float) -> Tensor:
    norm._check_input_dim(values)
    # As in torch: a norm without running statistics always uses those of the batch. A norm that has some but doesn't
    # track them uses those of the batch in training, and stores none.
    reads = norm.track_running_stats or not norm.training
    mean, variance = (norm.running_mean, norm.running_var) if reads else (None, None)
    by_batch = norm.training or (norm.running_mean is None and norm.running_var is None)
    return functional.batch_norm(values, mean, variance, norm.weight, norm.bias, by_batch, momentum, norm.eps)
