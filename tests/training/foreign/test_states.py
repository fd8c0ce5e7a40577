"""Tests of checkpoints with values that no run writes: they take no more memory than their size, and end in one
sentence.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ebgan_fast import cli
from ebgan_fast.models import Conv
from ebgan_fast.training import CheckpointError, TrainConfig, load_generator, train
from ebgan_fast.training.config import to_dict
from ebgan_fast.training.run import checkpoint

from ...limited_memory import needs_linux
from ...programs import printed
from .conftest import Refusal

pytestmark = needs_linux

State = dict[str, Any]
Edit = Callable[[State], object]


def edited(run: Path, edit: Edit) -> None:
    path = run / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


def networks(**values: Any) -> Edit:
    return lambda state: state["config"]["networks"].update(values)


def trainer(**values: Any) -> Edit:
    return lambda state: state["trainer"].update(values)


def conv(**values: str) -> Edit:
    layers = {"generator_layers": "(8)4c-(1)4c2s", "noise_planes": "4", "encoder_layers": "(2)4c2s"}
    built = Conv(**{**layers, "decoder_layers": "(1)4c2s", **values})
    return lambda state: state["config"].update(networks={"family": "conv", **dataclasses.asdict(built)})


def stretched(state: State) -> None:
    """Put in a weight of 4 TB, of which the file holds a single number."""
    weights = state["trainer"]["generator"]
    name = next(name for name, value in weights.items() if value.dim() == 2)
    weights[name] = torch.zeros(1, 1).expand(10**6, 10**6)
    state["config"]["networks"].update(size_g=10**6, z_dim=10**6)


ODD: dict[str, tuple[Edit, str]] = {
    "a size that no tensor has": (networks(size_g=10**6), "generator.layers.0.weight: got float32 [16, 4]"),
    "noise that no tensor has": (networks(z_dim=10**12), "without a fitting generator"),
    "a size beyond torch's": (networks(size_g=10**30), "without a fitting generator"),
    "a million layers": (networks(n_layer_g=10**6), "got 1000000 layers in the generator, expected 3"),
    "another family": (conv(), "got 2 layers in the generator, expected 3"),
    "a weight of one number for all": (stretched, "a tensor of shape [1000000, 1000000] in a storage of 1 numbers"),
    "images of a terabyte": (lambda state: state.update(image_shape=[1, 10**6, 10**6]), "image_shape: got"),
    "images of no size": (lambda state: state.update(image_shape=[1, 0, 32]), "image_shape: got"),
    "images of two sizes": (lambda state: state.update(image_shape=[32, 32]), "image_shape: got 2 values"),
    "a shape of words": (lambda state: state.update(image_shape=["1", "32", "32"]), "image_shape.0: got str"),
    "no shape": (lambda state: state.pop("image_shape"), "image_shape"),
    "no trainer": (lambda state: state.pop("trainer"), "trainer"),
    "a trainer of nothing": (lambda state: state.update(trainer=None), "without a fitting generator"),
    "weights in a list": (trainer(generator=[1, 2]), "without a fitting generator"),
    "weights of words": (trainer(generator={"layers.0.weight": "x"}), "without a fitting generator"),
    "no weights": (trainer(generator={}), "got 3 layers in the generator, expected 0"),
    "an average of one number": (trainer(average=[torch.zeros(())] * 8), "average.0: got float32 []"),
    "a short average": (trainer(average=[]), "average: got 0 values"),
    "a step before the first": (trainer(step=-1), "step: got -1"),
    "a step of words": (trainer(step="2"), "step: got str"),
    "a step that is a bool": (trainer(step=True), "step: got bool"),
    "a half step": (trainer(step=0.5), "step: got a number"),
    "no config": (lambda state: state.pop("config"), "config"),
    "a config in a list": (lambda state: state.update(config=[1]), "got a config of type list"),
    "signs that move a cursor": (networks(**{"\x1b[2J": 1, "size_g": 10**6}), "without a fitting generator"),
    "a name of a megabyte": (lambda state: state["trainer"]["generator"].update({"x" * 2**20: torch.zeros(2, 2)}), ""),
}


@pytest.mark.parametrize("name", ODD)
def test_a_state_that_no_run_writes(name: str, run: Path, refusal: Refusal) -> None:
    edit, told = ODD[name]
    edited(run, edit)
    assert told in refusal()


def test_convolutions_are_held_against_their_tensors(run: Path, refusal: Refusal) -> None:
    """Convolutions are compared with their tensors: a wide convolution has few layers, and its weights don't show its
    stride.
    """
    edited(run, conv(generator_layers="(100000)4c-(100000)4c4s-(1)4c2s"))
    assert "generator: got" in refusal()


def smaller_moments(state: State) -> None:
    """Make moments shorter than their weight. torch's fused kernel would read and write past their end."""
    moments = state["trainer"]["optimizer_g"]["state"][0]
    moments["exp_avg"] = moments["exp_avg"][:1, :1].clone()


