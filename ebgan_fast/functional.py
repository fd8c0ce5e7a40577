"""The ops of Energy-Based GANs as functions. Each checks its arguments and runs on the fastest backend available.

A batch is [N, ...]: N samples of K elements each, in any trailing shape and any memory layout. Dtypes are float64,
float32, bfloat16 and float16; a pair of different dtypes is promoted to one. Sums run in float32 or wider. Energies and
losses come out in float32 (float64 for float64 inputs), also under autocast. No function writes its inputs. No function
waits for the device, except in a process group's first call on a GPU. Numbers may be Python's or NumPy's.

Only the energy has a `reduction`. The losses are sums of means, and the pulling-away term is a mean over pairs, so
"sum" and "none" have no meaning for them. For parts of unequal size, take the energies and reduce them yourself.

The equations are those of Zhao, Mathieu and LeCun, "Energy-Based Generative Adversarial Networks" (2016,
arXiv:1609.03126).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from . import _checks
from .ops import backends, energy, pulling_away, ranks, reference
from .ops import graphs as graphs  # gives raw ops their gradients
from .ops.energy import Norm as Norm
from .ops.op import needs_reference
from .ops.tensors import Coefficient
from .results import DiscriminatorResult, GeneratorResult

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = [
    "DiscriminatorResult",
    "GeneratorResult",
    "discriminator_loss",
    "generator_loss",
    "hinge_margin_loss",
    "pulling_away_term",
    "reconstruction_energy",
]

Reduction = Literal["none", "mean", "sum"]

PT_WEIGHT = 0.1
"""The weight of the pulling-away term in the paper."""

_STRIDED, _FLOATING = torch.strided, _checks.FLOATING  # a lookup in another module takes 0.1 us


def backend_of(batch: Tensor) -> str:
    """Return the name of the backend that runs an op on this tensor."""
    if needs_reference():
        return "reference"
    if batch.is_cpu:  # 0.1 us; device.type makes a new string each time, 0.6 us
        return backends.choose("cpu")
    device = batch.device
    return backends.choose(device.type, device.index)


def _pair(name: str, batch: Tensor, other_name: str, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return a checked pair of batches, converted to one dtype."""
    try:
        if (  # the usual case as one expression takes 0.9 us a pair; the checks below take 1.5
            type(batch) is Tensor
            and type(other) is Tensor
            and (dtype := batch.dtype) is other.dtype
            and batch.shape == other.shape
            and ((batch.is_cpu and other.is_cpu) or batch.device == other.device)
            and batch.layout is other.layout is _STRIDED
            and dtype in _FLOATING
            and batch.numel()
            and batch.dim()
        ):
            return batch, other
    except RuntimeError:  # a nested tensor has no shape
        pass
    _checks.check_batch(name, batch)
    _checks.check_batch(other_name, other)
    _checks.check_same(name, batch, other_name, other)
    return _one_dtype(batch, other)


