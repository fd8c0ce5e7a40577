"""The Modules return what the functions return, print their settings, and keep margins and weights in their state."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import ebgan_fast
from ebgan_fast import nn


def _batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(4, 1, 5, 5, generator=generator) for _ in range(4)]


def test_modules_equal_functions() -> None:
    recon_real, real, recon_fake, fake = _batches()
    code = recon_fake[:, :, :3]
    energy = nn.ReconstructionEnergy("l2")(recon_real, real)
    assert torch.equal(energy, ebgan_fast.reconstruction_energy(recon_real, real, norm="l2"))
    other = ebgan_fast.reconstruction_energy(recon_fake, fake, norm="l2")
    assert torch.equal(nn.HingeMarginLoss(2.0)(energy, other), ebgan_fast.hinge_margin_loss(energy, other, 2.0))
    assert torch.equal(nn.PullingAwayTerm()(code), ebgan_fast.pulling_away_term(code))
    for got, expected in (
        (
            nn.DiscriminatorLoss(2.0, "sse")(recon_real, real, recon_fake, fake),
            ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, 2.0, norm="sse"),
        ),
        (
            nn.GeneratorLoss(0.3, "l2")(recon_fake, fake, code),
            ebgan_fast.generator_loss(recon_fake, fake, code, pt_weight=0.3, norm="l2"),
        ),
    ):
        assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize(
    "call",
    [
        *(ebgan_fast.reconstruction_energy, ebgan_fast.discriminator_loss, ebgan_fast.generator_loss),
        *(nn.ReconstructionEnergy, nn.DiscriminatorLoss, nn.GeneratorLoss),
    ],
    ids=lambda call: call.__name__,
)
def test_the_norm_that_nobody_names_is_the_paper_s(call: Callable[..., object]) -> None:
    assert inspect.signature(call).parameters["norm"].default == "l2"


def test_a_schedule_sets_the_margin_between_steps() -> None:
    loss = nn.HingeMarginLoss(2.0)
    zeros = torch.zeros(3)
    assert loss(zeros, zeros).item() == 2.0
    loss.margin = torch.tensor(0.5)
    assert loss(zeros, zeros).item() == 0.5
    loss.margin.fill_(0.25)
    assert loss(zeros, zeros).item() == 0.25
    loss.margin = 0.125  # type: ignore[assignment]
    assert loss(zeros, zeros).item() == 0.125


def test_representations_name_the_settings() -> None:
    assert repr(nn.DiscriminatorLoss(10.0, "l2")) == "DiscriminatorLoss(margin=10.0, norm='l2')"
    assert repr(nn.GeneratorLoss(0.1, "l2")) == "GeneratorLoss(pt_weight=0.1, norm='l2')"


# For each Module with a margin or weight: a function that builds it, and the coefficient's name.
WITH_COEFFICIENT: dict[str, tuple[Callable[[Any], torch.nn.Module], str]] = {
    "HingeMarginLoss": (nn.HingeMarginLoss, "margin"),
    "DiscriminatorLoss": (nn.DiscriminatorLoss, "margin"),
    "GeneratorLoss": (nn.GeneratorLoss, "pt_weight"),
    "EBGAN, margin": (ebgan_fast.EBGAN, "margin"),
    "EBGAN, weight": (lambda weight: ebgan_fast.EBGAN(1.0, pt_weight=weight), "pt_weight"),
}
each_coefficient = pytest.mark.parametrize(("make", "name"), WITH_COEFFICIENT.values(), ids=WITH_COEFFICIENT.keys())
Make = Callable[[Any], torch.nn.Module]
ODD = 10.1  # neither float32 nor float16 holds this number exactly


@each_coefficient
@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.half(),
        lambda it: it.float(),
        lambda it: it.to(torch.bfloat16),
        lambda it: it.to("cpu", torch.float16),
        lambda it: it.type(torch.float32),
        lambda it: torch.nn.Sequential(it).half()[0],
    ],
    ids=["half", "float", "to a dtype", "to device and dtype", "type", "within another"],
)
def test_no_change_of_dtype_rounds_a_coefficient(
    make: Make, name: str, change: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    assert getattr(change(make(ODD)), name).item() == ODD
    given = make(torch.tensor(ODD))  # a given tensor keeps its dtype
    assert getattr(change(given), name).dtype == torch.float32
    trained = make(torch.nn.Parameter(torch.tensor(ODD)))
    getattr(trained, name).grad = torch.tensor(0.3)
    after = getattr(change(trained), name)
    assert isinstance(after, torch.nn.Parameter)
    assert (after.item(), after.grad.item()) == (torch.tensor(ODD).item(), torch.tensor(0.3).item())


@each_coefficient
def test_a_coefficient_follows_the_device(make: Make, name: str) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(1, 1), make(ODD)).to("meta", torch.float16)
    coefficient = getattr(module[1], name)
    assert (coefficient.device.type, coefficient.dtype) == ("meta", torch.float64)
    assert module[0].weight.dtype == torch.float16
    assert f"{name}=without a value" in repr(module)
    back = module.to_empty(device="cpu")
    back[1].load_state_dict(make(ODD).state_dict())
    assert getattr(back[1], name).item() == ODD


@pytest.mark.parametrize("dtypes", [(), (torch.float16,)], ids=["device", "device and dtype"])
def test_a_device_without_float64_gets_float32(
    dtypes: tuple[torch.dtype, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.Tensor.to

    def to_apple(tensor: torch.Tensor, *to: Any) -> torch.Tensor:
        if tensor.dtype == torch.float64 and not any(isinstance(it, torch.dtype) for it in to):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as MPS does not support float64.")
        return real(tensor, *to)

    loss = nn.HingeMarginLoss(ODD)
    monkeypatch.setattr(torch.Tensor, "to", to_apple)
    loss._apply(lambda tensor: tensor.to("cpu", *dtypes))
    assert torch.equal(loss.margin, torch.tensor(ODD))


def test_modules_within_a_game_of_ones_own_change_as_they_like() -> None:
    class Own(ebgan_fast.EBGAN):
        def __init__(self) -> None:
            super().__init__(ODD)
            self.layer = torch.nn.Linear(1, 1)

    game = Own().half()
    assert (game.layer.weight.dtype, game.margin.item()) == (torch.float16, ODD)


@each_coefficient
def test_a_coefficient_stands_in_the_state(make: Make, name: str) -> None:
    saved = io.BytesIO()
    torch.save(make(ODD).state_dict(), saved)
    saved.seek(0)
    other = make(1.0)
    before = getattr(other, name)
    other.load_state_dict(torch.load(saved))
    assert getattr(other, name) is before
    assert before.item() == ODD


@each_coefficient
def test_a_parameter_stays_one_and_is_trained(make: Make, name: str) -> None:
    parameter = torch.nn.Parameter(torch.tensor(0.7))
    module = make(parameter)
    assert dict(module.named_parameters()) == {name: parameter}
    assert f"{name}=0.69" in repr(module)
    assert "trained" in repr(module)
    recon_fake, fake, code = (batch.flatten(1) for batch in _batches()[:3])
    if name == "margin":
        zeros = torch.zeros(3)
        of_d = module.discriminator if isinstance(module, ebgan_fast.EBGAN) else module
        loss = of_d(zeros, zeros) if isinstance(module, nn.HingeMarginLoss) else of_d(zeros, zeros, zeros, zeros).loss
        expected = torch.tensor(1.0)  # every hinge is open
    else:
        of_g = module.generator if isinstance(module, ebgan_fast.EBGAN) else module
        loss = of_g(recon_fake, fake, code).loss
        expected = ebgan_fast.pulling_away_term(code)
    loss.backward()
    torch.testing.assert_close(parameter.grad, expected)


@each_coefficient
def test_what_is_assigned_is_checked(make: Make, name: str) -> None:
    module = make(1.0)
    for wrong, error, message in (
        (-1.0, ValueError, f"{name}: got -1.0, expected a finite number >= 0"),
        (torch.ones(2), ValueError, f"{name}: got a tensor of shape"),
        ("10", TypeError, f"{name}: got str"),
    ):
        with pytest.raises(error, match=message):
            setattr(module, name, wrong)
    with pytest.raises(TypeError, match=f"{name}: got NoneType"):
        setattr(module, name, None)
    setattr(module.to("meta"), name, 0.5)
    assert (getattr(module, name).device.type, getattr(module, name).dtype) == ("meta", torch.float64)
    setattr(module, name, torch.nn.Parameter(torch.tensor(0.5)))
    assert [it for it, _ in module.named_parameters()] == [name]
    assert name not in dict(module.named_buffers())
    with pytest.raises(TypeError, match=rf"{name}: got float for a Parameter.*module.{name}.fill_\(value\)"):
        setattr(module, name, 0.25)


@each_coefficient
def test_inference_mode_leaves_a_coefficient_that_can_be_trained_beside(make: Make, name: str) -> None:
    """A program may build Modules or set coefficients in inference mode, whose tensors can't be saved for backward."""
    assigned = make(1.0)
    with torch.inference_mode():
        built, given = make(0.5), make(torch.tensor(0.5))
        setattr(assigned, name, 0.5)
    for module in (built, given, assigned):
        coefficient = getattr(module, name)
        assert not coefficient.is_inference()
        assert coefficient.fill_(0.25) == 0.25


