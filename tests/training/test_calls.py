"""Tests of the calls that a step makes and avoids: the term for the log, copies of weights, counts of batch norm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.subjects import public_loop
from ebgan_fast import functional
from ebgan_fast.training import train
from ebgan_fast.training.statistics import STATISTICS, NonFiniteError
from ebgan_fast.training.step import Trainer
from tests.rounding import assert_within_eager

from .conftest import Configure
from .helpers import CutOff, assert_same_run, cut_off_after
from .test_conv_runs import blobs, small
from .test_trainer import make


class Calls(TorchDispatchMode):
    """A dispatch mode that records every operation that a step sends to the device, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.made.append((func, args))
        return func(*args, **(kwargs or {}))

    def on(self, func: Any) -> list[Tensor]:
        """Return the first arguments of all calls of one operation."""
        return [args[0] for made, args in self.made if made is func]


@pytest.fixture
def terms(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return the list of codes whose pulling-away term is computed outside of the loss."""
    codes: list[Tensor] = []
    original = functional.pulling_away_term

    def noted(code: Tensor, **options: Any) -> Tensor:
        codes.append(code)
        return original(code, **options)

    monkeypatch.setattr(functional, "pulling_away_term", noted)
    return codes


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_term_of_weight_0_is_taken_for_log_lines_alone(terms: list[Tensor], accumulate: int) -> None:
    """A term of weight 0 is computed only for log lines: after steps 3, 6 and 7, the last."""
    trainer = Trainer(small(pt_weight=0.0, log_every=3, steps=7, accumulate=accumulate), blobs())
    taken = []
    for _ in range(7):
        before = len(terms)
        trainer.step()
        taken.append(len(terms) - before)
    assert taken == [0, 0, accumulate, 0, 0, accumulate, accumulate]
    assert not any(code.requires_grad for code in terms)


def test_the_logged_term_is_that_of_the_lines_own_step() -> None:
    """The logged term belongs to the line's own step. All other numbers are means over the interval. Between lines
    there is no term.
    """
    trainer, each = (Trainer(small(pt_weight=0.0, log_every=every, steps=7), blobs()) for every in (3, 1))
    codes: list[Tensor] = []
    trainer.discriminator.register_forward_hook(lambda net, inputs, outputs: codes.append(outputs[1].detach()))
    rows: list[list[float]] = []
    for step in range(1, 8):
        trainer.step()
        found = trainer.statistics()
        each.step()
        rows.append([each.statistics()[name] for name in STATISTICS[:5]])
        first = (step - 1) // 3 * 3
        means = torch.tensor(rows[first:], dtype=torch.float64).mean(0)
        assert [found[name] for name in STATISTICS[:5]] == means.tolist()
        if step not in (3, 6, 7):
            assert "pulling_away" not in found
            continue
        of_generated = codes[-2].flatten(1)  # the last pass is over real images
        truth, eager = (
            public_loop.pulling_away(of_generated.to(dtype)).item() for dtype in (torch.float64, torch.float32)
        )
        assert_within_eager(found["pulling_away"], truth, eager, torch.float32, f"term of step {step}")


@pytest.mark.usefixtures("no_curves")
def test_a_run_with_a_term_for_the_log_resumes_inside_an_interval(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with lines after steps 4, 8 and 10 is cut off in step 8 and resumed from the checkpoint of step 6."""
    whole, cut = (configure(out=configure().out / name, pt_weight=0.0, steps=10) for name in ("whole", "cut"))
    train(whole)
    with monkeypatch.context() as patch:
        cut_off_after(patch, 7)
        with pytest.raises(CutOff):
            train(cut)
    result = train(cut, resume=True)
    assert_same_run(cut.out, whole.out)
    assert result.stats is not None
    assert 0 < result.stats["pulling_away"] <= 1


def test_a_term_for_the_log_that_is_not_finite_is_found(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(configure(pt_weight=0.0))
    monkeypatch.setattr(functional, "pulling_away_term", lambda code, **options: code.new_tensor(float("nan")))
    for _ in range(4):
        trainer.check_finite()
        trainer.step()
    with pytest.raises(NonFiniteError, match="step 4: got pulling_away nan"):
        trainer.statistics()


def weights_of(net: nn.Module) -> dict[int, str]:
    """Return the names of the layers' weights and biases that autocast rounds, by their addresses."""
    layers = (
        (name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    )
    return {value.data_ptr(): f"{name}.{which}" for name, layer in layers for which, value in layer.named_parameters()}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_each_weight_is_copied_to_16_bits_once_a_step(precision: str) -> None:
    """The discriminator's two passes share the 16-bit copies. The next step copies the new weights."""
    trainer = Trainer(small(precision=precision), blobs())
    weights = weights_of(trainer.generator) | weights_of(trainer.discriminator)
    for _ in range(2):
        with Calls() as calls:
            trainer.step()
        copied = Counter(value.data_ptr() for value in calls.on(torch.ops.aten._to_copy.default))
        assert {name: copied[place] for place, name in weights.items()} == dict.fromkeys(weights.values(), 1)


@pytest.mark.parametrize("pt_weight", [0.0, 0.1])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_losses_hand_out_their_gradients(
    precision: str, accumulate: int, pt_weight: float, op_calls: list[str]
) -> None:
    """The losses return their gradients without a copy or a multiplication, and compute no energy separately.

    The loss's graph is not kept beside the discriminator's. The upstream is known when the loss is computed, also a
    scale of float16 or a part of a batch.
    """
    config = small(pt_weight=pt_weight, log_every=10, accumulate=accumulate, precision=precision)
    trainer = Trainer(config, blobs())
    for _ in range(2):
        trainer.step()
    assert op_calls
    assert not [name for name in op_calls if name.startswith(("scale_gradients", "reconstruction_energy"))]


def test_losses_and_backward_run_outside_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(small(precision="bfloat16", log_every=1), blobs())
    seen: dict[str, set[bool]] = {"passes": set(), "losses": set(), "backward": set()}

    def note(where: str) -> None:
        seen[where].add(torch.is_autocast_enabled("cpu"))

    def noting(loss: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            note("losses")
            return loss(*args, **options)

        return noted

    for name in ("generator_loss", "discriminator_loss"):
        monkeypatch.setattr(functional, name, noting(getattr(functional, name)))
    for net in (trainer.generator, trainer.discriminator):
        net.register_forward_hook(lambda *_: note("passes"))
        for parameter in net.parameters():
            parameter.register_hook(lambda _: note("backward"))
    trainer.step()
    assert seen == {"passes": {True}, "losses": {False}, "backward": {False}}
    assert not torch.is_autocast_enabled("cpu")


def test_the_generators_maps_are_freed_before_the_second_pass() -> None:
    trainer = Trainer(small(), blobs())
    order: list[str] = []
    trainer.discriminator.register_forward_pre_hook(lambda *_: order.append("pass"))
    first, *_ = trainer.generator.parameters()  # the last parameter to get its gradient
    first.register_post_accumulate_grad_hook(lambda _: order.append("generator done"))
    trainer.step()
    assert order == ["pass", "generator done", "pass"]


@pytest.mark.parametrize("family", ["conv", "mlp"])
def test_batch_norm_does_not_count_the_steps_of_training(configure: Configure, family: str) -> None:
    trainer = Trainer(small(), blobs()) if family == "conv" else make(configure(n_layer_d=4))
    counts = [
        buffer
        for net in (trainer.generator, trainer.discriminator)
        for name, buffer in net.named_buffers()
        if name.endswith("num_batches_tracked")
    ]
    places = {count.data_ptr() for count in counts}
    assert len(places) >= 3  # in both networks
    with Calls() as calls:
        trainer.step()
    assert not [count for count in calls.on(torch.ops.aten.add_.Tensor) if count.data_ptr() in places]
    assert [count.item() for count in counts] == [0] * len(counts)
