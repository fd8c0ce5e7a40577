"""Tests of a step that is recorded and replayed, without a GPU: a tape of operations replaces the CUDA graph."""

from __future__ import annotations

import copy
import dataclasses
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast import functional
from ebgan_fast.data.image_set import TensorImages, pad_to_square
from ebgan_fast.models import Mlp
from ebgan_fast.training import TrainConfig, train
from ebgan_fast.training.graph import Recorder, StepGraph
from ebgan_fast.training.step import Trainer

from .conftest import Configure
from .helpers import assert_same_run, assert_same_state, bars
from .tape import CannotBeRecordedError, Recordable, TapeRecorder, in_place_of_cuda
from .test_conv_runs import blobs, small

SCHEDULES = {
    "margin_schedule": "cosine",
    "margin_end": 2.0,
    "lr_decay": "linear",
    "ema": 0.9,
    "log_every": 4,
    "steps": 20,
}
STEPS = 13  # three steps of the 20 run as they are, the fourth is recorded; log lines come after the 4th, 8th and 12th


@pytest.fixture(autouse=True)
def _reference() -> Iterator[None]:
    """Use the reference backend. The CPU's own kernels read a margin in CPU memory, which neither a GPU's kernels nor
    the reference do.
    """
    with ebgan_fast.use_backend("reference"):
        yield


def built(config: TrainConfig, recorder: Recorder | None = None, kind: type[Trainer] = Trainer) -> Trainer:
    config = dataclasses.replace(config, cuda_graph=recorder is not None)
    of_bars = isinstance(config.networks, Mlp)
    images = TensorImages(pad_to_square(bars(50, seed=0), config.image_size)) if of_bars else blobs()
    return kind(config, images, recorder=recorder)


def run(trainer: Trainer, steps: int = STEPS) -> list[dict[str, float]]:
    """Train up to a step. Return the statistics of the log lines."""
    lines = []
    while trainer.step_count < steps:
        trainer.step()
        if trainer.step_count % trainer.config.log_every == 0:
            lines.append(trainer.statistics())
    return lines


def assert_a_recording_changes_nothing(
    config: TrainConfig, kind: type[Trainer] = Trainer, strict: bool = True
) -> list[str]:
    """Check that a recorded run has the same statistics and state as a plain one. Return the recorder's events."""
    plain = built(config)
    lines, state = run(plain), plain.state_dict()
    recorder = TapeRecorder(strict)
    recorded = built(config, recorder, kind)
    assert run(recorded) == lines
    assert_same_state(recorded.state_dict(), state)
    assert recorder.events.count("record") == 1
    return recorder.events


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"accumulate": 2},
        {"precision": "bfloat16"},
        {"norm": "mse"},
        {"norm": "sse", "accumulate": 2, "precision": "bfloat16"},
        {"ema": 0.0, "margin_schedule": "constant", "margin_end": None, "lr_decay": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["mlp", "conv"])
def test_a_recorded_run_is_the_run_bit_for_bit(configure: Configure, family: str, fields: dict[str, Any]) -> None:
    """A recorded run is bit for bit the plain run, and its steps read no value: the tape would refuse that."""
    config = configure(**fields) if family == "mlp" else small(**{**SCHEDULES, **fields})
    events = assert_a_recording_changes_nothing(config)
    assert events == ["warm up"] * 3 + ["record"] + ["replay"] * (STEPS - 3)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("family", ["mlp", "conv"])
def test_a_step_with_a_term_for_the_log_alone_runs_apart(configure: Configure, family: str, accumulate: int) -> None:
    fields: dict[str, Any] = {"pt_weight": 0.0, "accumulate": accumulate}
    config = configure(**fields) if family == "mlp" else small(**{**SCHEDULES, **fields})
    events = assert_a_recording_changes_nothing(config)
    assert events == ["warm up"] * 3 + ["record"] + ["replay"] * (STEPS - 3 - 3)  # steps 4, 8 and 12 run apart


