"""The command `stacked`: several configurations of the paper's grid in one batched program, against one after another.

A search over networks of one shape could stack their weights and train all of them by batched products (torch.func). It
pays where a step is calls more than arithmetic; this says from which size on it doesn't.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ebgan_fast.data import TensorImages
from ebgan_fast.data.pixels import to_signed_unit
from ebgan_fast.models import AutoEncoder, Generator, Mlp
from ebgan_fast.training import TrainConfig
from ebgan_fast.training.step import Trainer

from . import devices, files, provenance, public_loop
from .rounding import allowance
from .rows import append
from .session import check_counts
from .terminal import progress, short
from .timing import interleaved

APART, STACKED = "one after another", "stacked"

_BATCH, _Z, _MARGIN = 64, 100, 10.0

# (configurations, nLayerG, sizeG, sizeD), with nLayerD 2. The first is smaller than any of the grid.
SHAPES = ((8, 3, 64, 64), (4, 2, 400, 128), (4, 5, 400, 128), (4, 5, 800, 1024))


@dataclass(frozen=True, kw_only=True)
class StackedRow(provenance.Conditions):
    """One measurement, as a line of JSON."""

    configurations: int
    n_layer_g: int
    size_g: int
    size_d: int
    threads: int
    seconds: dict[str, float]
    """A step of all configurations: the minimum over rounds."""
    ratio: float
    """The separate steps' time over the stack's: the median over rounds."""
    rounds: int


def stacked(rounds: int = 11, threads: int = 1, out: Path | None = None) -> int:
    """Time EBGAN's step on several small configurations: one after another, and with their weights stacked.

    Args:
        rounds: Times each is timed.
        threads: Processor threads.
        out: File of JSON lines to append to. None: bench/results/stacked-cpu.jsonl.
    """
    check_counts(rounds=(rounds,), threads=(threads,))
    path = out or devices.RESULTS / "stacked-cpu.jsonl"
    if out is not None:
        files.check_appendable(out, "out")
    torch.set_num_threads(threads)
    with progress(rounds * len(SHAPES)) as (describe, advance):
        for shape in SHAPES:
            describe(f"{shape[0]} configurations")
            row = _measured(*shape, rounds, threads, advance)
            print(
                f"{row.configurations} x nLayerG {row.n_layer_g}, sizeG {row.size_g}, sizeD {row.size_d}: "
                f"{1e3 * row.seconds[APART]:.1f} ms one after another, {1e3 * row.seconds[STACKED]:.1f} ms stacked: "
                f"{row.ratio:.2f} times as fast"
            )
            append(row, path)
    print(f"appended to {short(path)}")
    return 0


class Stack:
    """EBGANs of one shape whose weights lie behind one another, and a step of all of them."""

    def __init__(self, count: int, n_layer_g: int, size_g: int, size_d: int, images: TensorImages) -> None:
        generators = [_without_statistics(Generator(_Z, n_layer_g, size_g)) for _ in range(count)]
        discriminators = [_without_statistics(AutoEncoder(2, size_d)) for _ in range(count)]
        self.weights_g, _ = stack_module_state(generators)
        self.weights_d, _ = stack_module_state(discriminators)
        self.generator, self.discriminator = generators[0], discriminators[0]
        self.optimizers = [
            torch.optim.Adam(weights.values(), 0.001, (0.5, 0.999), fused=True)
            for weights in (self.weights_g, self.weights_d)
        ]
        self._images, self._count = images, count

    def step(self) -> None:
        """Update all networks, each on noise of its own and the same real images."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        chosen = torch.randint(len(self._images), (_BATCH,))
        self.backward(to_signed_unit(self._images.gather(chosen)), torch.randn(self._count, _BATCH, _Z))
        for optimizer in self.optimizers:
            optimizer.step()

    def backward(self, real: Tensor, noise: Tensor) -> Tensor:
        """All gradients, by the graph that `Trainer` uses; returns each configuration's loss of the discriminator.

        Args:
            real: [N, 1, 32, 32].
            noise: [configurations, N, z].
        """
        generated = vmap(lambda weights, z: functional_call(self.generator, weights, (z,)))(self.weights_g, noise)
        fakes = generated.detach().requires_grad_()
        recon_fake, _ = self._reconstructed(fakes, 0)
        (gradient,) = torch.autograd.grad(_energy(recon_fake, fakes).mean(1).sum(), fakes, retain_graph=True)
        generated.backward(gradient)
        recon_real, _ = self._reconstructed(real, None)
        hinge = (_MARGIN - _energy(recon_fake, fakes.detach())).relu()
        loss = _energy(recon_real, real).mean(1) + hinge.mean(1)
        loss.sum().backward(inputs=list(self.weights_d.values()))
        return loss.detach()

    def _reconstructed(self, images: Tensor, dim: int | None) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = vmap(
            lambda weights, x: functional_call(self.discriminator, weights, (x,)), in_dims=(0, dim)
        )(self.weights_d, images)
        return result


