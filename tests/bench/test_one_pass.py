from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bench.__main__ import main
from bench.commands import one_pass
from bench.commands.one_pass import ONE_PASS, USUAL, Loop
from bench.results.provenance import ROOT
from ebgan_fast import EBGAN, cli
from ebgan_fast.models import Conv, Mlp
from ebgan_fast.training import TrainConfig

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads")

SIDE, N, Z = 8, 6, 10
FULLY_CONNECTED = TrainConfig(
    out=Path(),
    networks=Mlp(z_dim=Z, n_layer_g=2, size_g=12, size_d=14),
    batch_size=N,
    image_size=SIDE,
    margin=2.0,
    pt_weight=0.5,
    device="cpu",
)
CONVOLUTIONAL = TrainConfig(
    out=Path(),
    networks=Conv(
        generator_layers="(8)4c-(3)4c2s",
        noise_planes="10",
        encoder_layers="(8)4c2s-(8)4c2s",
        decoder_layers="(8)4c2s-(3)4c2s",
    ),
    batch_size=N,
    image_size=SIDE,
    margin=2.0,
    pt_weight=0.5,
    device="cpu",
)
CONFIGS = pytest.mark.parametrize("config", [FULLY_CONNECTED, CONVOLUTIONAL], ids=["fully connected", "convolutional"])
Step = Callable[[Loop], None]