def test_the_kernels_of_the_cpu_are_recorded_too(configure: Configure) -> None:
    if not ebgan_fast.backends()["cpu"].available:
        pytest.skip("the compiled kernels aren't built")
    with ebgan_fast.use_backend("cpu"):
        config = configure(pt_weight=0.125)  # exact in float32, as which a tape gets it
        assert_a_recording_changes_nothing(config, strict=False)
        recorder = TapeRecorder(strict=False)
        run(built(config, recorder), 4)
    (tape,) = recorder.tapes
    own = {call.func.name() for call in tape.calls if call.func.namespace == "ebgan_fast"}
    assert own == {"ebgan_fast::discriminator_loss", "ebgan_fast::generator_loss"}


def test_a_recording_alone_does_nothing(configure: Configure) -> None:
    trainer = built(configure())
    run(trainer, 3)
    before = copy.deepcopy(trainer.state_dict())
    TapeRecorder().record(trainer._compute)
    assert_same_state(trainer.state_dict(), before)


# ---- Bugs that must show


class MarginAsNumber(Trainer):
    def _backward(self, real: Tensor, noise: Tensor, margin: Any) -> Tensor:
        return super()._backward(real, noise, self.margin)  # type: ignore[arg-type]


class NewMargin(Trainer):
    def _draw(self) -> None:
        super()._draw()
        self._margin = self._margin.clone()


class NewNoise(Trainer):
    def _draw(self) -> None:
        super()._draw()
        self._noise = self._noise.clone()


class NewImages(Trainer):
    def _draw(self) -> None:
        super()._draw()
        assert self._real is not None
        self._real = self._real.clone()


class NewRow(Trainer):
    def _after(self) -> None:
        super()._after()
        self._row = torch.zeros_like(self._row)


class RateAsNumber(Trainer):
    def _draw(self) -> None:
        self.optimizer_d._rate = None
        super()._draw()


class NewMoments(Trainer):
    def _after(self) -> None:
        super()._after()
        self.optimizer_g.load_state_dict(copy.deepcopy(self.optimizer_g.state_dict()))


BUGS = [MarginAsNumber, NewMargin, NewNoise, NewImages, NewRow, RateAsNumber, NewMoments]


@pytest.mark.parametrize("bug", BUGS)
def test_what_is_not_where_the_recording_reads_it_shows(configure: Configure, bug: type[Trainer]) -> None:
    with pytest.raises(AssertionError):
        assert_a_recording_changes_nothing(configure(), bug)


def test_a_step_that_should_run_apart_and_does_not_shows(configure: Configure) -> None:
    class NeverApart(Trainer):
        def _is_apart(self) -> bool:
            return False

    with pytest.raises(AssertionError):
        assert_a_recording_changes_nothing(configure(pt_weight=0.0), NeverApart)


ASKING: dict[str, Callable[[Tensor], Tensor]] = {
    "item": lambda energy: energy * energy[0].item(),
    "float": lambda energy: energy * float(energy[0]),
    "if": lambda energy: energy if energy[0] > 0 else -energy,
    "equal": lambda energy: energy * torch.equal(energy, energy),
    "nonzero": lambda energy: energy * len(energy.nonzero()),
    "mask": lambda energy: energy[energy > 0],
    "masked_select": lambda energy: energy.masked_select(energy > 0),
    "unique": lambda energy: energy.unique(),
    "a number of the host's": lambda energy: energy * torch.tensor(0.5),
    "list": lambda energy: energy * energy.tolist()[0],
    "to the CPU": lambda energy: energy.to("cpu") * 1.0,
}