def test_an_assigned_margin_leaves_a_loss_that_waits_for_backward_alone() -> None:
    loss_of_d = nn.DiscriminatorLoss(2.0)
    recon = torch.rand(3, 4, requires_grad=True)
    loss = loss_of_d(recon, recon.detach() + 1, recon, recon.detach() + 1).loss
    loss_of_d.margin = 1.0  # type: ignore[assignment]
    loss.backward()
    assert recon.grad is not None


def test_a_weight_that_somebody_gave_asks_for_a_code() -> None:
    recon_fake, fake, *_ = _batches()
    for given in (0.5, torch.tensor(0.5)):
        for call in (nn.GeneratorLoss(given), ebgan_fast.EBGAN(1.0, pt_weight=given).generator):
            with pytest.raises(ValueError, match="pt_weight: got a tensor without a code"):
                call(recon_fake, fake)
    for left_out in (nn.GeneratorLoss(), nn.GeneratorLoss(0.0), ebgan_fast.EBGAN(1.0).generator):
        assert left_out(recon_fake, fake).pulling_away == 0
    later = nn.GeneratorLoss()
    later.pt_weight = 0.5  # type: ignore[assignment]
    with pytest.raises(ValueError, match="without a code"):
        later(recon_fake, fake)


def test_an_assigning_load_gives_no_weight_that_asks_for_a_code() -> None:
    recon_fake, fake, *_ = _batches()
    game = ebgan_fast.EBGAN(1.0)
    game.load_state_dict(ebgan_fast.EBGAN(2.0, pt_weight=0.3).state_dict(), assign=True)
    assert game.margin.item() == 2.0
    assert game.generator(recon_fake, fake).pulling_away == 0


