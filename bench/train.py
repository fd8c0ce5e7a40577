"""The command `train`: images per second of the training step beside a plain loop's, or another commit's step."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from ebgan_fast.data import ImageSet, TensorImages
from ebgan_fast.data.packed import INDEX, Shard, digest_of, index_text
from ebgan_fast.memory import keep_freed_memory
from ebgan_fast.training.optim import Precision

from . import devices, files, first_step, other_commit, provenance
from .contestants import Field
from .devices import Device
from .first_step import Begin
from .other_training import TrainingProcess
from .provenance import ROOT
from .public_process import PublicProcess
from .rows import Spread, append, spread
from .session import DeviceName
from .steps import first_line
from .terminal import note, progress, short
from .timing import each_round
from .training_step import OWN, PUBLIC, Timed, Wanted, contestant, timed, warm

CONSTANT = f"{OWN} float32, one batch again and again"
BENCHMARK = ", cudnn.benchmark"
"""Behind the name of a contestant whose convolutions cuDNN chose by trial."""
GRAPH = ", cuda_graph"
"""Behind the name of a contestant that replays a recording of its step."""
IMAGES = 1024  # on disk: many batches, so that each is read anew
_TARGETS: dict[str, float] = {"float32": 1.5, "bfloat16": 2.5}
_MOST_OF_DATA = 1.03  # step with data over step without
_STEPS_ON_A_GPU = 20  # a step of 2 ms alone is as long as the wait around it is uncertain


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
        """By precision, and how they run: 'bfloat16, cuda_graph'."""
        kinds = {kind: dataclasses.replace(wanted, precision=kind) for kind in self.precision}
        return kinds | {
            f"{kind}{GRAPH}": dataclasses.replace(wanted, precision=kind, cuda_graph=True) for kind in self.cuda_graph
        }


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
    """Over the public loop under the same choice of cuDNN's, by precision."""
    targets: dict[str, float]
    data_cost: float | None
    """Seconds of a step that reads images over those of one that doesn't: the median over rounds of their ratio."""
    native_bfloat16: bool
    """True if the processor multiplies bfloat16: torch emulates it otherwise."""
    rounds: int
    device: str = "cpu"
    """The type of torch's device."""
    backend: str | None = None
    """The backend that ebgan_fast's losses ran on. None: not told (older rows)."""
    steps: int = 1
    """In a reading of the clock."""
    first_call: dict[str, float] | None = None
    """Seconds of each contestant's first step: it compiles, and cuDNN chooses. Of one that is recorded, its steps
    before that. None: not told (older rows)."""
    peak: dict[str, int] | None = None
    """Bytes of the GPU's memory during a later step, weights and optimizers included. None: not told (older rows), or
    on the CPU, where the processes hold more than one contestant."""
    cudnn_benchmark: dict[str, bool] | None = None
    """By contestant, whether cuDNN tried its algorithms. None: not told (older rows)."""
    ratio: dict[str, Spread] | None = None
    """Another commit's seconds in multiples of this one's, by precision, round by round. None: not compared."""
    compared: str | None = None
    """The other commit."""
    wrong: str | None = None
    """The fault of the first losses: figures of such steps prove nothing."""
    failed: dict[str, str] | None = None
    """By contestant, why it has no figures: it could not be built, or not run. None: all have theirs."""


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

    An interrupted run writes down the rounds that it has finished. On a GPU a step that can't run, as memory is short,
    is noted in the row, and the others are timed.

    Args:
        name: The preset whose networks are trained.
        device: Where the networks are. On "cpu" the plain loop has a process of its own.
        width: Factor on the networks' maps.
        batch_size: Real images in a step.
        rounds: Times each step is timed.
        steps: Steps each time. None: 1, and 20 on "cuda".
        threads: Processor threads. None: 2 (1 with --compare).
        precision: Of ebgan_fast's steps; the plain loop is in float32.
        cudnn_benchmark: Time each step once more, in another process, where cuDNN tries its algorithms.
        cuda_graph: Precisions of ebgan_fast's steps that are timed as recordings too, which a CUDA graph replays.
        compare: A commit of this repository, whose package is built. Its steps and this one's are timed by turns, each
            in a process of its own, in the place of the plain loop.
        out: File of JSON lines to append to. None: bench/results/train-cpu.jsonl, or train-NAME.jsonl of the GPU's
            name, for a run without --compare alone.
    """
    steps = steps if steps is not None else 1 if device == "cpu" else _STEPS_ON_A_GPU
    threads = threads if threads is not None else 1 if compare else min(2, os.cpu_count() or 1)
    numbers = (("rounds", rounds, 1), ("steps", steps, 1), ("threads", threads, 1), ("batch_size", batch_size, 2))
    for what, value, least in numbers:
        if value < least:
            raise ValueError(f"{what}: got {value}, expected at least {least}")
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
    if out is not None:
        files.check_appendable(out, "out")
    place = devices.named(device)
    torch.set_num_threads(threads)
    keep_freed_memory()  # as the training program does for itself
    wanted = Wanted(preset=name, width=width, batch_size=batch_size, device=str(place.torch))
    asked = _Asked(wanted, place, precision, steps, threads, cudnn_benchmark, cuda_graph)
    with contextlib.ExitStack() as stack, progress(rounds) as (describe, advance):
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
        # Before the processes are closed, which may wait for a step: an interrupted run has little time.
        row = _row(asked, field, seconds)
        show(row)
        _keep(row, out, place, whole=interrupt is None)
        if interrupt is not None:
            raise interrupt
    return 1 if field.wrong or field.failed else 0


def _keep(row: TrainRow, out: Path | None, place: Device, whole: bool) -> None:
    path = out or place.results("train")
    if out is None and (row.compared or not whole):
        kind = "a comparison" if row.compared else f"{row.rounds} rounds of a run that was interrupted"
        note(f"{kind}: {short(path)} is left as it is; --out FILE writes this row")
        return
    append(row, path)
    print(f"appended to {short(path)}")


def _beside_the_plain_loop(asked: _Asked, stack: contextlib.ExitStack) -> Field:
    """The plain loop's step and ebgan_fast's.

    On the CPU, wrong losses raise ValueError at once. On a GPU the first calls come first, as the check would compile
    what they compile, and the steps are timed all the same: the machine may not be there a second time.
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
    """The plain loop, whose first call gives the losses to check."""
    process = stack.enter_context(contextlib.closing(PublicProcess(begin, threads)))
    first: list[first_step.Losses] = []

    def step() -> None:
        losses = process.step()
        first.append(losses)

    one = timed(lambda: step, where)
    first_step.check(begin, images, lambda: first[0])
    return one


