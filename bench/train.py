"""The command `train`: images per second of the training step beside a plain loop's, and what reading images costs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ebgan_fast.data import ImageSet, PackedImages, TensorImages
from ebgan_fast.data.packed import INDEX, Shard, digest_of, index_text
from ebgan_fast.models import Conv
from ebgan_fast.training import TrainConfig, preset
from ebgan_fast.training.config import Precision
from ebgan_fast.training.memory import keep_freed_memory
from ebgan_fast.training.trainer import Trainer

from . import devices, files, provenance, public_loop
from .public_process import Begin, PublicProcess
from .rows import append
from .terminal import note, progress, short
from .timing import Step, interleaved

PUBLIC, CONSTANT = "public loop", "ebgan_fast float32, one batch again and again"
_IMAGES = 1024  # on disk: many batches, so that each is read anew
_TARGETS: dict[str, float] = {"float32": 1.5, "bfloat16": 2.5}
_MOST_OF_DATA = 1.03  # step with data over step without
_ULPS = 4  # of float32, beside twice the error of eager torch, which may be small by luck


@dataclass(frozen=True, kw_only=True)
class TrainRow(provenance.Conditions):
    """One measurement of all steps, as a line of JSON."""

    preset: str
    width: float
    batch_size: int
    threads: int
    seconds: dict[str, float]
    """A step's, by what was timed: the minimum over rounds."""
    median: dict[str, float]
    images_per_s: dict[str, float]
    """Real images, at the minimum."""
    speedup: dict[str, float]
    """Over the public loop, by precision."""
    targets: dict[str, float]
    data_cost: float | None
    """Seconds of a step that reads images over those of one that doesn't: the median over rounds of their ratio."""
    native_bfloat16: bool
    """Whether the processor multiplies bfloat16: torch emulates it otherwise."""
    rounds: int


def train(
    name: Literal["lsun64", "celeba64", "imagenet128", "imagenet256"] = "celeba64",
    width: float = 1.0,
    batch_size: int = 32,
    rounds: int = 11,
    threads: int = min(2, os.cpu_count() or 1),
    precision: tuple[Precision, ...] = ("float32", "bfloat16"),
    out: Path | None = None,
) -> int:
    """Time a training step against a plain loop of the same networks, interleaved, after a check that both agree.

    Args:
        name: The preset whose networks are trained.
        width: Factor on the networks' maps.
        batch_size: Real images in a step.
        rounds: Times each step is timed.
        threads: Processor threads.
        precision: Of ebgan_fast's steps; the plain loop is in float32.
        out: File of JSON lines to append to. None: bench/results/train-cpu.jsonl.
    """
    for what, value, least in (("rounds", rounds, 1), ("threads", threads, 1), ("batch_size", batch_size, 2)):
        if value < least:
            raise ValueError(f"{what}: got {value}, expected at least {least}")
    path = out or devices.RESULTS / "train-cpu.jsonl"
    if out is not None:
        files.check_appendable(out, "out")
    torch.set_num_threads(threads)
    keep_freed_memory()  # as the training program does for itself
    chosen = preset(name, Path(), batch_size=batch_size, flip=False, ema=0.0, device="cpu", log_every=10**6)
    assert isinstance(chosen.networks, Conv)
    chosen = dataclasses.replace(chosen, networks=dataclasses.replace(chosen.networks, width=width))
    with _packed_noise(chosen.image_size) as images, contextlib.ExitStack() as stack:
        steps = _steps(chosen, images, precision, threads, stack)
        with progress(rounds) as (describe, advance):
            describe(f"{name}, width {width:g}, batches of {batch_size}")
            seconds = interleaved(steps, rounds, advance)
    row = _row(chosen, seconds, precision, rounds, threads)
    show(row)
    append(row, path)
    print(f"appended to {short(path)}")
    return 0


