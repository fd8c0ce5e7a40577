from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ebgan_fast.metrics import DigitClassifier, FrechetDistance, precision
from ebgan_fast.metrics.features import FeatureNet
from ebgan_fast.metrics.precision import without_tf32

HAS_SWITCHES = hasattr(torch.backends.cudnn, "conv")  # torch 2.9 and later, which don't want the older names mixed in


def states() -> list[object]:
    """Return the states of torch's switches for convolutions and products, on a GPU and on a CPU."""
    backends = torch.backends
    if not HAS_SWITCHES:
        return [backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32]
    places = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    return [place.fp32_precision for place in places]


def exact() -> list[object]:
    return ["ieee"] * 4 if HAS_SWITCHES else [False] * 2


def test_tf32_is_off_inside_and_as_it_was_after() -> None:
    """A program may have allowed tf32 in convolutions and in products, even by the older of torch's two ways."""
    before = states()
    assert before != exact()  # convolutions use tf32 by default
    with without_tf32():
        assert states() == exact()
    assert states() == before
    torch.set_float32_matmul_precision("high")
    try:
        allowed = states()
        with without_tf32():
            assert states() == exact()
        assert states() == allowed
        with pytest.raises(KeyError), without_tf32():
            raise KeyError
        assert states() == allowed
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has no such switch")
def test_a_cpus_products_are_in_full_float32() -> None:
    """The precision "medium" would otherwise let products use bfloat16, on processors that have it."""
    one, other = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0)).unbind()
    exact_product = one @ other
    mkldnn = torch.backends.mkldnn
    torch.set_float32_matmul_precision("medium")
    try:
        before = mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision
        assert before[0] == "bf16"
        with without_tf32():
            assert (mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision) == ("ieee", "ieee")
            assert torch.equal(one @ other, exact_product)
        assert (mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision) == before
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_versions_with_one_switch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn, matmul = SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=False)
    older = SimpleNamespace(backends=SimpleNamespace(cudnn=cudnn, cuda=SimpleNamespace(matmul=matmul)))
    monkeypatch.setattr(precision, "torch", older)
    with without_tf32():
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
    assert (cudnn.allow_tf32, matmul.allow_tf32) == (True, False)


def test_nets_that_judge_run_in_full_float32() -> None:
    seen: list[list[object]] = []

    def net(images: Tensor) -> Tensor:
        seen.append(states())
        return images.flatten(1).float()

    FeatureNet(net, "FD", "key", 4)(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    plain = torch.nn.Flatten()
    plain.register_forward_hook(lambda *_: seen.append(states()))
    with contextlib.suppress(TypeError):  # pixels aren't floating-point features
        FrechetDistance(plain).update(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), real=True)
    classifier = DigitClassifier((2, 2, 2))
    classifier.layers.register_forward_hook(lambda *_: seen.append(states()))
    classifier(torch.zeros(2, 28, 28))
    assert seen == [exact(), exact(), exact()]
