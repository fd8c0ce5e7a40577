from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import ebgan_fast
from bench.__main__ import main
from bench.commands import session, train
from bench.processes import other_commit
from bench.processes.other_commit import TrainingProcess
from bench.results import tf32
from bench.results.provenance import ROOT
from bench.subjects import public_loop, training_step
from bench.subjects.training_step import Begin
from bench.timing import contestants, devices
from bench.timing.rounds import Clock
from ebgan_fast.ops import reference
from ebgan_fast.training import graph
from ebgan_fast.training.step import Trainer
from tests.rounding import distance, relative_bound_nearby, size
from tests.training.tape import TapeRecorder

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads")

TINY = ("train", "--width", "0.05", "--batch-size", "4", "--rounds", "2", "--threads", "1", "--precision", "float32")


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "IMAGES", 16)
    monkeypatch.setattr(session, "keep_freed_memory", lambda: True)  # the tests share this process


class _PlainLoop:
    """The plain loop in this process, because a process of its own takes 6 s of a core to start."""

    def __init__(self, begin: Begin, threads: int) -> None:
        self.step = begin.public_steps()

    def close(self) -> None:
        pass


@pytest.fixture
def plain_loop_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "PublicProcess", _PlainLoop)


@pytest.mark.slow
def test_a_tiny_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "train.jsonl"
    out.write_text('{"earlier": 1}\n')
    assert main([*TINY, "--out", str(out)]) == 0
    earlier, line = out.read_text().splitlines()
    assert earlier == '{"earlier": 1}'
    row = json.loads(line)
    names = {train.PUBLIC, "ebgan_fast float32", train.CONSTANT}
    assert row["seconds"].keys() == row["median"].keys() == row["images_per_s"].keys() == names
    assert row["speedup"] == {"float32": row["seconds"][train.PUBLIC] / row["seconds"]["ebgan_fast float32"]}
    assert row["images_per_s"][train.PUBLIC] == pytest.approx(4 / row["seconds"][train.PUBLIC])
    assert (row["preset"], row["width"], row["batch_size"], row["rounds"]) == ("celeba64", 0.05, 4, 2)
    assert 0.2 < row["data_cost"] < 5
    assert row["first_call"].keys() == names
    assert min(row["first_call"].values()) > 0
    assert row["cudnn_benchmark"] == dict.fromkeys(names, False)
    assert (row["device"], row["steps"], row["peak"], row["ratio"], row["wrong"]) == ("cpu", 1, None, None, None)
    assert row["tf32"] == {"matmul": False, "cudnn": False}
    shown = capsys.readouterr().out
    assert f"float32: {row['speedup']['float32']:.2f} times the public loop" in shown


