"""The command `train`: time the training step beside a plain loop's, or beside another commit's step."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from ebgan_fast.data import ImageSet, TensorImages
from ebgan_fast.data.packed import INDEX, Shard, digest_of, index_text
from ebgan_fast.training.optim import Precision

from ..processes import other_commit
from ..processes.other_commit import TrainingProcess
from ..results.provenance import ROOT
from ..results.rows import Result, Spread, TrainRow, spread
from ..subjects import training_step
from ..subjects.training_step import OWN, PUBLIC, Begin, PublicProcess, Wanted
from ..terminal import first_line
from ..timing.contestants import Field, Timed, contestant, timed, warm
from ..timing.devices import Device
from ..timing.rounds import each_round, multiples
from .session import Advance, Describe, DeviceName, Session, check_least

CONSTANT = f"{OWN} float32, one batch again and again"
BENCHMARK = ", cudnn.benchmark"
"""The end of the name of a contestant whose convolutions cuDNN chose by trial."""
GRAPH = ", cuda_graph"
"""The end of the name of a contestant that replays a recording of its step."""
IMAGES = 1024
"""Images on disk: many batches, so that each is read anew."""
_TARGETS: dict[str, float] = {"float32": 1.5, "bfloat16": 2.5}
_STEPS_ON_A_GPU = 20  # the time of the wait around a reading varies by about one step of 2 ms


class _Asked(NamedTuple):
    """The arguments of the command that its contestants and its row need."""

    wanted: Wanted
    place: Device
    precision: tuple[Precision, ...]
    steps: int
    threads: int
    cudnn_benchmark: bool
    cuda_graph: tuple[Precision, ...]

    def steps_of_the_package(self, wanted: Wanted) -> dict[str, Wanted]:
        """Return ebgan_fast's steps, by precision, such as "bfloat16", or "bfloat16, cuda_graph" if recorded."""
        kinds = {kind: dataclasses.replace(wanted, precision=kind) for kind in self.precision}
        return kinds | {
            f"{kind}{GRAPH}": dataclasses.replace(wanted, precision=kind, cuda_graph=True) for kind in self.cuda_graph
        }


def train(
    name: Literal["lsun64", "celeba64", "imagenet128", "imagenet256"] = "celeba64",
    device: DeviceName = "cpu",
    width: float = 1.0,
    batch_size: int = 32,
    rounds: int = 11,
    steps: int | None = None,
    threads: int | None = None,
    precision: tuple[Precision, ...] = ("float32", "bfloat16"),
    cudnn_benchmark: bool = False,
    cuda_graph: tuple[Precision, ...] = (),
    compare: str | None = None,
    out: Path | None = None,
) -> int:
    """Time a training step against a plain loop of the same networks, interleaved, after a check that both agree.

    An interrupted run writes down the rounds that it has finished. On a GPU a step that can't run, for want of memory,
    is noted in the row, and the others are timed.

    Args:
        name: The preset whose networks are trained.
        device: Where the networks are. On "cpu" the plain loop has a process of its own.
        width: Factor on the networks' maps.
        batch_size: Real images in a step.
        rounds: Times each step is timed.
        steps: Steps each time. None: 1, and 20 on "cuda".
        threads: CPU threads. None: 2 (1 with --compare).
        precision: Precisions of ebgan_fast's steps. The plain loop is in float32.
        cudnn_benchmark: Time each step once more, in another process, where cuDNN tries its algorithms.
        cuda_graph: Precisions of ebgan_fast's steps that are timed as recordings too, which a CUDA graph replays.
        compare: A commit of this repository, whose package is built. Its steps and this one's are timed by turns, each
            in a process of its own, in the place of the plain loop.
        out: File of JSON lines to add to. None: bench/results/train-cpu.jsonl, or train-NAME.jsonl with the GPU's
            name, which takes no comparison and no interrupted run.
    """
    steps = steps if steps is not None else 1 if device == "cpu" else _STEPS_ON_A_GPU
    threads = threads if threads is not None else 1 if compare else min(2, os.cpu_count() or 1)
    check_least(1, rounds=rounds, steps=steps, threads=threads)
    check_least(2, batch_size=batch_size)
    if not precision:
        raise ValueError("precision: got none, expected at least one")
    if cudnn_benchmark and device == "cpu":
        raise ValueError("cudnn_benchmark: got a run on the CPU, which has no cuDNN; expected --device cuda")
    if cuda_graph and device == "cpu":
        raise ValueError("cuda_graph: got a run on the CPU, expected --device cuda")
    if "float16" in cuda_graph:
        raise ValueError("cuda_graph: got float16, whose steps can't be recorded, expected float32 or bfloat16")
    if compare and device == "cpu":
        other_commit.check_threads([threads])
    partial = ["--compare"] if compare else []
    session = Session.begin("train", device, out, memory="kept", whole=True)  # as the training program keeps it
    torch.set_num_threads(threads)
    wanted = Wanted(preset=name, width=width, batch_size=batch_size, device=str(session.device.torch))
    asked = _Asked(wanted, session.device, precision, steps, threads, cudnn_benchmark, cuda_graph)
    with contextlib.ExitStack() as stack:

        def measurements(describe: Describe, advance: Advance) -> Iterator[Result]:
            describe(f"{name}, width {width:g}, batches of {batch_size}")
            field = _of_two_commits(compare, asked, stack) if compare else _beside_the_plain_loop(asked, stack)
            seconds: dict[str, list[float]] = {}
            interrupt: KeyboardInterrupt | None = None
            try:
                clocks = {who: one.clock for who, one in field.contestants.items()}
                for readings in each_round(clocks, rounds, turn=steps, failed=field.drop if field.spares else None):
                    seconds = {who: [*seconds.get(who, []), readings[who]] for who in clocks if who in readings}
                    advance()
            except KeyboardInterrupt as error:
                interrupt = error
            if not seconds:
                raise interrupt or ValueError(f"no step could run: {field.complaint()}")
            yield _row(session, asked, field, seconds)
            if interrupt is not None:
                raise interrupt

        # The stack closes the processes after the row is written. A process may wait for its step to end, and an
        # interrupted run has little time.
        return session.finish(rounds, measurements, partial)


