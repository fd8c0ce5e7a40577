from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import public_loop, train
from bench.__main__ import main
from bench.public_process import Begin
from ebgan_fast.ops import reference
from tests.rounding import distance, relative_bound_nearby, size

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads")

TINY = ("train", "--width", "0.05", "--batch-size", "4", "--rounds", "2", "--threads", "1", "--precision", "float32")


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_IMAGES", 16)
    monkeypatch.setattr(train, "keep_freed_memory", lambda: True)  # of the process that runs the tests


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
    shown = capsys.readouterr().out
    assert f"float32: {row['speedup']['float32']:.2f} times the public loop" in shown


@pytest.mark.parametrize("wrong", [train.PUBLIC, "ebgan_fast"])
def test_losses_that_differ_are_not_timed(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Off by 1 in 100,000, a hundred roundings of float32."""
    check = train.check_agreement

    def check_wrong(begin: Begin, found: dict[str, tuple[float, float]]) -> None:
        loss_d, loss_g = found[wrong]
        check(begin, {**found, wrong: (loss_d, 1.00001 * loss_g)})

    monkeypatch.setattr(train, "check_agreement", check_wrong)
    assert main([*TINY, "--out", str(tmp_path / "train.jsonl")]) == 1
    assert f"loss_g of the first step, {wrong}: got" in capsys.readouterr().err
    assert not (tmp_path / "train.jsonl").exists()


def test_the_cost_of_data_is_the_median_of_the_rounds_ratios() -> None:
    seconds = {"ebgan_fast float32": [1.0, 2.2, 3.0], train.CONSTANT: [1.0, 2.0, 1.0]}
    assert train._data_cost(seconds) == 1.1
    assert train._data_cost({train.CONSTANT: [1.0]}) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rounds", "0"), "rounds: got 0, expected at least 1"),
        (("--threads", "0"), "threads: got 0, expected at least 1"),
        (("--batch-size", "1"), "batch_size: got 1, expected at least 2"),
        (("--out", "/nowhere/at/all.jsonl"), "out: got /nowhere/at/all.jsonl"),
    ],
)
def test_numbers_that_cannot_be(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
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
    """What it is measured for: the generator's backward pass fills the discriminator's gradients too."""

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
