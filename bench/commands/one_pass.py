"""The command `one-pass`: time a training step over one pass of the discriminator on the generated batch, beside the
usual loop's two passes.

Networks, losses, optimizers and batch are the same in both loops. Only the pass differs.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ebgan_fast import EBGAN
from ebgan_fast.data import TensorImages
from ebgan_fast.models import Mlp
from ebgan_fast.training import TrainConfig, preset
from ebgan_fast.training.step import Trainer

from ..results.rows import OnePassRow, Result
from ..subjects import public_loop
from ..subjects.training_step import allowance
from ..timing.rounds import interleaved, multiples
from .session import Advance, Describe, Session, check_least

USUAL, ONE_PASS = "usual loop", "one pass"

Step = Callable[["Loop"], None]


def _celeba64(width: float) -> TrainConfig:
    chosen = preset("celeba64", Path(), batch_size=16, flip=False, ema=0.0, device="cpu")
    networks: Any = chosen.networks  # convolutional networks, which have a width
    return dataclasses.replace(chosen, networks=dataclasses.replace(networks, width=width))


# None has dropout, which would draw other units in each loop. `make demo` trains the first.
NETWORKS = {
    "mnist (sizeG 400, sizeD 512)": TrainConfig(
        out=Path(),
        networks=Mlp(size_g=400, size_d=512),
        batch_size=64,
        image_size=28,
        lr_g=0.002,
        lr_d=0.002,
        pt_weight=0.5,
        ema=0.0,
        device="cpu",
    ),
    "celeba64 at width 0.5": _celeba64(0.5),
    "celeba64 at width 0.25": _celeba64(0.25),
}
"""The configs that are timed, by the names that the page has for them."""


def one_pass(rounds: int = 21, threads: int = 1, out: Path | None = None) -> int:
    """Time a whole training step of EBGAN: the usual loop, and a loop with `EBGAN.backward`.

    Args:
        rounds: Times each loop is timed.
        threads: CPU threads.
        out: File of JSON lines to add to. None: bench/results/one-pass-cpu.jsonl.
    """
    check_least(1, rounds=rounds, threads=threads)
    session = Session.begin("one-pass", "cpu", out, whole=True)
    torch.set_num_threads(threads)

    def measurements(describe: Describe, advance: Advance) -> Iterator[Result]:
        for name, config in NETWORKS.items():
            describe(name)
            yield _measured(session, name, config, rounds, threads, advance)

    return session.finish(rounds * len(NETWORKS), measurements)


class Loop:
    """The networks and optimizers of a config, as the training program has them, with one batch in memory.

    Two loops of one config begin with the same weights, and have the same batch.

    Args:
        config: The config.
    """

    def __init__(self, config: TrainConfig) -> None:
        rng = torch.Generator().manual_seed(config.seed)
        channels = 1 if isinstance(config.networks, Mlp) else 3
        shape = config.batch_size, channels, config.image_size, config.image_size
        images = TensorImages(torch.randint(256, shape, generator=rng, dtype=torch.uint8))
        with contextlib.closing(Trainer(config, images)) as trainer:
            self.real = trainer.batches.next()
        self.generator, self.discriminator = trainer.generator, trainer.discriminator
        self.optimizer_g, self.optimizer_d = trainer.optimizer_g, trainer.optimizer_d
        self.noise = torch.randn(config.batch_size, self.generator.noise_size, generator=rng)
        self.game = EBGAN(float(config.margin), config.norm, config.pt_weight)

    def usual(self) -> None:
        """Update both networks as loops usually do, over two passes of the discriminator on the generated batch."""
        generated = self.generator(self.noise)
        fakes = generated.detach()
        self.optimizer_d.zero_grad()
        recon_real, _ = self.discriminator(self.real)
        recon_fake, _ = self.discriminator(fakes)
        self.game.discriminator(recon_real, self.real, recon_fake, fakes).loss.backward()
        self.optimizer_d.step()
        self.optimizer_g.zero_grad()
        recon_fake, code = self.discriminator(generated)
        self.game.generator(recon_fake, generated, code).loss.backward()
        self.optimizer_g.step()

    def one_pass(self) -> None:
        """Update both networks over one pass of the discriminator on the generated batch, by `EBGAN.backward`."""
        self.optimizer_d.zero_grad()
        self.optimizer_g.zero_grad()
        self.game.backward(self.discriminator, self.generator(self.noise), self.real)
        self.optimizer_d.step()
        self.optimizer_g.step()


STEPS: dict[str, Step] = {USUAL: Loop.usual, ONE_PASS: Loop.one_pass}


def check(config: TrainConfig) -> None:
    """Raise ValueError if a loop's gradients are not those of the paper's losses at the same weights.

    The truth is eager torch in float64. The error of eager torch in float32 is taken in the memory layout of the loops.
    In another layout convolutions add in another order. A single rectifier may then open by rounding in one layout
    alone, and that puts the gradient of a weight tensor off by up to 0.3 %.

    Args:
        config: The config of the loops.

    Raises:
        ValueError: A network's gradient is off by more than twice the error of eager torch in float32, plus four units.
    """
    loop = _standing(config)
    with torch.no_grad():  # the mean energy as the margin, so that some hinges are on and some off
        fakes = loop.generator(loop.noise)
        loop.game.margin.fill_(public_loop.energy(loop.discriminator(fakes)[0], fakes).mean())
    truth, eager = (_eager(loop, config.pt_weight, dtype) for dtype in (torch.float64, torch.float32))
    for who, step in STEPS.items():
        found = _gradients(loop, step)
        for network, expected in truth.items():
            budget = allowance(_distance(eager[network], expected), float(expected.norm()))
            off = _distance(found[network], expected)
            if not off <= budget:  # NaN too
                raise ValueError(
                    f"gradient of the {network}, {who}: got one that is off by {off:.1e}, expected at most {budget:.1e}"
                )


def _standing(config: TrainConfig) -> Loop:
    """Return a loop whose steps leave the weights as they are."""
    return Loop(dataclasses.replace(config, lr_g=0.0, lr_d=0.0))


def _gradients(loop: Loop, step: Step) -> dict[str, Tensor]:
    """Return the gradients that a step gives to its optimizers, one vector for each network of a standing loop."""
    found: dict[str, Tensor] = {}
    pairs = {
        "generator": (loop.generator, loop.optimizer_g),
        "discriminator": (loop.discriminator, loop.optimizer_d),
    }
    with contextlib.ExitStack() as stay:
        for name, (network, optimizer) in pairs.items():

            def note(*_: object, name: str = name, network: nn.Module = network) -> None:
                found[name] = _vector([_given(parameter) for parameter in network.parameters()])

            stay.callback(optimizer.register_step_pre_hook(note).remove)
        for _ in range(2):  # the second step must set the gradients of the first to zero
            step(loop)
    return found


def _eager(loop: Loop, pt_weight: float, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return each network's gradient by the paper's losses in eager torch, at a dtype."""
    generator, discriminator = (copy.deepcopy(net).to(dtype) for net in (loop.generator, loop.discriminator))
    real, margin = loop.real.to(dtype), loop.game.margin.to(dtype)
    fakes = generator(loop.noise.to(dtype))
    (recon_fake, code), (recon_real, _) = discriminator(fakes), discriminator(real)
    energy_fake, energy_real = public_loop.energy(recon_fake, fakes), public_loop.energy(recon_real, real)
    loss_g = energy_fake.mean() + pt_weight * public_loop.pulling_away(code.flatten(1))
    loss_d = energy_real.mean() + (margin - energy_fake).relu().mean()
    of_g = torch.autograd.grad(loss_g, list(generator.parameters()), retain_graph=True)
    of_d = torch.autograd.grad(loss_d, list(discriminator.parameters()))
    return {"generator": _vector(of_g), "discriminator": _vector(of_d)}


def _given(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _vector(gradients: Sequence[Tensor]) -> Tensor:
    """Return all elements as one vector, in float64."""
    return torch.cat([gradient.detach().double().flatten() for gradient in gradients])


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm())


def bound(config: TrainConfig) -> float:
    """Return the floating-point operations of the usual loop's step over the other's, as torch counts them."""
    loop = _standing(config)
    counted: dict[str, int] = {}
    for name, step in STEPS.items():
        with FlopCounterMode(display=False) as counter:
            step(loop)
        counted[name] = counter.get_total_flops()
    return counted[USUAL] / counted[ONE_PASS]


def _measured(
    session: Session, name: str, config: TrainConfig, rounds: int, threads: int, advance: Callable[[], None]
) -> OnePassRow:
    check(config)
    usual, other = Loop(config), Loop(config)
    seconds = interleaved({USUAL: usual.usual, ONE_PASS: other.one_pass}, rounds, advance)
    return OnePassRow(
        networks=name,
        batch_size=config.batch_size,
        threads=threads,
        seconds={loop: min(values) for loop, values in seconds.items()},
        ratio=statistics.median(multiples(seconds[USUAL], seconds[ONE_PASS])),
        bound=bound(config),
        rounds=rounds,
        **session.conditions(),
    )