def _beside_the_plain_loop(asked: _Asked, stack: contextlib.ExitStack) -> Field:
    """Return the plain loop's step and ebgan_fast's.

    On the CPU, wrong losses raise ValueError at once. On a GPU the check comes after the first calls, because it would
    compile what they compile. The steps are timed even if they are wrong there: the machine may not be there again.
    """
    side = asked.wanted.config().image_size
    wanted = dataclasses.replace(asked.wanted, folder=str(stack.enter_context(_packed_noise(side))))
    images, where, on_the_cpu = wanted.images(), asked.place.torch, asked.place.name == "cpu"
    kinds = {PUBLIC: dataclasses.replace(wanted, loop=PUBLIC)}
    kinds |= {f"{OWN} {name}": kind for name, kind in asked.steps_of_the_package(wanted).items()}
    field = Field(spares=not on_the_cpu)
    tried = {f"{who}{BENCHMARK}": kind for who, kind in kinds.items()} if asked.cudnn_benchmark else {}
    if tried:
        apart = TrainingProcess("the process with cudnn.benchmark", where, asked.threads, cudnn_benchmark=True)
        stack.enter_context(contextlib.closing(apart))
        for who, kind in tried.items():
            field.add(who, functools.partial(apart.contestant, who, kind))
    warm(where)
    begin = Begin.of(wanted.config(), images)
    if on_the_cpu:
        del kinds[PUBLIC]
        field.add(PUBLIC, lambda: _checked_in_a_process(begin, images, asked.threads, where, stack))
    for who, kind in kinds.items():
        field.add(who, functools.partial(contestant, kind, stack, images))
    once = TensorImages(images.gather(torch.arange(wanted.batch_size)))
    field.add(CONSTANT, functools.partial(contestant, wanted, stack, once))
    field.contestants = {  # in the order of rows
        who: one for last in (False, True) for who, one in field.contestants.items() if (who in tried) is last
    }
    field.wrong = None if on_the_cpu else _wrong(begin, images)
    return field


def _checked_in_a_process(
    begin: Begin, images: ImageSet, threads: int, where: torch.device, stack: contextlib.ExitStack
) -> Timed:
    """Return the plain loop in a process of its own. The losses of its first call are checked."""
    process = stack.enter_context(contextlib.closing(PublicProcess(begin, threads)))
    first: list[training_step.Losses] = []

    def step() -> None:
        losses = process.step()
        first.append(losses)

    one = timed(lambda: step, where)
    training_step.check(begin, images, lambda: first[0])
    return one