RESUMED: dict[str, tuple[Edit, str]] = {
    "smaller moments": (smaller_moments, "state.0.exp_avg: got float32 [1, 1], expected float32 [16, 4]"),
    "moments of words": (lambda state: state["trainer"]["optimizer_d"].update(state={0: "x"}), "state: got"),
    "a rate of words": (lambda state: state["trainer"]["optimizer_d"]["param_groups"][0].update(lr="x"), "lr: got str"),
    "no optimizer": (lambda state: state["trainer"].pop("optimizer_g"), "optimizer_g"),
    "a random state of one byte": (trainer(torch_rng=torch.zeros(1, dtype=torch.uint8)), "torch_rng: got uint8 [1]"),
    "a noise of floats": (trainer(noise_rng=torch.zeros(5056)), "noise_rng: got float32"),
    "statistics of one number": (trainer(statistics=torch.zeros(())), "statistics: got float32 []"),
    "a margin of words": (trainer(margin="10"), "margin: got str"),
    "a time of words": (lambda state: state.update(elapsed_s="1"), "elapsed_s: got str"),
    "batches of another run": (lambda state: state["trainer"]["batches"].update(seed=7), "seed 7, expected 0"),
    "a place of words": (
        lambda state: state["trainer"]["batches"].update(position="x"),
        "got a state that doesn't fit",
    ),
    "weights of another size": (
        lambda state: state["trainer"]["discriminator"].update({"decoder.bias": torch.zeros(3)}),
        "discriminator.decoder.bias: got float32 [3]",
    ),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_goes_on_from_it(name: str, trained: tuple[Path, TrainConfig], run: Path, no_curves: None) -> None:
    edit, told = RESUMED[name]
    edited(run, edit)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        train(dataclasses.replace(trained[1], out=run, steps=4), resume=True)
    text = str(caught.value)
    assert text.startswith(f"{run / 'checkpoint.pt'}: got a state that doesn't fit (")
    assert told in text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == before


def test_options_of_a_foreign_optimizer_are_not_taken(
    trained: tuple[Path, TrainConfig], run: Path, tmp_path: Path, no_curves: None
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    options = {"amsgrad": True, "maximize": True, "weight_decay": 0.5, "eps": 1.0, "betas": (0.0, 0.0)}
    edited(other, lambda state: state["trainer"]["optimizer_g"]["param_groups"][0].update(options))
    weights = []
    for folder in (run, other):
        train(dataclasses.replace(trained[1], out=folder, steps=4), resume=True)
        weights.append(checkpoint.read(folder / "checkpoint.pt")["trainer"]["generator"])
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())


@pytest.mark.parametrize("command", ["sample", "evaluate", "report", "train"])
def test_every_command_says_it_in_one_line(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], digits_folder: Path
) -> None:
    edited(run, networks(size_g=10**6))
    given = {
        "sample": [str(run), str(tmp_path / "grid.png")],
        "train": ["--out", str(run), "--data", str(digits_folder), "--resume", "--device", "cpu"],
    }
    capsys.readouterr()
    assert cli.main([command, *given.get(command, [str(run)])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ebgan-fast: {run / 'checkpoint.pt'}: ")
    assert not (tmp_path / "grid.png").exists()


def test_a_checkpoint_as_it_was_written_still_loads(trained: tuple[Path, TrainConfig], run: Path) -> None:
    loaded = load_generator(run / "checkpoint.pt")
    assert loaded.step == 2
    assert to_dict(loaded.config) == to_dict(dataclasses.replace(trained[1], out=trained[0]))
    edited(run, lambda state: None)  # written by torch alone
    again = load_generator(run / "checkpoint.pt")
    noise = torch.randn(3, 4)
    assert torch.equal(again.generator(noise), loaded.generator(noise))


@pytest.mark.slow
def test_no_compiler_is_imported_for_it(run: Path) -> None:
    """Loading imports no compiler. torch does import one when it draws weights on the meta device, which takes two
    seconds.
    """
    program = (
        "import sys; from ebgan_fast.training import load_generator; load_generator(sys.argv[1]); "
        "print([name for name in ('torch._inductor', 'torch._dynamo') if name in sys.modules])"
    )
    assert printed(program, str(run / "checkpoint.pt")) == "[]\n"