def asking(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the discriminator's loss read a value in the way that `name` says."""
    original = functional.discriminator_loss

    def curious(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        ASKING[name](result.energy_fake)
        return result

    monkeypatch.setattr(functional, "discriminator_loss", curious)


@pytest.mark.parametrize("name", [name for name in ASKING if name not in ("list", "to the CPU")])
def test_a_question_for_a_value_shows(configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asking(monkeypatch, name)
    with pytest.raises(CannotBeRecordedError):
        run(built(configure(), TapeRecorder()))


# ---- A device without values


class WithoutValues(Trainer):
    """A trainer on torch's device `meta`, whose tensors have no values to read and which has no fused Adam."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._draw()
        assert self._real is not None
        self._real, self._noise, self._margin, self._row = (
            it.to("meta") for it in (self._real, self._noise, self._margin, self._row)
        )
        for optimizer, net in ((self.optimizer_g, self.generator), (self.optimizer_d, self.discriminator)):
            optimizer.param_groups[0]["params"] = list(net.to("meta").parameters())
        self.precision.step = lambda *optimizers: None  # type: ignore[method-assign]


@pytest.mark.parametrize("fields", [{}, {"accumulate": 2}, {"pt_weight": 0.0}, {"norm": "sse"}], ids=str)
@pytest.mark.parametrize("family", ["mlp", "conv"])
def test_a_step_needs_no_value(configure: Configure, family: str, fields: dict[str, Any]) -> None:
    """A step needs no value. On the CPU a tape could not see a list of values, or a copy to the CPU; the device `meta`
    refuses both.
    """
    config = configure(**fields) if family == "mlp" else small(**fields)
    trainer = built(config, kind=WithoutValues)
    with Recordable("meta"):
        trainer._compute()
    for parameter in (*trainer.generator.parameters(), *trainer.discriminator.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.is_meta


@pytest.mark.parametrize("name", ASKING)
def test_a_question_shows_on_a_device_without_values(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trainer = built(configure(), kind=WithoutValues)
    asking(monkeypatch, name)
    with pytest.raises((CannotBeRecordedError, RuntimeError, NotImplementedError)), Recordable("meta"):
        trainer._compute()


# ---- Places in memory


def places(trainer: Trainer) -> dict[str, int]:
    """Return the addresses of all tensors that a recording reads or writes."""
    assert trainer._real is not None
    named = {"images": trainer._real, "noise": trainer._noise, "margin": trainer._margin, "row": trainer._row}
    for name, net, optimizer in (
        ("generator", trainer.generator, trainer.optimizer_g),
        ("discriminator", trainer.discriminator, trainer.optimizer_d),
    ):
        named |= {f"{name}.{key}": value for key, value in (*net.named_parameters(), *net.named_buffers())}
        named |= {f"{name}'s state {index}": value for index, value in enumerate(optimizer.tensors())}
        named[f"{name}'s rate"] = optimizer.param_groups[0]["lr"]
    return {name: value.data_ptr() for name, value in named.items()}


@pytest.mark.parametrize("family", ["mlp", "conv"])
def test_what_a_recording_reads_and_writes_keeps_its_place(configure: Configure, family: str) -> None:
    trainer = built(configure() if family == "mlp" else small(**SCHEDULES), TapeRecorder())
    trainer.step()
    first = places(trainer)
    assert len({place for place in first.values() if place}) == len(first)
    values = trainer._margin.item(), trainer.optimizer_g.param_groups[0]["lr"].item()
    for after in (
        trainer.step,
        trainer.step,
        trainer.step,
        trainer.statistics,
        trainer.state_dict,
        trainer.check_finite,
        trainer.sampler,
        trainer.step,
        trainer.step,
    ):
        after()
        assert places(trainer) == first, after
    assert trainer._margin.item() < values[0]
    assert trainer.optimizer_g.param_groups[0]["lr"].item() < values[1]


@pytest.mark.parametrize("bug", [NewMargin, NewNoise, NewImages, NewRow, NewMoments])
def test_another_place_shows(configure: Configure, bug: type[Trainer]) -> None:
    trainer = built(configure(), TapeRecorder(), bug)
    trainer.step()
    first = places(trainer)
    trainer.step()
    assert places(trainer) != first


# ---- Runs that go on from a state


@pytest.mark.parametrize("recorded_before", [False, True])
@pytest.mark.parametrize("after", [2, 7])
def test_a_recorded_run_goes_on_from_any_state(configure: Configure, after: int, recorded_before: bool) -> None:
    """A recorded run goes on from a state before or after its recording, and from a run with or without a recording."""
    plain = built(configure())
    run(plain)
    expected = plain.state_dict()
    before = built(configure(), TapeRecorder() if recorded_before else None)
    run(before, after)
    saved = copy.deepcopy(before.state_dict())
    recorder = TapeRecorder()
    trainer = built(configure(), recorder)
    torch.rand(3)  # in another process the global random numbers have another state
    trainer.load_state_dict(saved)
    run(trainer)
    assert_same_state(trainer.state_dict(), expected)
    assert recorder.events == ["warm up"] * 3 + ["record"] + ["replay"] * (STEPS - after - 3)


def test_another_state_is_recorded_anew(configure: Configure) -> None:
    """Another state is recorded anew, because the optimizers' moments then have other addresses."""
    plain = built(configure())
    run(plain, 6)
    saved = copy.deepcopy(plain.state_dict())
    run(plain)
    recorder = TapeRecorder()
    trainer = built(configure(), recorder)
    run(trainer, 9)
    trainer.load_state_dict(saved)
    run(trainer)
    assert_same_state(trainer.state_dict(), plain.state_dict())
    once = ["warm up"] * 3 + ["record"]
    assert recorder.events == [*once, *["replay"] * 6, *once, *["replay"] * (STEPS - 6 - 3)]


def test_an_old_recording_of_another_state_shows(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepGraph, "forget", lambda graph: None)
    with pytest.raises(AssertionError):
        test_another_state_is_recorded_anew(configure)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[TapeRecorder]:
    """Return the recorders of the runs, which replace CUDA's."""
    return in_place_of_cuda(monkeypatch)


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("rest", [True, False], ids=["recorded", "without a graph"])
def test_a_whole_run_that_is_stopped_and_resumed(
    configure: Configure, tapes: list[TapeRecorder], monkeypatch: pytest.MonkeyPatch, rest: bool
) -> None:
    """A run is stopped after its recording, inside a log interval. The resumed run may go without a graph or begin with
    one.
    """
    out = configure().out
    plain, recorded = configure(out=out / "plain"), configure(out=out / "recorded", cuda_graph=True)
    train(plain)
    original = Trainer.step

    def signaled(trainer: Trainer) -> None:
        if trainer.step_count == 9:
            signal.raise_signal(signal.SIGTERM)
        original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", signaled)
        assert train(recorded).step == 10
    assert [recorder.events.count("replay") for recorder in tapes] == [7]
    result = train(dataclasses.replace(recorded, cuda_graph=rest), resume=True)
    assert (result.step, result.stopped_by) == (20, None)
    assert [recorder.events.count("replay") for recorder in tapes] == ([7, 7] if rest else [7])
    assert_same_run(recorded.out, plain.out, but={"cuda_graph"})


@pytest.mark.usefixtures("no_curves")
def test_a_run_that_looks_for_its_margin(configure: Configure, tapes: list[TapeRecorder]) -> None:
    """The search for a margin is not recorded, because its steps are of another kind."""
    fields: dict[str, Any] = {"margin": "auto", "margin_auto_steps": 5, "margin_schedule": "constant"}
    out = configure().out
    plain, recorded = (
        configure(out=out / str(graph), cuda_graph=graph, margin_end=None, **fields) for graph in (False, True)
    )
    train(plain)
    train(recorded)
    assert_same_run(recorded.out, plain.out, but={"cuda_graph"})
    assert sorted(recorder.events.count("record") for recorder in tapes) == [0, 1]
