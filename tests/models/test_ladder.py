"""The ladder network equals its definition, which is written out here layer by layer."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ebgan_fast.models import ladder
from ebgan_fast.models.ladder import LadderNetwork
from tests.rounding import distance, relative_bound_nearby, size

SIZES = (6, 5, 4, 3)


@pytest.fixture
def network() -> LadderNetwork:
    torch.manual_seed(0)
    network = LadderNetwork(SIZES, noise_std=0.3).double()
    for parameter in network.parameters():  # the initial zeros would hide a missing term
        torch.nn.init.normal_(parameter, std=0.5)
    return network.float().double()  # numbers that float32 holds exactly, so `assert_defined` can use both precisions


def noises(seed: int, rows: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, size, generator=generator, dtype=torch.float64) for size in SIZES]


def normalized(values: Tensor) -> Tensor:
    return (values - values.mean(0)) / (values.var(0, correction=0) + 1e-10).sqrt()


def defined(network: LadderNetwork, images: Tensor, noise: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return (logits, denoised input) by algorithm 1 of Rasmus et al. 2015."""
    corrupted = [images + 0.3 * noise[0]]
    hidden = corrupted[0]
    for layer, weight in enumerate(network.up):
        corrupted.append(normalized(hidden @ weight.T) + 0.3 * noise[layer + 1])
        hidden = corrupted[-1] + network.shift[layer]
        hidden = hidden * network.top_scale if layer == 2 else hidden.clamp(min=0)
    above = normalized(torch.softmax(hidden, 1))
    estimate = torch.empty(0)
    for layer in (3, 2, 1, 0):
        if layer < 3:
            above = normalized(estimate @ network.down[layer].T)
        a = network.combinators[layer]
        mean = a[0] / (1 + (-(a[1] * above + a[2])).exp()) + a[3] * above + a[4]
        slope = a[5] / (1 + (-(a[6] * above + a[7])).exp()) + a[8] * above + a[9]
        estimate = (corrupted[layer] - mean) * slope + mean
    return hidden, estimate


def assert_defined(found: Tensor, network: LadderNetwork, images: Tensor, noise: list[Tensor], which: int) -> None:
    """Fail if `found` is not the definition's logits (which 0) or denoised input (1), up to rounding."""

    def formula(images: Tensor, *noise: Tensor) -> Tensor:
        return defined(copy.deepcopy(network).to(images.dtype), images, list(noise))[which]

    expected = formula(images, *noise)
    assert distance(found, expected) <= relative_bound_nearby(formula, images, *noise) * size(expected)


def test_it_computes_its_definition(network: LadderNetwork) -> None:
    images = torch.randn(8, 6, dtype=torch.float64)
    for which, compute in enumerate((network.classify_corrupted, network.reconstruct)):
        network.generator = torch.Generator().manual_seed(1)
        found = compute(images)
        network.generator = None  # a generator cannot be copied
        assert_defined(found, network, images, noises(1, 8), which)


def test_both_batches_at_once_are_normalized_apart(network: LadderNetwork) -> None:
    labeled, unlabeled = (torch.randn(n, 6, dtype=torch.float64) + n for n in (5, 8))
    network.generator = torch.Generator().manual_seed(2)
    logits, recon = network.forward_both(labeled, unlabeled)
    network.generator = None
    joint = noises(2, 13)
    assert_defined(logits, network, labeled, [noise[:5] for noise in joint], 0)
    assert_defined(recon, network, unlabeled, [noise[5:] for noise in joint], 1)


def test_the_clean_path_has_no_noise_and_the_measured_statistics(network: LadderNetwork) -> None:
    images = torch.randn(50, 6, dtype=torch.float64)
    network.measure(images)
    silence = [torch.zeros(50, width, dtype=torch.float64) for width in SIZES]
    assert_defined(network(images), network, images, silence, 0)
    # Each image by itself gives the same, so the statistics aren't those of a batch.
    alone = torch.cat([network(images[index : index + 1]) for index in range(50)])
    assert_defined(alone, network, images, silence, 0)


def test_every_parameter_learns(network: LadderNetwork) -> None:
    logits, recon = network.forward_both(torch.randn(8, 6).double(), torch.randn(8, 6).double())
    (logits.square().sum() + recon.square().sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # No parameter is a constant shift of a layer's output, which the norm above the layer would remove.
        assert parameter.grad.abs().max() > 0, name


class Calls(TorchDispatchMode):
    """A mode that counts operations by name, except those that only return a view."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.made[str(func.overloadpacket)] += 1
        return func(*args, **(kwargs or {}))


def row_by_row(value: Tensor, above: Tensor, a: Tensor) -> Tensor:
    """Return the combinator's estimate, with each vector taken by its index."""
    mean = a[0] * torch.sigmoid(a[1] * above + a[2]) + torch.addcmul(a[4], a[3], above)
    slope = a[5] * torch.sigmoid(a[6] * above + a[7]) + torch.addcmul(a[9], a[8], above)
    return torch.addcmul(mean, value - mean, slope)


def test_a_combinators_gradient_is_one_stack(network: LadderNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient is one stack, and not the sum of ten matrices of zeros with one row each. Its bits are the same."""

    def pass_and_back() -> tuple[Counter[str], list[Tensor | None]]:
        network.generator = torch.Generator().manual_seed(3)
        network.zero_grad()
        images = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        with Calls() as calls:
            network.reconstruct(images).square().sum().backward()
        return calls.made, [parameter.grad for parameter in network.parameters()]

    found, gradients = pass_and_back()
    monkeypatch.setattr(ladder, "combined", row_by_row)
    before, expected = pass_and_back()
    assert all(map(torch.equal, gradients, expected))
    layers = len(SIZES)
    assert before - found == {"aten.select_backward": 10 * layers, "aten.add": 9 * layers}
    assert found - before == {"aten.stack": layers}


def test_it_starts_as_the_authors_code_does() -> None:
    torch.manual_seed(0)
    network = LadderNetwork()
    assert [tuple(weight.shape) for weight in network.up] == [
        (1000, 784),
        (500, 1000),
        (250, 500),
        (250, 250),
        (250, 250),
        (10, 250),
    ]
    assert network.up[0].std().item() == pytest.approx(1 / math.sqrt(784), rel=0.01)
    assert network.down[0].std().item() == pytest.approx(1 / math.sqrt(1000), rel=0.01)
    starts = network.combinators[0][:, 0].tolist()
    assert starts == [0, 1, 0, 0, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("sizes", "noise", "message"), [((3,), 0.3, "sizes"), ((3, 0), 0.3, "sizes"), ((3, 2), -1, "noise")]
)
def test_impossible_networks_are_refused(sizes: tuple[int, ...], noise: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LadderNetwork(sizes, noise)
