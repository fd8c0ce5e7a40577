"""The models' batch norm equals torch's in everything but the count of steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.models import AutoEncoder, Conv, Generator, Mlp
from ebgan_fast.models.averaged import for_sampling
from ebgan_fast.models.batch_norm import BatchNorm1d, BatchNorm2d

PAIRS = [(BatchNorm1d, nn.BatchNorm1d, (6, 4)), (BatchNorm2d, nn.BatchNorm2d, (6, 4, 3, 5))]
STATISTICS = ("running_mean", "running_var")
CONV = Conv("(8)4c-(6)4c2s-(3)4c2s", "5", "(4)4c2s-(6)4c2s", "(4)4c2s-(3)4c2s")

NETS: dict[str, Callable[[], nn.Module]] = {
    "conv generator": lambda: CONV.generator((3, 16, 16)),
    "conv discriminator": lambda: CONV.discriminator((3, 16, 16)),
    "mlp generator": lambda: Mlp(z_dim=5, size_g=6).generator((1, 8, 8)),
    "mlp discriminator": lambda: Mlp(n_layer_d=4, size_d=6).discriminator((1, 8, 8)),
}


def run(norm: nn.Module, shape: tuple[int, ...], training: bool) -> list[Tensor]:
    """Return the outputs, gradients and statistics of three steps."""
    seeds = torch.Generator().manual_seed(0)
    norm.train(training)
    found = []
    for _ in range(3):
        inputs = torch.randn(shape, generator=seeds).requires_grad_()
        outputs = norm(inputs)
        outputs.square().mul(torch.randn(shape, generator=seeds)).sum().backward()
        assert inputs.grad is not None
        found += [outputs.detach(), inputs.grad]
    found += [parameter.grad for parameter in norm.parameters() if parameter.grad is not None]
    return found + [value.clone() for name in STATISTICS if (value := getattr(norm, name)) is not None]


def assert_equal(one: Iterable[Tensor], other: Iterable[Tensor]) -> None:
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def torchs_own(net: nn.Module) -> nn.Module:
    """Return a copy of a network with torch's batch norm."""
    plain = copy.deepcopy(net)
    norms = [module for module in plain.modules() if isinstance(module, BatchNorm1d | BatchNorm2d)]
    assert norms
    for module in norms:
        module.__class__ = nn.BatchNorm1d if isinstance(module, BatchNorm1d) else nn.BatchNorm2d
    return plain


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.3, "eps": 1e-2}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}],
    ids=str,
)
@pytest.mark.parametrize(("own", "torchs", "shape"), PAIRS)
def test_it_computes_what_torchs_does(own: Any, torchs: Any, shape: Any, options: Any, training: bool) -> None:
    one, other = own(4, **options), torchs(4, **options)
    assert_equal(run(one, shape, training), run(other, shape, training))
    if other.num_batches_tracked is not None:
        counts = training and one.momentum is None
        assert one.num_batches_tracked.item() == (3 if counts else 0)
        assert other.num_batches_tracked.item() == (3 if training else 0)


@pytest.mark.parametrize(("own", "torchs", "shape"), PAIRS)
def test_statistics_switched_off_later_stay_as_they_are(own: Any, torchs: Any, shape: Any) -> None:
    nets = own(4), torchs(4)
    for norm in nets:
        norm.track_running_stats = False
    for training in (True, False):
        assert_equal(*(run(norm, shape, training) for norm in nets))
    assert nets[0].running_mean.abs().max() == 0


@pytest.mark.parametrize("name", NETS)
def test_checkpoints_go_both_ways(name: str) -> None:
    net = NETS[name]()
    plain = torchs_own(net)
    for key, value in plain.state_dict().items():
        if "num_batches" in key:
            value += 7
    before, now = plain.state_dict(), copy.deepcopy(net.state_dict())
    assert [(key, value.shape, value.dtype) for key, value in now.items()] == [
        (key, value.shape, value.dtype) for key, value in before.items()
    ]
    net.load_state_dict(before)
    plain.load_state_dict(now)
    assert {value.item() for key, value in net.state_dict().items() if "num_batches" in key} == {7}


@pytest.mark.parametrize("name", ["conv generator", "mlp generator"])
def test_a_samplers_statistics_are_plain_means_of_a_counted_number(name: str) -> None:
    generator: Any = NETS[name]()
    plain: Any = torchs_own(generator)
    found = for_sampling(generator).state_dict()
    assert_equal(found.values(), for_sampling(plain).state_dict().values())
    assert {value.item() for key, value in found.items() if "num_batches" in key} == {20}


@pytest.mark.parametrize(("own", "torchs", "shape"), PAIRS)
def test_another_number_of_dimensions_is_refused_in_torchs_words(own: Any, torchs: Any, shape: Any) -> None:
    words = []
    for norm in (own(4), torchs(4)):
        with pytest.raises(ValueError, match="expected") as error:
            norm(torch.zeros(4))
        words.append(str(error.value))
    assert words[0] == words[1]


@pytest.mark.slow
def test_it_compiles_into_one_graph() -> None:
    net = AutoEncoder(4, 6, image_shape=(1, 4, 4))
    images = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    compiled = copy.deepcopy(net)
    compiled.compile(fullgraph=True, backend="aot_eager")
    assert_equal(net(images), compiled(images))
    assert_equal(net.buffers(), compiled.buffers())


def test_torch_converts_it_for_several_processes() -> None:
    net = Generator(3, 3, 6, (1, 4, 4))
    before = net.state_dict()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == 2
    assert_equal(converted.state_dict().values(), before.values())