def _wrong(begin: Begin, images: ImageSet) -> str | None:
    """Return the fault of the first losses, or None."""
    try:
        training_step.check(begin, images, begin.public_steps())
    except Exception as error:  # the check in float64 may exceed the GPU's memory
        return str(error) if isinstance(error, ValueError) else f"first losses can't be checked: {first_line(error)}"
    return None


@contextlib.contextmanager
def _packed_noise(side: int) -> Iterator[Path]:
    """Make a folder of random images as `prepare` packs them, which exists inside the block."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard_00000.bin"
        rng = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (IMAGES, side, side, 3), generator=rng, dtype=torch.uint8)
        path.write_bytes(pixels.numpy().tobytes())
        shard = Shard(path.name, IMAGES, digest_of(path))
        (path.parent / INDEX).write_text(index_text((3, side, side), [shard], []))
        yield path.parent


def _of_two_commits(ref: str, asked: _Asked, stack: contextlib.ExitStack) -> Field:
    """Return this commit's steps and the other's, on images in memory.

    Raises:
        ValueError: First losses are not right, or a package cannot run the step.
    """
    commit, site = other_commit.install(ref)
    other = other_commit.named(ref, commit)
    field = Field(compared=other)
    for name, paths in ((OWN, [ROOT]), (other, [site, ROOT])):
        process = TrainingProcess(name, asked.place.torch, asked.threads, asked.cudnn_benchmark, paths)
        stack.enter_context(contextlib.closing(process))
        process.check(asked.wanted)
        for kind, wanted in asked.steps_of_the_package(asked.wanted).items():
            field.add(f"{name} {kind}", functools.partial(process.contestant, kind, wanted))
    return field


def _row(session: Session, asked: _Asked, field: Field, seconds: Mapping[str, list[float]]) -> TrainRow:
    wanted, place, precision = asked.wanted, asked.place, asked.precision
    contestants, compared = {name: field.contestants[name] for name in seconds}, field.compared
    best = {name: min(values) for name, values in seconds.items()}
    on_the_cpu = place.torch.type == "cpu"
    return TrainRow(
        preset=wanted.preset,
        width=wanted.width,
        batch_size=wanted.batch_size,
        seconds=best,
        median={name: statistics.median(values) for name, values in seconds.items()},
        images_per_s={name: wanted.batch_size / value for name, value in best.items()},
        speedup=_speedup(best, asked.steps_of_the_package(wanted)),
        targets={kind: _TARGETS[kind] for kind in precision if kind in _TARGETS} if not compared else {},
        data_cost=data_cost_of(seconds),
        native_bfloat16=bool(torch.backends.mkldnn.is_available() and _multiplies_bfloat16()) or not on_the_cpu,
        backend=place.backend,
        first_call={name: one.first_call for name, one in contestants.items()},
        peak={name: one.peak for name, one in contestants.items() if one.peak is not None} or None,
        cudnn_benchmark={name: one.cudnn_benchmark for name, one in contestants.items()},
        ratio=_ratios(seconds, asked.steps_of_the_package(wanted), compared) if compared else None,
        compared=compared,
        wrong=field.wrong,
        failed=field.failed or None,
        rounds=min(map(len, seconds.values())),
        steps=asked.steps,
        threads=asked.threads,
        **session.conditions(),
    )


def _speedup(best: Mapping[str, float], kinds: Iterable[str]) -> dict[str, float]:
    """Return the speedup over the plain loop: "float32", and "float32, cudnn.benchmark" over a plain loop with it."""
    return {
        f"{kind}{how}": best[f"{PUBLIC}{how}"] / best[f"{OWN} {kind}{how}"]
        for how in ("", BENCHMARK)
        for kind in kinds
        if {f"{PUBLIC}{how}", f"{OWN} {kind}{how}"} <= best.keys()
    }


def _ratios(seconds: Mapping[str, list[float]], kinds: Iterable[str], compared: str) -> dict[str, Spread]:
    """Return the other commit's times in multiples of this one's, round by round."""
    return {kind: spread(multiples(seconds[f"{compared} {kind}"], seconds[f"{OWN} {kind}"])) for kind in kinds}


def data_cost_of(seconds: Mapping[str, list[float]]) -> float | None:
    """Return the time of a step that reads images over that of a step on a single batch.

    None if the float32 step, or the step on a single batch, was not timed.
    """
    reading, constant = seconds.get(f"{OWN} float32"), seconds.get(CONSTANT)
    if reading is None or constant is None:
        return None
    return statistics.median(multiples(reading, constant))


def _multiplies_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
