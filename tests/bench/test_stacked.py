from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.__main__ import main
from bench.commands import stacked
from ebgan_fast.data import TensorImages

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads")


def test_a_tiny_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stacked, "SHAPES", ((2, 2, 8, 8),))
    out = tmp_path / "stacked.jsonl"
    assert main(["stacked", "--rounds", "2", "--threads", "1", "--out", str(out)]) == 0
    row = json.loads(out.read_text())
    assert row["seconds"].keys() == {stacked.APART, stacked.STACKED}
    assert (row["configurations"], row["n_layer_g"], row["size_g"], row["size_d"]) == (2, 2, 8, 8)
    assert capsys.readouterr().out.splitlines()[1].endswith(f"{row['ratio']:.2f}x")


@pytest.mark.parametrize("off", [1e-5, float("nan")])
def test_losses_that_differ_are_not_timed(off: float, monkeypatch: pytest.MonkeyPatch) -> None:
    images = TensorImages(torch.randint(0, 256, (70, 1, 32, 32), dtype=torch.uint8))
    stack = stacked.Stack(2, 2, 8, 8, images)
    real, noise = torch.rand(64, 1, 32, 32), torch.randn(2, 64, 100)
    stacked.check(stack, real, noise)
    right = stack.backward
    monkeypatch.setattr(stack, "backward", lambda *batch: right(*batch) * torch.tensor([1.0, 1.0 + off]))
    with pytest.raises(ValueError, match="loss of configuration 1: got"):
        stacked.check(stack, real, noise)


def test_a_step_changes_all_networks() -> None:
    images = TensorImages(torch.randint(0, 256, (70, 1, 32, 32), dtype=torch.uint8))
    stack = stacked.Stack(2, 2, 8, 8, images)
    before = {name: value.detach().clone() for name, value in stack.weights_g.items()}
    stack.step()
    assert all((value != before[name]).flatten(1).any(1).all() for name, value in stack.weights_g.items())