@pytest.mark.parametrize("name", ["discriminator", "generator", "backward"])
def test_a_network_can_t_take_a_method_s_name(name: str) -> None:
    with pytest.raises(AttributeError, match=f"{name}: got Linear for a method of EBGAN, expected another name"):
        setattr(ebgan_fast.EBGAN(1.0), name, torch.nn.Linear(1, 1))


def test_copies_share_a_process_group_and_pickles_say_what_to_do(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        group = dist.group.WORLD
        code = torch.rand(3, 4)
        for module in (nn.PullingAwayTerm(group), nn.GeneratorLoss(0.25, "sse", group)):
            nested = torch.nn.Sequential(module)
            for copied in (copy.deepcopy(module), copy.copy(module), copy.deepcopy(nested)[0]):
                assert type(copied) is type(module)
                assert copied.process_group is group
                assert repr(copied) == repr(module)
            with pytest.raises(
                TypeError, match=r"got a process group to pickle.*state_dict\(\), or set .process_group"
            ):
                pickle.dumps(module)
            with pytest.raises(TypeError, match="got a process group to pickle"):
                torch.save(nested, io.BytesIO())
            module.process_group = None
            assert repr(pickle.loads(pickle.dumps(module))) == repr(module)
        weighed = nn.GeneratorLoss(0.25, process_group=group)
        copied = copy.deepcopy(weighed)
        copied.pt_weight.fill_(0.5)
        assert weighed.pt_weight.item() == 0.25
        assert torch.equal(nn.PullingAwayTerm(group)(code), ebgan_fast.pulling_away_term(code))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_a_schedule_in_place_compiles_nothing_anew() -> None:
    from torch._dynamo.testing import EagerAndRecordGraphs

    compiler = EagerAndRecordGraphs()
    game = ebgan_fast.EBGAN(2.0)
    compiled = torch.compile(game.discriminator, fullgraph=True, backend=compiler)
    batch = torch.rand(3, 4)
    for margin in (2.0, 0.5, 0.25):
        game.margin.fill_(margin)
        assert compiled(batch, batch, batch, batch).loss.item() == margin
    assert len(compiler.graphs) == 1