def _one_dtype(batch: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors in the dtype that torch promotes them to."""
    if batch.dtype == other.dtype:
        return batch, other
    dtype = torch.promote_types(batch.dtype, other.dtype)
    return batch.to(dtype), other.to(dtype)


def _is_usual(norm: Norm, coefficient: Coefficient | None, upstream: Coefficient | None) -> bool:
    """Return True if norm and coefficient are valid and of the usual kinds, and upstream is None. Saves four checks."""
    if upstream is not None or norm not in energy.NORMS:
        return False
    if type(coefficient) is float:
        return 0 <= coefficient < math.inf
    return (
        type(coefficient) is Tensor
        and coefficient.dim() == 0
        and coefficient.dtype in _FLOATING
        and coefficient.layout is _STRIDED
        and not coefficient.is_meta
    )


def _is_trained(coefficient: Coefficient) -> bool:
    """Return True if a margin or weight requires a gradient. Only the reference gives it one; the kernels don't."""
    return type(coefficient) is not float and isinstance(coefficient, Tensor) and coefficient.requires_grad


def reconstruction_energy(recon: Tensor, target: Tensor, *, norm: Norm = "l2", reduction: Reduction = "none") -> Tensor:
    """Return the energy D(x) of each sample, [N]: the distance of its reconstruction from the sample (equation 13).

    Args:
        recon: [N, ...], the reconstructions Dec(Enc(x)).
        target: [N, ...], the samples x, of the same shape. Don't detach it in the generator's loss: the generated
            samples must get a gradient through `target` too.
        norm: the kind of energy. "l2", the default, is the square root of the sum of squared differences. It is the
            paper's energy, and the paper's margins 10 to 80 belong to it. "sse" is the sum of squared differences,
            "mse" their mean, and "l1" the sum of absolute differences. The gradient of l2 is 0 at energy 0, and that of
            l1 is 0 at a difference of 0. Squares are computed in float32 (float64 for float64). They overflow for
            differences above 1.8e19 and vanish below 1e-19.
        reduction: over the samples. "none" gives each energy, "mean" their mean, fused with its gradients, and "sum"
            their sum. Mean and sum are 0 for an empty batch.

    Returns:
        [N] energies, or a scalar with a reduction, float32 (float64 for float64 inputs). They are in pixel units for l2
        and l1, and in squared pixel units for sse and mse.

    Raises:
        ValueError: if shapes or devices differ, a batch has no dimension, a sample is empty, or the norm or reduction
            is unknown.
        TypeError: if an input is not a dense floating-point tensor.

    Example:
        >>> import torch, ebgan_fast
        >>> images, reconstructions = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
        >>> ebgan_fast.reconstruction_energy(reconstructions, images)
        tensor([2., 2.])
        >>> ebgan_fast.reconstruction_energy(reconstructions, images, norm="mse", reduction="mean")
        tensor(1.)
    """
    if norm not in energy.NORMS:  # saves a call in the usual case
        _checks.check_norm(norm)
    if reduction != "none":
        _checks.check_reduction(reduction)
    recon, target = _pair("recon", recon, "target", target)
    if reduction == "mean":  # the generator's loss without a code is this mean
        return generator_loss(recon, target, norm=norm).loss
    backend = backend_of(recon)
    energies: Tensor
    if backend == "reference":
        energies = reference.reconstruction_energy(recon, target, norm)
    else:
        energies = energy.RECONSTRUCTION_ENERGY.apply(backend, recon, target, norm)
    return energies if reduction == "none" else energies.sum()


def hinge_margin_loss(energy_real: Tensor | None, energy_fake: Tensor, margin: Coefficient) -> Tensor:
    """Return the discriminator's loss of given energies: mean(E_real) + mean([m - E_fake]+) (equation 1).

    The hinge is applied to each sample and then averaged, as in the paper's expectation. The hinge of the mean would be
    a smaller loss (Jensen's inequality). The gradient at E = m is 0.

    Args:
        energy_real: [N] energies of real samples. None: the loss is the hinge over generated samples alone.
        energy_fake: [M] energies of generated samples; M may differ from N. An empty batch contributes 0.
        margin: m >= 0 in units of the energy: a number, or a 0-d tensor. If a schedule changes the tensor, nothing is
            recompiled and nothing waits for the device. The sign of a tensor is not checked. A margin that requires a
            gradient gets one.

    Returns:
        Scalar loss in units of the energy, float32 (float64 for float64 energies).

    Raises:
        ValueError: if the energies are not [N], the devices differ, or the margin is negative or has no value (a tensor
            on meta).
        TypeError: if the energies are not dense floating-point tensors, or the margin is neither a number nor a
            floating-point tensor.

    Example:
        >>> import torch, ebgan_fast
        >>> energy_real, energy_fake = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 12.0])
        >>> ebgan_fast.hinge_margin_loss(energy_real, energy_fake, margin=10.0)  # 2 + (6 + 0) / 2
        tensor(5.)
        >>> ebgan_fast.hinge_margin_loss(None, energy_fake, margin=10.0)
        tensor(3.)
    """
    _checks.check_energies("energy_fake", energy_fake)
    if energy_real is None:
        energy_real = energy_fake.new_empty(0)
    else:
        _checks.check_energies("energy_real", energy_real)
        _checks.check_same_device("energy_real", energy_real, "energy_fake", energy_fake)
    margin = _checks.coefficient("margin", margin, energy_fake)
    energy_real, energy_fake = _one_dtype(energy_real, energy_fake)
    backend = "reference" if _is_trained(margin) else backend_of(energy_real)
    if backend == "reference":
        margin = _checks.recordable("margin", margin)
        return reference.hinge_margin_loss(energy_real, energy_fake, margin)
    loss: Tensor = energy.HINGE_MARGIN_LOSS.apply(backend, energy_real, energy_fake, margin)
    return loss


def pulling_away_term(code: Tensor, *, process_group: ProcessGroup | None = None) -> Tensor:
    """Return the mean squared cosine of a batch's codes: 1/(N(N-1)) sum_{i != j} cos^2(s_i, s_j) (equation 14).

    Args:
        code: [N, ...], the encoder's output for generated samples, flattened to [N, d]. A row of zeros contributes 0
            and gets gradient 0. Of any other row only the direction counts, for numbers from the smallest normal one to
            the largest. An infinite or NaN number makes the term NaN.
        process_group: take the term over the batches of all ranks of this group. Each rank must have the same N and d.
            The gradient is that of the global term times the number of ranks, because data-parallel training averages
            gradients. On the CPU, and on gloo, the ranks compare N and d in each call. On NCCL they compare them in the
            group's first call only. That call waits for the device and can't be captured in a CUDA graph. A later
            difference on NCCL is not detected: the term is wrong, or ranks wait for each other until the group's
            timeout. A DataLoader(drop_last=True) gives no smaller last batch.

    Returns:
        Scalar in [0, 1], float32 (float64 for float64 codes). It is 1 for parallel or opposite codes, 0 for orthogonal
        codes, about 1/d for random codes, and 0 for N < 2.

    Raises:
        ValueError: if a code has no elements, or this process is not in the group. On every rank of the group if the
            ranks' N or d differ, or only some of the ranks pass float64.
        TypeError: if code is not a dense floating-point tensor, or process_group is no process group.
        RuntimeError: with a process group, in a second derivative, in a transform of torch.func, or in forward mode. On
            NCCL, if the group's first call is within a CUDA graph's capture.

    Example:
        >>> import torch, ebgan_fast
        >>> codes = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, -1.0]])
        >>> ebgan_fast.pulling_away_term(codes)  # one pair of three is parallel
        tensor(0.3333)
    """
    _checks.check_batch("code", code)
    if process_group is not None and _checks.has_others(process_group):
        return ranks.pulling_away_term(code, process_group)
    backend = backend_of(code)
    if backend == "reference":
        return reference.pulling_away_term(code)
    value: Tensor = pulling_away.PULLING_AWAY_TERM.apply(backend, code)
    return value


def discriminator_loss(
    recon_real: Tensor,
    real: Tensor,
    recon_fake: Tensor,
    fake: Tensor,
    margin: Coefficient,
    *,
    norm: Norm = "l2",
    upstream: Coefficient | None = None,
) -> DiscriminatorResult:
    """Return the discriminator's loss of both batches, computed in one op with its energies and gradients (equation 1).

    The hinge is applied to each sample, as in `hinge_margin_loss`.

    Args:
        recon_real: [N, ...] reconstructions of the real samples.
        real: [N, ...] real samples.
        recon_fake: [M, ...] reconstructions of the generated samples; M may differ from N.
        fake: [M, ...] generated samples. Detach them if only the discriminator is updated.
        margin: m >= 0 in units of the energy: a number, or a 0-d tensor. See `hinge_margin_loss`.
        norm: the kind of energy, as in `reconstruction_energy`.
        upstream: the gradient that the loss will get in backward, if you know it: a number other than 0, or a 0-d
            tensor such as a GradScaler's scale. The gradients are multiplied by it before they are rounded. So backward
            needs no multiplication, and float16 runs as one fused op. If backward gets a different gradient, the result
            is still right, at the cost of one multiplication. None: 1 is assumed, and float16 runs as separate ops.

    Returns:
        The named tuple (loss, energy_real [N], energy_fake [M]) in units of the energy, float32 (float64 for float64
        inputs). The energies carry no gradient: they are for logs.

    Raises:
        ValueError: if a pair's shapes or devices differ, the margin is negative, the upstream is 0, or norm is unknown.
        TypeError: if a batch is no dense floating-point tensor, or a margin or upstream is neither number nor tensor.

    Example:
        >>> import torch, ebgan_fast
        >>> real, fake = torch.zeros(2, 4), torch.ones(3, 4)
        >>> recon_real, recon_fake = (real + 0.5).requires_grad_(), fake * 0.0
        >>> result = ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, margin=10.0)
        >>> result.energy_real, result.energy_fake, result.loss.item()  # 1 + (10 - 2)
        (tensor([1., 1.]), tensor([2., 2., 2.]), 9.0)
        >>> result.loss.backward()
        >>> recon_real.grad
        tensor([[0.2500, 0.2500, 0.2500, 0.2500],
                [0.2500, 0.2500, 0.2500, 0.2500]])
    """
    if not _is_usual(norm, margin, upstream):
        _checks.check_norm(norm)
        margin = _checks.coefficient("margin", margin, recon_real)
        upstream = _checks.upstream(upstream, recon_real)
    recon_real, real = _pair("recon_real", recon_real, "real", real)
    recon_fake, fake = _pair("recon_fake", recon_fake, "fake", fake)
    if not (recon_real.is_cpu and recon_fake.is_cpu):
        _checks.check_same_device("recon_real", recon_real, "recon_fake", recon_fake)
    if recon_real.dtype != recon_fake.dtype:
        recon_real, recon_fake = _one_dtype(recon_real, recon_fake)
        real, fake = _one_dtype(real, fake)
    backend = "reference" if _is_trained(margin) else backend_of(recon_real)
    if backend == "reference":
        margin = _checks.recordable("margin", margin)
        return DiscriminatorResult(*reference.discriminator_loss(recon_real, real, recon_fake, fake, margin, norm))
    if upstream is None:
        if recon_real.dtype == torch.float16:
            # The fused op would round its gradients for an upstream of 1, and float16 would lose small values that a
            # GradScaler saves. As separate ops, each multiplies by the upstream in float32 before it rounds.
            energy_real = reconstruction_energy(recon_real, real, norm=norm)
            energy_fake = reconstruction_energy(recon_fake, fake, norm=norm)
            loss = hinge_margin_loss(energy_real, energy_fake, margin)
            return DiscriminatorResult(loss, energy_real.detach(), energy_fake.detach())
        upstream = 1.0
    batches = recon_real, real, recon_fake, fake
    return DiscriminatorResult(*energy.DISCRIMINATOR_LOSS.apply(backend, *batches, margin, norm, upstream))


def generator_loss(
    recon_fake: Tensor,
    fake: Tensor,
    code: Tensor | None = None,
    *,
    pt_weight: Coefficient | None = None,
    norm: Norm = "l2",
    upstream: Coefficient | None = None,
    process_group: ProcessGroup | None = None,
) -> GeneratorResult:
    """Return the generator's loss mean(E_fake) + pt_weight * PT(code), with its gradients in one op (equations 2, 14).

    Args:
        recon_fake: [N, ...] reconstructions of the generated samples.
        fake: [N, ...] generated samples, not detached: half of the gradient flows through them as the target.
        code: [N, ...] the encoder's output for the generated samples. None: no pulling-away term.
        pt_weight: weight >= 0 of the pulling-away term: a number, or a 0-d tensor. None: the paper's 0.1 with a code,
            and no term without a code. A weight that requires a gradient gets one.
        norm: the kind of energy, as in `reconstruction_energy`.
        upstream: the gradient that the loss will get in backward, if you know it. See `discriminator_loss`.
        process_group: take the pulling-away term over all ranks of this group, each with the same N. See
            `pulling_away_term`.

    Returns:
        The named tuple (loss, energy [N], pulling_away), float32 (float64 for float64 inputs). Loss and energy are in
        units of the energy, and pulling_away is in [0, 1], without its weight. Energy and pulling_away carry no
        gradient: they are for logs. Without a code, pulling_away is 0.

    Raises:
        ValueError: if shapes, batch sizes or devices differ, the weight is negative, the upstream is 0, or the norm is
            unknown. Also if a weight other than 0 is given without a code, and as `pulling_away_term` does.
        TypeError: if a batch is not a dense floating-point tensor, a weight or upstream is neither a number nor a
            tensor, or process_group is no process group.
        RuntimeError: with a process group, as `pulling_away_term` does.

    Example:
        >>> import torch, ebgan_fast
        >>> fake = torch.zeros(2, 4, requires_grad=True)
        >>> code = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> result = ebgan_fast.generator_loss(fake + 1.0, fake, code)
        >>> result.energy, result.pulling_away
        (tensor([2., 2.]), tensor(0.5000))
        >>> result.loss.detach()  # 2 + 0.1 * 0.5
        tensor(2.0500)
    """
    if pt_weight is None:
        pt_weight = PT_WEIGHT
    elif code is None:
        pt_weight = _checks.coefficient("pt_weight", pt_weight)
        _checks.check_weighs_nothing(pt_weight)
    if not _is_usual(norm, pt_weight, upstream):
        _checks.check_norm(norm)
        pt_weight = _checks.coefficient("pt_weight", pt_weight, recon_fake)
        upstream = _checks.upstream(upstream, recon_fake)
    recon_fake, fake = _pair("recon_fake", recon_fake, "fake", fake)
    if code is not None:
        _checks.check_batch("code", code)
        if not (recon_fake.is_cpu and code.is_cpu):
            _checks.check_same_device("recon_fake", recon_fake, "code", code)
        _checks.check_same_batch_size("recon_fake", recon_fake, "code", code)
    across_ranks = code is not None and process_group is not None and _checks.has_others(process_group)
    other_dtype = code is not None and code.dtype != recon_fake.dtype
    # For float16, see discriminator_loss.
    if across_ranks or other_dtype or (recon_fake.dtype == torch.float16 and upstream is None):
        energies = reconstruction_energy(recon_fake, fake, norm=norm)
        loss = reference.batch_mean(energies)
        if code is None:
            return GeneratorResult(loss, energies.detach(), energies.new_zeros(()))
        term = pulling_away_term(code, process_group=process_group)
        loss = loss + reference.weighed(_checks.recordable("pt_weight", pt_weight), term)
        return GeneratorResult(loss, energies.detach(), term.detach())
    backend = "reference" if _is_trained(pt_weight) else backend_of(recon_fake)
    if backend == "reference":
        pt_weight = _checks.recordable("pt_weight", pt_weight)
        return GeneratorResult(*reference.generator_loss(recon_fake, fake, code, pt_weight, norm))
    if upstream is None:
        upstream = 1.0
    return GeneratorResult(*energy.GENERATOR_LOSS.apply(backend, recon_fake, fake, code, pt_weight, norm, upstream))