@contextlib.contextmanager
def _packed_noise(side: int) -> Iterator[PackedImages]:
    """Random images as `prepare` packs them, for the time of the measurement."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard_00000.bin"
        rng = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (_IMAGES, side, side, 3), generator=rng, dtype=torch.uint8)
        path.write_bytes(pixels.numpy().tobytes())
        shard = Shard(path.name, _IMAGES, digest_of(path))
        (path.parent / INDEX).write_text(index_text((3, side, side), [shard], []))
        yield PackedImages(path.parent)


def _steps(
    chosen: TrainConfig,
    images: PackedImages,
    precision: tuple[Precision, ...],
    threads: int,
    stack: contextlib.ExitStack,
) -> dict[str, Step]:
    steps: dict[str, Step] = {PUBLIC: _public_step(chosen, images, threads, stack)}
    for kind in precision:
        steps[f"ebgan_fast {kind}"] = _own_step(dataclasses.replace(chosen, precision=kind), images, stack)
    once = TensorImages(images.gather(torch.arange(chosen.batch_size)))
    steps[CONSTANT] = _own_step(chosen, once, stack)
    return steps


def _own_step(chosen: TrainConfig, images: ImageSet, stack: contextlib.ExitStack) -> Step:
    return stack.enter_context(contextlib.closing(Trainer(chosen, images))).step


def _public_step(chosen: TrainConfig, images: PackedImages, threads: int, stack: contextlib.ExitStack) -> Step:
    """The plain loop on one batch, which costs it nothing to read, in a process of its own.

    Raises:
        ValueError: its first losses aren't those of the trainer from the same weights.
    """
    with contextlib.closing(Trainer(chosen, images)) as trainer:
        begin = Begin(
            chosen,
            trainer.generator.state_dict(),
            trainer.discriminator.state_dict(),
            trainer.batches.next().contiguous(),
            torch.randn(
                chosen.batch_size, trainer.generator.noise_size, generator=torch.Generator().manual_seed(chosen.seed)
            ),
            threads,
        )
    apart = stack.enter_context(contextlib.closing(PublicProcess(begin)))
    with contextlib.closing(Trainer(chosen, images)) as trainer:
        trainer.step()
        found = trainer.statistics()
    check_agreement(begin, {PUBLIC: apart.step(), "ebgan_fast": (found["loss_d"], found["loss_g"])})
    return apart.step


def check_agreement(begin: Begin, found: dict[str, tuple[float, float]]) -> None:
    """Refuse to time steps whose first losses (D, G) are further from float64's than float32 rounds.

    Eager torch is asked in both layouts, in which convolutions add in different orders: at half width loss_g was off by
    1 unit in the last place in one of them, where the program's was off by 6.

    Raises:
        ValueError: a loss is off by more than twice the error of eager torch in float32, and a few units.
    """
    truth = _first_losses(begin, torch.float64, torch.contiguous_format)
    layouts = (torch.contiguous_format, torch.channels_last)
    eager = [_first_losses(begin, torch.float32, layout) for layout in layouts]
    for who, losses in found.items():
        for index, name in enumerate(("loss_d", "loss_g")):
            one, exact = losses[index], truth[index]
            error = max(abs(near[index] - exact) for near in eager)
            budget = 2 * error + _ULPS * torch.finfo(torch.float32).eps * abs(exact)
            if not abs(one - exact) <= budget:  # NaN too
                raise ValueError(f"{name} of the first step, {who}: got {one}, expected {exact} within {budget:.1e}")


@torch.no_grad()
def _first_losses(begin: Begin, dtype: torch.dtype, layout: torch.memory_format) -> tuple[float, float]:
    """The first step's losses (D, G) at a dtype, in eager torch, with networks and images in a layout."""
    config, real = begin.config, begin.real.to(dtype).contiguous(memory_format=layout)
    generator, discriminator = begin.networks()
    for network in (generator, discriminator):
        network.to(dtype)
        network.to(memory_format=layout)  # type: ignore[call-overload]
    fakes = generator(begin.noise.to(dtype))
    recon_fake, code = discriminator(fakes)
    energy_fake = public_loop.energy(recon_fake, fakes)
    energy_real = public_loop.energy(discriminator(real)[0], real)
    loss_d = energy_real.mean() + (float(config.margin) - energy_fake).relu().mean()
    loss_g = energy_fake.mean() + config.pt_weight * public_loop.pulling_away(code.flatten(1))
    return loss_d.item(), loss_g.item()


def _row(
    chosen: TrainConfig, seconds: dict[str, list[float]], precision: tuple[Precision, ...], rounds: int, threads: int
) -> TrainRow:
    best = {name: min(values) for name, values in seconds.items()}
    median = {name: statistics.median(values) for name, values in seconds.items()}
    assert isinstance(chosen.networks, Conv)
    environment: dict[str, Any] = provenance.environment(torch.device("cpu"), "cpu", whole=True)
    return TrainRow(
        preset=chosen.preset,
        width=chosen.networks.width,
        batch_size=chosen.batch_size,
        threads=threads,
        seconds=best,
        median=median,
        images_per_s={name: chosen.batch_size / value for name, value in best.items()},
        speedup={kind: best[PUBLIC] / best[f"ebgan_fast {kind}"] for kind in precision},
        targets={kind: _TARGETS[kind] for kind in precision if kind in _TARGETS},
        data_cost=_data_cost(seconds),
        native_bfloat16=bool(torch.backends.mkldnn.is_available() and _multiplies_bfloat16()),
        rounds=rounds,
        date=provenance.now(),
        **environment,
    )


def _data_cost(seconds: dict[str, list[float]]) -> float | None:
    """None where the float32 step wasn't timed."""
    reading = seconds.get("ebgan_fast float32")
    if reading is None:
        return None
    return statistics.median(one / other for one, other in zip(reading, seconds[CONSTANT], strict=True))


def _multiplies_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def show(row: TrainRow) -> None:
    """Print a row for people."""
    print(f"{row.preset}, width {row.width:g}, batches of {row.batch_size}, {row.threads} threads: {row.processor}")
    for name, value in row.seconds.items():
        print(f"  {1e3 * value:8.0f} ms a step  {row.images_per_s[name]:7.1f} images/s  {name}")
    for kind, ratio in row.speedup.items():
        target = row.targets.get(kind)
        verdict = "" if target is None else f" {'>=' if ratio >= target else '< '} {target:g}"
        print(f"  {kind}: {ratio:.2f} times the public loop{verdict}")
    if "bfloat16" in row.speedup and not row.native_bfloat16:
        note("this processor doesn't multiply bfloat16 (no AVX512_BF16 or AMX): torch emulates it")
    if row.data_cost is not None:
        print(f"  reading images: {row.data_cost:.3f} times a step without, at most {_MOST_OF_DATA:g} wanted")