def _wrong(begin: Begin, images: ImageSet) -> str | None:
    try:
        first_step.check(begin, images, begin.public_steps())
    except Exception as error:  # in float64, on a GPU that may have no room for it
        why = str(error) if isinstance(error, ValueError) else f"first losses can't be checked: {first_line(error)}"
        note(why)
        return why
    return None


@contextlib.contextmanager
def _packed_noise(side: int) -> Iterator[Path]:
    """A folder of random images as `prepare` packs them, for the time of the measurement."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard_00000.bin"
        rng = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (IMAGES, side, side, 3), generator=rng, dtype=torch.uint8)
        path.write_bytes(pixels.numpy().tobytes())
        shard = Shard(path.name, IMAGES, digest_of(path))
        (path.parent / INDEX).write_text(index_text((3, side, side), [shard], []))
        yield path.parent


def _of_two_commits(ref: str, asked: _Asked, stack: contextlib.ExitStack) -> Field:
    """This commit's steps and the other's, on images in memory.

    Raises ValueError for first losses that are not right, and for a package that cannot run the step.
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


def _row(asked: _Asked, field: Field, seconds: Mapping[str, list[float]]) -> TrainRow:
    wanted, place, precision = asked.wanted, asked.place, asked.precision
    contestants, compared = {name: field.contestants[name] for name in seconds}, field.compared
    best = {name: min(values) for name, values in seconds.items()}
    environment: dict[str, Any] = provenance.environment(place.torch, place.backend, whole=True)
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
        device=place.torch.type,
        backend=place.backend,
        first_call={name: one.first_call for name, one in contestants.items()},
        peak={name: one.peak for name, one in contestants.items() if one.peak is not None} or None,
        cudnn_benchmark={name: one.cudnn_benchmark for name, one in contestants.items()},
        ratio=_ratios(seconds, asked.steps_of_the_package(wanted), compared) if compared else None,
        compared=compared,
        date=provenance.now(),
        wrong=field.wrong,
        failed=field.failed or None,
        rounds=min(map(len, seconds.values())),
        steps=asked.steps,
        threads=asked.threads,
        **environment,
    )