@pytest.mark.usefixtures("plain_loop_here")
@pytest.mark.parametrize("wrong", [train.PUBLIC, "ebgan_fast"])
def test_losses_that_differ_are_not_timed(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losses that are off by 1 in 100,000, a hundred roundings of float32, are refused."""
    check = training_step.check_agreement

    def check_wrong(begin: Begin, found: dict[str, tuple[float, float]]) -> None:
        loss_d, loss_g = found[wrong]
        check(begin, {**found, wrong: (loss_d, 1.00001 * loss_g)})

    monkeypatch.setattr(training_step, "check_agreement", check_wrong)
    assert main([*TINY, "--out", str(tmp_path / "train.jsonl")]) == 1
    assert f"loss_g of the first step, {wrong}: got" in capsys.readouterr().err
    assert not (tmp_path / "train.jsonl").exists()


def test_the_cost_of_data_is_the_median_of_the_rounds_ratios() -> None:
    seconds = {"ebgan_fast float32": [1.0, 2.2, 3.0], train.CONSTANT: [1.0, 2.0, 1.0]}
    assert train.data_cost_of(seconds) == 1.1
    assert train.data_cost_of({train.CONSTANT: [1.0]}) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rounds", "0"), "rounds: got 0, expected at least 1"),
        (("--threads", "0"), "threads: got 0, expected at least 1"),
        (("--batch-size", "1"), "batch_size: got 1, expected at least 2"),
        (("--steps", "0"), "steps: got 0, expected at least 1"),
        (("--precision",), "precision: got none"),
        (("--cudnn-benchmark",), "cudnn_benchmark: got a run on the CPU"),
        (("--cuda-graph", "bfloat16"), "cuda_graph: got a run on the CPU"),
        (("--device", "cuda", "--cuda-graph", "float16"), "cuda_graph: got float16"),
        (("--compare", "no-such-commit"), "compare: got 'no-such-commit', expected a commit"),
        (("--compare", "HEAD", "--threads", "2"), "expected OMP_WAIT_POLICY=passive"),
        (("--out", "/nowhere/at/all.jsonl"), "out: got /nowhere/at/all.jsonl"),
    ],
)
def test_numbers_that_cannot_be(
    arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["train", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_the_plain_formulas_are_the_papers() -> None:
    recon, images, code = torch.randn(3, 6, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near = relative_bound_nearby(public_loop.energy, recon, images)
    expected = reference.reconstruction_energy(recon, images, "l2")
    assert distance(public_loop.energy(recon, images), expected) <= near * size(expected)
    near = relative_bound_nearby(public_loop.pulling_away, code)
    term = reference.pulling_away_term(code)
    assert distance(public_loop.pulling_away(code), term) <= near * size(term)


def test_the_plain_loop_computes_gradients_that_it_does_not_use() -> None:
    """The generator's backward pass fills the discriminator's gradients too, as in public code."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.arrived = 0
            self.weight.register_post_accumulate_grad_hook(self.count)

        def count(self, _: torch.Tensor) -> None:
            self.arrived += 1

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images * self.weight * 0.5, images * self.weight

    encoder, generator = Encoder(), nn.Sequential(nn.Linear(2, 12), nn.Unflatten(1, (3, 2, 2)))
    loop = public_loop.PublicLoop(
        generator,  # type: ignore[arg-type]
        encoder,  # type: ignore[arg-type]
        learning_rate=0.1,
        beta1=0.5,
        margin=10.0,
        pt_weight=0.1,
    )
    loop.step(torch.rand(4, 3, 2, 2), torch.randn(4, 2))
    assert encoder.arrived == 2


GPU = (*TINY, "--device", "cuda", "--steps", "2")


@pytest.mark.slow
def test_on_a_gpu_each_step_is_timed_with_cudnn_s_choice_too(
    made_up_gpu: devices.Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "train.jsonl"
    assert main([*GPU, "--cudnn-benchmark", "--out", str(out)]) == 0
    row = json.loads(out.read_text())
    without = {train.PUBLIC, "ebgan_fast float32", train.CONSTANT}
    tried = {f"{name}, cudnn.benchmark" for name in (train.PUBLIC, "ebgan_fast float32")}
    assert row["seconds"].keys() == row["first_call"].keys() == without | tried
    assert row["cudnn_benchmark"] == {**dict.fromkeys(without, False), **dict.fromkeys(tried, True)}
    seconds = row["seconds"]
    assert row["speedup"] == {
        f"float32{how}": seconds[f"public loop{how}"] / seconds[f"ebgan_fast float32{how}"]
        for how in ("", ", cudnn.benchmark")
    }
    assert (row["steps"], row["backend"], row["wrong"]) == (2, made_up_gpu.backend, None)


def test_on_a_gpu_a_recorded_step_is_timed_too(
    made_up_gpu: devices.Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recorded step is timed beside the others, and recorded before the first round."""
    recorder = TapeRecorder(strict=False)
    monkeypatch.setattr(graph, "recorder_of", lambda device, processes: recorder)
    out = tmp_path / "train.jsonl"
    assert main([*GPU, "--cuda-graph", "float32", "--out", str(out)]) == 0
    row = json.loads(out.read_text())
    own = "ebgan_fast float32, cuda_graph"
    assert list(row["seconds"]) == [train.PUBLIC, "ebgan_fast float32", own, train.CONSTANT]
    assert row["speedup"].keys() == {"float32", "float32, cuda_graph"}
    assert row["speedup"]["float32, cuda_graph"] == row["seconds"][train.PUBLIC] / row["seconds"][own]
    before, rounds = 1, 2  # one call before the rounds, and two rounds of two steps
    assert recorder.events == ["warm up"] * 3 + ["record"] + ["replay"] * (before + 2 * rounds)
    assert "float32, cuda_graph: " in capsys.readouterr().out


def test_on_a_gpu_a_step_that_cannot_be_recorded_costs_the_others_nothing(
    made_up_gpu: devices.Device, tmp_path: Path
) -> None:
    """A step that cannot be recorded, because there is no CUDA here, is noted. The others are timed."""
    out = tmp_path / "train.jsonl"
    assert main([*GPU, "--cuda-graph", "float32", "--out", str(out)]) == 1
    row = json.loads(out.read_text())
    name = "ebgan_fast float32, cuda_graph"
    assert row["failed"] == {name: "cuda_graph: got True on cpu, expected a CUDA device, or False"}
    assert row["seconds"].keys() == {train.PUBLIC, "ebgan_fast float32", train.CONSTANT}


def test_a_package_without_a_setting_is_asked_for_it_by_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier commit's package has no `cuda_graph`. Its other steps can be timed all the same."""
    current = training_step.preset

    def earlier(name: str, out: Path, **fields: object) -> object:
        if "cuda_graph" in fields:
            raise TypeError("TrainConfig.__init__() got an unexpected keyword argument 'cuda_graph'")
        return current(name, out, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(training_step, "preset", earlier)
    wanted = train.Wanted(preset="celeba64", width=0.05, batch_size=4, device="cpu")
    assert wanted.config().batch_size == 4
    with pytest.raises(TypeError, match="cuda_graph"):
        dataclasses.replace(wanted, cuda_graph=True).config()


@pytest.mark.slow
def test_on_a_gpu_a_wrong_step_is_timed_and_said_to_be_wrong(
    made_up_gpu: devices.Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong step is timed all the same, in readings of two steps, with the plain loop in this process."""
    monkeypatch.setattr(train, "PublicProcess", None)
    steps, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda trainer: (steps.append(trainer), step(trainer)))
    check = training_step.check_agreement

    def check_wrong(begin: Begin, found: dict[str, tuple[float, float]]) -> None:
        loss_d, loss_g = found["ebgan_fast"]
        check(begin, {**found, "ebgan_fast": (loss_d, 1.00001 * loss_g)})

    monkeypatch.setattr(training_step, "check_agreement", check_wrong)
    out = tmp_path / "train.jsonl"
    assert main([*GPU, "--out", str(out)]) == 1
    row = json.loads(out.read_text())
    assert row["wrong"].startswith("loss_g of the first step, ebgan_fast: got")
    assert row["wrong"] in capsys.readouterr().err
    assert row["speedup"].keys() == {"float32"}
    own, constant = dict.fromkeys(steps[:2])
    warm, rounds = 2, 2  # the first call, one before the rounds, and two rounds of two steps
    assert steps.count(own) == steps.count(constant) == warm + 2 * rounds


def test_first_losses_are_checked_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check turns tf32 off, with which float32 steps differ by a thousand roundings."""
    wanted = train.Wanted(preset="celeba64", width=0.05, batch_size=4, device="cpu")
    images = wanted.images()
    begin = Begin.of(wanted.config(), images)
    gpu, seen = torch.device("cuda"), []
    check = training_step.check_agreement

    def checked(*arguments: object) -> None:
        seen.append(tf32.state(gpu))
        check(*arguments)  # type: ignore[arg-type]

    def public() -> tuple[float, float]:
        seen.append(tf32.state(gpu))
        return begin.public_steps()()

    monkeypatch.setattr(training_step, "check_agreement", checked)
    with tf32.switched(True):
        training_step.check(begin, images, public)
        assert seen == [{"matmul": False, "cudnn": False}] * 2
        assert tf32.state(gpu) == {"matmul": True, "cudnn": True}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a copy of the package, in place of another commit's."""
    source = Path(ebgan_fast.__file__).parent
    shutil.copytree(source, tmp_path / "site" / "ebgan_fast", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(other_commit, "install", lambda ref: ("0123456789ab", tmp_path / "site"))
    return tmp_path / "site"


def _append(site: Path, *lines: str) -> None:
    with (site / "ebgan_fast" / "training" / "step.py").open("a") as file:
        file.write("\n\n" + "\n".join(lines) + "\n")


@pytest.mark.slow
def test_another_commit_s_step_is_timed_by_turns(
    site: Path, tmp_path: Path, results_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other commit's step waits half a second, and the row and the table say so."""
    _append(
        site,
        "def _slow(trainer, step=Trainer.step):",
        "    __import__('time').sleep(0.5)",
        "    step(trainer)",
        "Trainer.step = _slow",
    )
    out = tmp_path / "train.jsonl"
    assert main([*TINY, "--compare", "v0", "--out", str(out)]) == 0
    row = json.loads(out.read_text())
    other = "ebgan_fast at v0 (0123456789ab)"
    assert row["seconds"].keys() == {"ebgan_fast float32", f"{other} float32"}
    assert row["seconds"][f"{other} float32"] > 0.5 > row["seconds"]["ebgan_fast float32"]
    low, median, high = row["ratio"]["float32"]
    assert 1 < low <= median <= high
    assert (row["compared"], row["speedup"], row["data_cost"]) == (other, {}, None)
    assert f"float32: {other} takes {median:.3f} times as long" in capsys.readouterr().out
    assert not results_file.with_name("train-cpu.jsonl").exists()


@pytest.mark.slow
def test_another_commit_with_other_losses_is_not_timed(site: Path) -> None:
    """The other commit's process refuses wrong losses before any step is timed, and its complaint ends `train`."""
    _append(
        site,
        "def _off(trainer, statistics=Trainer.statistics):",
        "    told = statistics(trainer)",
        "    return {**told, 'loss_g': 1.00001 * told['loss_g']}",
        "Trainer.statistics = _off",
    )
    other = TrainingProcess("ebgan_fast at v0", torch.device("cpu"), 1, paths=(site, ROOT))
    wanted = train.Wanted(preset="celeba64", width=0.05, batch_size=4, device="cpu")
    with (
        contextlib.closing(other),
        pytest.raises(ValueError, match="ebgan_fast at v0: loss_g of the first step, ebgan_fast: got"),
    ):
        other.check(wanted)


def test_another_commit_is_checked_before_it_is_timed(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrong:
        def __init__(self, name: str, *arguments: object, **settings: object) -> None:
            self.name = name

        def check(self, wanted: object) -> None:
            if "v0" in self.name:
                raise ValueError(f"{self.name}: loss_g of the first step")

        def contestant(self, name: str, wanted: object) -> contestants.Timed:
            return contestants.Timed(lambda repeats: pytest.fail("it was timed"), 0.0, None, False)

        def close(self) -> None:
            pass

    monkeypatch.setattr(train, "TrainingProcess", Wrong)
    out = tmp_path / "train.jsonl"
    assert main([*TINY, "--compare", "v0", "--out", str(out)]) == 1
    assert "ebgan_fast at v0 (0123456789ab): loss_g of the first step" in capsys.readouterr().err
    assert not out.exists()


def _interrupted_in_round(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Raise SIGINT in the middle of a round, as bench/gpu.sh does when a stage is out of time."""
    each_round = train.each_round

    def interrupted(clocks: dict[str, Clock], *arguments: object, **settings: object) -> Iterator[dict[str, float]]:
        last = list(clocks)[-1]
        calls = 0

        def clock(repeats: int) -> float:
            nonlocal calls
            calls += 1
            if calls == 1 + number:  # one call comes before the rounds
                signal.raise_signal(signal.SIGINT)
            return clocks[last](repeats)

        return each_round({**clocks, last: clock}, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(train, "each_round", interrupted)


@pytest.mark.usefixtures("plain_loop_here")
def test_an_interrupted_run_writes_the_rounds_that_it_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted_in_round(monkeypatch, 3)
    out = tmp_path / "train.jsonl"
    assert main([*TINY, "--rounds", "9", "--out", str(out)]) == 130
    row = json.loads(out.read_text())
    assert row["rounds"] == 2
    assert row["seconds"].keys() == {train.PUBLIC, "ebgan_fast float32", train.CONSTANT}


@pytest.mark.usefixtures("plain_loop_here")
def test_a_run_interrupted_in_its_first_round_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted_in_round(monkeypatch, 1)
    assert main([*TINY, "--out", str(tmp_path / "train.jsonl")]) == 130
    assert not (tmp_path / "train.jsonl").exists()


@pytest.mark.usefixtures("plain_loop_here")
def test_an_interrupted_run_is_not_added_to_the_committed_results(
    results_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _interrupted_in_round(monkeypatch, 2)
    assert main(TINY) == 130
    assert not results_file.with_name("train-cpu.jsonl").exists()
    assert "not a whole run (interrupted)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("when", [1, 5], ids=["at the first call", "in a round"])
def test_on_a_gpu_a_step_that_cannot_run_costs_the_others_nothing(
    when: int, made_up_gpu: devices.Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "train.jsonl", 0
    step = public_loop.PublicLoop.step

    def short_of_memory(loop: public_loop.PublicLoop, *arguments: torch.Tensor) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls == when:
            raise torch.OutOfMemoryError("CUDA out of memory.\nand more lines")
        return step(loop, *arguments)

    monkeypatch.setattr(public_loop.PublicLoop, "step", short_of_memory)
    assert main([*GPU, "--out", str(out)]) == 1
    row = json.loads(out.read_text())
    assert row["failed"] == {train.PUBLIC: "cannot run: OutOfMemoryError: CUDA out of memory."}
    assert row["seconds"].keys() == row["first_call"].keys() == {"ebgan_fast float32", train.CONSTANT}
    assert (row["rounds"], row["speedup"], row["wrong"]) == (2, {}, None)


def test_on_a_gpu_where_no_step_can_run_the_command_says_why(
    made_up_gpu: devices.Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cannot(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(contestants, "timed", cannot)
    assert main([*GPU, "--out", str(tmp_path / "train.jsonl")]) == 1
    assert "no step could run: public loop: cannot run: OutOfMemoryError" in capsys.readouterr().err
    assert not (tmp_path / "train.jsonl").exists()


@pytest.mark.usefixtures("plain_loop_here")
def test_on_the_cpu_a_step_that_cannot_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*arguments: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(train, "timed", cannot)
    with pytest.raises(RuntimeError, match="a fault"):
        main([*TINY, "--out", str(tmp_path / "train.jsonl")])