def test_a_tiny_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(one_pass, "NETWORKS", {"tiny": FULLY_CONNECTED, "maps": CONVOLUTIONAL})
    out = tmp_path / "one-pass.jsonl"
    assert main(["one-pass", "--rounds", "2", "--threads", "1", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["networks"] for row in rows] == ["tiny", "maps"]
    said = capsys.readouterr().out
    for row in rows:
        assert row["seconds"].keys() == {USUAL, ONE_PASS}
        assert (row["batch_size"], row["threads"], row["rounds"]) == (N, 1, 2)
        begin = f"{row['networks']}, batches of {N}, 1 thread"
        (line,) = (line for line in said.splitlines() if line.startswith(begin))
        assert line.split()[-2:] == [f"{row['ratio']:.2f}x", f"{row['bound']:.2f}x"]


def test_each_loop_has_the_seconds_of_its_own_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: dict[str, Any] = {}

    def interleaved(steps: dict[str, Any], rounds: int, advance: Callable[[], None]) -> dict[str, list[float]]:
        timed.update(steps)
        return {USUAL: [6.0, 42.0, 4.0], ONE_PASS: [3.0, 6.0, 4.0]}

    monkeypatch.setattr(one_pass, "interleaved", interleaved)
    monkeypatch.setattr(one_pass, "NETWORKS", {"tiny": FULLY_CONNECTED})
    out = tmp_path / "one-pass.jsonl"
    assert main(["one-pass", "--rounds", "3", "--out", str(out)]) == 0
    assert timed[USUAL].__func__ is Loop.usual
    assert timed[ONE_PASS].__func__ is Loop.one_pass
    assert timed[USUAL].__self__ is not timed[ONE_PASS].__self__
    row = json.loads(out.read_text())
    assert row["seconds"] == {USUAL: 4.0, ONE_PASS: 3.0}
    assert row["ratio"] == 2.0  # the median of 2, 7 and 1


@CONFIGS
def test_gradients_of_both_loops_pass_the_check(config: TrainConfig) -> None:
    one_pass.check(config)


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("off", [1e-5, float("nan")])
@CONFIGS
def test_gradients_that_differ_are_not_timed(
    config: TrainConfig, off: float, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Loop.one_pass

    def wrong(loop: Loop) -> None:
        def backward(*arguments: Any) -> None:
            EBGAN.backward(loop.game, *arguments)
            for parameter in getattr(loop, network).parameters():
                assert parameter.grad is not None
                parameter.grad *= 1 + off

        with monkeypatch.context() as patch:
            patch.setattr(loop.game, "backward", backward)
            right(loop)

    monkeypatch.setitem(one_pass.STEPS, ONE_PASS, wrong)
    named = ".*" if math.isnan(off) else network  # a step of Adam carries NaN into both networks
    with pytest.raises(ValueError, match=f"gradient of the {named}, one pass: got one that is off by"):
        one_pass.check(config)


def _keeps_gradients(step: Step) -> Step:
    """Return the step without setting gradients to zero before it."""

    def keeping(loop: Loop) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for optimizer in (loop.optimizer_d, loop.optimizer_g):
                patch.setattr(optimizer, "zero_grad", lambda: None)
            step(loop)

    return keeping


def _steps_last(loop: Loop) -> None:
    """Take the usual step, but let the discriminator step after the generator's loss has added to its gradient."""
    with contextlib.ExitStack() as stay, pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.optimizer_d, "step", lambda: None)
        stay.callback(lambda: type(loop.optimizer_d).step(loop.optimizer_d))
        Loop.usual(loop)


@pytest.mark.parametrize(
    ("who", "step"),
    [(USUAL, _keeps_gradients(Loop.usual)), (ONE_PASS, _keeps_gradients(Loop.one_pass)), (USUAL, _steps_last)],
    ids=["usual loop without zero_grad", "one pass without zero_grad", "the generator's gradient in the discriminator"],
)
def test_a_loop_that_leaves_gradients_to_the_wrong_step_is_not_timed(
    who: str, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(one_pass.STEPS, who, step)
    with pytest.raises(ValueError, match=f"gradient of the .*, {who}: got one"):
        one_pass.check(FULLY_CONNECTED)


@CONFIGS
def test_two_loops_begin_alike_and_a_step_changes_every_weight_tensor(config: TrainConfig) -> None:
    loops = {name: Loop(config) for name in one_pass.STEPS}
    states = {
        name: [loop.real, loop.noise, *loop.generator.parameters(), *loop.discriminator.parameters()]
        for name, loop in loops.items()
    }
    for usual, other in zip(states[USUAL], states[ONE_PASS], strict=True):
        assert torch.equal(usual, other)
    before = [value.detach().clone() for value in states[USUAL]]
    for name, step in one_pass.STEPS.items():
        step(loops[name])
        changed = [not torch.equal(now, old) for now, old in zip(states[name], before, strict=True)]
        assert changed == [False, False, *[True] * (len(before) - 2)]  # the batch stays


def test_the_bound_is_the_ratio_of_the_products_by_arithmetic() -> None:
    """The bound equals the ratio of the products, counted by hand.

    A layer takes one product forwards, one for the gradient of its weights, and one for that of its inputs unless these
    are given. The pulling-away term adds the smaller Gram matrix of the codes, and one product for its gradient.
    """
    pixels, size_g, size_d = SIDE * SIDE, 12, 14
    first_g, g = Z * size_g, Z * size_g + size_g * pixels
    first_d, d = pixels * size_d, 2 * pixels * size_d
    generator = 3 * g - first_g
    alone = 3 * d - first_d  # the discriminator on a given batch
    through = 3 * d  # and back to the generator, with an unused gradient of the discriminator's weights
    n = FULLY_CONNECTED.batch_size
    term = 2 * min(n, size_d) ** 2 * max(n, size_d) / n  # for one sample
    usual = generator + 2 * alone + through + term
    one = (
        generator + alone + (d + d) + (d + d - first_d) + term
    )  # forwards, back to the generator, and its own loss backwards
    assert one_pass.bound(FULLY_CONNECTED) == pytest.approx(usual / one, rel=1e-12)


def test_the_first_networks_are_those_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = re.findall(r"^RECIPE := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked: list[TrainConfig] = []

    def run_training(config: TrainConfig, resume: bool) -> SimpleNamespace:
        asked.append(config)
        return SimpleNamespace(stopped_by=None)

    monkeypatch.setattr(cli, "run_training", run_training)
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)
    assert cli.main(["train", "--out", "runs/demo", *shlex.split(recipe)]) == 0
    first = next(iter(one_pass.NETWORKS.values()))
    for name in ("networks", "batch_size", "image_size", "margin", "norm", "pt_weight", "lr_g", "lr_d", "beta1"):
        assert getattr(first, name) == getattr(asked[0], name), name


def test_nothing_is_drawn_at_random_within_a_step() -> None:
    for config in one_pass.NETWORKS.values():
        loop = Loop(config)
        layers = [*loop.generator.modules(), *loop.discriminator.modules()]
        assert not any(isinstance(layer, nn.Dropout) for layer in layers)