def check(stack: Stack, real: Tensor, noise: Tensor) -> None:
    """Refuse to time a stack whose losses are not those of its networks, one by one.

    The truth is each network alone in float64. Eager torch's error in float32 is the largest of all configurations:
    that of one may be small by luck.

    Raises:
        ValueError: a loss is off by more than twice the error of eager torch in float32, and a few units.
    """
    found = stack.backward(real, noise).double()
    truth, eager = (_losses_alone(stack, real, noise, dtype) for dtype in (torch.float64, torch.float32))
    budget = allowance((eager - truth).abs().max(), truth)
    wrong = (~((found - truth).abs() <= budget)).nonzero().flatten().tolist()  # NaN too
    if wrong:
        number = wrong[0]
        raise ValueError(
            f"loss of configuration {number}: got {found[number]}, expected {truth[number]} of it alone, "
            f"within {budget[number]:.1e}"
        )


@torch.no_grad()
def _losses_alone(stack: Stack, real: Tensor, noise: Tensor, dtype: torch.dtype) -> Tensor:
    """The discriminator's loss of each configuration alone, computed at a dtype: [configurations], float64."""
    losses, real = [], real.to(dtype)
    for number, own_noise in enumerate(noise.to(dtype)):
        own_g, own_d = (
            {name: value[number].to(dtype) for name, value in weights.items()}
            for weights in (stack.weights_g, stack.weights_d)
        )
        fakes = functional_call(stack.generator, own_g, (own_noise,))
        (recon_fake, _), (recon_real, _) = (
            functional_call(stack.discriminator, own_d, (images,)) for images in (fakes, real)
        )
        energy_fake, energy_real = public_loop.energy(recon_fake, fakes), public_loop.energy(recon_real, real)
        losses.append(energy_real.mean() + (_MARGIN - energy_fake).relu().mean())
    return torch.stack(losses).double()


def _measured(
    count: int, n_layer_g: int, size_g: int, size_d: int, rounds: int, threads: int, advance: Callable[[], None]
) -> StackedRow:
    images = TensorImages(torch.randint(0, 256, (1024, 1, 32, 32), dtype=torch.uint8))
    stack = Stack(count, n_layer_g, size_g, size_d, images)
    check(stack, to_signed_unit(images.gather(torch.arange(_BATCH))), torch.randn(count, _BATCH, _Z))
    networks = Mlp(n_layer_g=n_layer_g, size_g=size_g, size_d=size_d)
    with contextlib.ExitStack() as stay:
        trainers = [
            stay.enter_context(contextlib.closing(Trainer(config, images)))
            for config in (
                TrainConfig(
                    out=Path(), networks=networks, seed=seed, margin=_MARGIN, pt_weight=0.0, ema=0.0, device="cpu"
                )
                for seed in range(count)
            )
        ]

        def apart() -> None:
            for trainer in trainers:
                trainer.step()

        seconds = interleaved({APART: apart, STACKED: stack.step}, rounds, advance)
    return StackedRow(
        configurations=count,
        n_layer_g=n_layer_g,
        size_g=size_g,
        size_d=size_d,
        threads=threads,
        seconds={name: min(values) for name, values in seconds.items()},
        ratio=statistics.median(one / other for one, other in zip(seconds[APART], seconds[STACKED], strict=True)),
        rounds=rounds,
        date=provenance.now(),
        **provenance.environment(torch.device("cpu"), "cpu", whole=True),
    )


def _energy(recon: Tensor, images: Tensor) -> Tensor:
    """l2, [configurations, N]."""
    return (recon - images).flatten(2).norm(dim=2)


def _without_statistics(net: nn.Module) -> nn.Module:
    """Running statistics can't be written to under vmap, and training doesn't read them."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return net