def _speedup(best: Mapping[str, float], kinds: Iterable[str]) -> dict[str, float]:
    """'float32', or 'float32, cudnn.benchmark' over a plain loop that has it too."""
    return {
        f"{kind}{how}": best[f"{PUBLIC}{how}"] / best[f"{OWN} {kind}{how}"]
        for how in ("", BENCHMARK)
        for kind in kinds
        if {f"{PUBLIC}{how}", f"{OWN} {kind}{how}"} <= best.keys()
    }


def _ratios(seconds: Mapping[str, list[float]], kinds: Iterable[str], compared: str) -> dict[str, Spread]:
    pairs = {kind: zip(seconds[f"{compared} {kind}"], seconds[f"{OWN} {kind}"], strict=True) for kind in kinds}
    return {kind: spread([theirs / mine for theirs, mine in both]) for kind, both in pairs.items()}


def data_cost_of(seconds: Mapping[str, list[float]]) -> float | None:
    """None where the float32 step, or the one on a single batch, wasn't timed."""
    reading, constant = seconds.get(f"{OWN} float32"), seconds.get(CONSTANT)
    if reading is None or constant is None:
        return None
    return statistics.median(one / other for one, other in zip(reading, constant, strict=True))


def _multiplies_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def show(row: TrainRow) -> None:
    """Print a row for people."""
    print(f"{row.preset}, width {row.width:g}, batches of {row.batch_size}, {row.threads} threads: {row.processor}")
    if row.device != "cpu" and row.tf32 is not None:
        words = ", ".join(f"{what} {'on' if on else 'off'}" for what, on in row.tf32.items())
        print(f"  tf32: {words}; {row.steps} steps a reading")
    for name, value in row.seconds.items():
        more = f"  first {row.first_call[name]:.1f} s" if row.first_call else ""
        more += f"  {row.peak[name] / 2**30:.2f} GiB" if row.peak else ""
        time = f"{1e3 * value:8.{0 if value > 0.1 else 2}f} ms a step"
        print(f"  {time}  {row.images_per_s[name]:7.1f} images/s{more}  {name}")
    for name, why in (row.failed or {}).items():
        print(f"  no time of {name}: {why}")
    for kind, ratio in row.speedup.items():
        target = row.targets.get(kind)
        verdict = "" if target is None else f" {'>=' if ratio >= target else '< '} {target:g}"
        print(f"  {kind}: {ratio:.2f} times the public loop{verdict}")
    for kind, (low, median, high) in (row.ratio or {}).items():
        print(f"  {kind}: {row.compared} takes {median:.3f} times as long ({low:.3f} to {high:.3f})")
    if any("bfloat16" in name for name in row.seconds) and not row.native_bfloat16:
        note("this processor doesn't multiply bfloat16 (no AVX512_BF16 or AMX): torch emulates it")
    if row.data_cost is not None:
        print(f"  reading images: {row.data_cost:.3f} times a step without, at most {_MOST_OF_DATA:g} wanted")
