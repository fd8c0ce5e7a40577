"""The command `stacked`: time several configurations of the paper's grid in one batched program, and one after another.

A search over networks of one shape could stack their weights, and train all of them by batched products (torch.func).
That pays if a step spends more time on calls than on arithmetic. This command shows up to which size it pays.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ebgan_fast.data import TensorImages
from ebgan_fast.data.pixels import to_signed_unit
from ebgan_fast.models import AutoEncoder, Generator, Mlp
from ebgan_fast.training import TrainConfig
from ebgan_fast.training.step import Trainer

from ..results.rows import Result, StackedRow
from ..subjects import public_loop
from ..subjects.training_step import allowance
from ..timing.rounds import interleaved, multiples
from .session import Advance, Describe, Session, check_least

APART, STACKED = "one after another", "stacked"

_BATCH, _Z, _MARGIN = 64, 100, 10.0

SHAPES = ((8, 3, 64, 64), (4, 2, 400, 128), (4, 5, 400, 128), (4, 5, 800, 1024))
"""Configurations, nLayerG, sizeG and sizeD, with nLayerD 2. The first networks are smaller than any of the grid."""


def stacked(rounds: int = 11, threads: int = 1, out: Path | None = None) -> int:
    """Time EBGAN's step on several small configurations: one after another, and with their weights stacked.

    Args:
        rounds: Times each is timed.
        threads: CPU threads.
        out: File of JSON lines to add to. None: bench/results/stacked-cpu.jsonl.
    """
    check_least(1, rounds=rounds, threads=threads)
    session = Session.begin("stacked", "cpu", out, whole=True)
    torch.set_num_threads(threads)

    def measurements(describe: Describe, advance: Advance) -> Iterator[Result]:
        for shape in SHAPES:
            describe(f"{shape[0]} configurations")
            yield _measured(session, *shape, rounds, threads, advance)

    return session.finish(rounds * len(SHAPES), measurements)


class Stack:
    """EBGANs of one shape with stacked weights, and a step of all of them.

    Args:
        count: The number of EBGANs.
        n_layer_g: Layers of each generator.
        size_g: Units of each of the generator's layers.
        size_d: Units of each of the discriminator's layers.
        images: The real images.
    """

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
        """Update all networks, each on its own noise and on the same real images."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        chosen = torch.randint(len(self._images), (_BATCH,))
        self.backward(to_signed_unit(self._images.gather(chosen)), torch.randn(self._count, _BATCH, _Z))
        for optimizer in self.optimizers:
            optimizer.step()

    def backward(self, real: Tensor, noise: Tensor) -> Tensor:
        """Compute all gradients as `Trainer` does, and return the discriminator's losses, [configurations].

        Args:
            real: The real images, [N, 1, 32, 32].
            noise: The noise of each configuration, [configurations, N, z].
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
    """Raise ValueError if a stack's losses are not those of its networks alone.

    The truth is each network alone in float64. The error of eager torch in float32 is the largest of all
    configurations, because one configuration's error may be small by luck.

    Args:
        stack: The stack.
        real: The real images, [N, 1, 32, 32].
        noise: The noise of each configuration, [configurations, N, z].

    Raises:
        ValueError: A loss is off by more than twice the error of eager torch in float32, plus four units.
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
    """Return the discriminator's loss of each configuration alone, computed at a dtype: [configurations], float64."""
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
    session: Session,
    count: int,
    n_layer_g: int,
    size_g: int,
    size_d: int,
    rounds: int,
    threads: int,
    advance: Callable[[], None],
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
        ratio=statistics.median(multiples(seconds[APART], seconds[STACKED])),
        rounds=rounds,
        **session.conditions(),
    )


def _energy(recon: Tensor, images: Tensor) -> Tensor:
    """Return the l2 energies, [configurations, N]."""
    return (recon - images).flatten(2).norm(dim=2)


def _without_statistics(net: nn.Module) -> nn.Module:
    """Return the network without running statistics, which vmap cannot write and training does not read."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return net
