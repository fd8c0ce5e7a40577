"""A step with one pass refuses wrong arguments, and says what it got, what it expected and the way out."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast import EBGAN, one_pass_backward
from tests.two_passes import MARGIN, PT_WEIGHT, batches, gradients, networks


def _never(*_: object) -> Tensor:
    raise AssertionError("a loss was asked for")


class _Behind(nn.Module):
    """A discriminator whose forward pass uses copies of its parameters, as that of a sharded one does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.copies = net, [copy.deepcopy(net)]

    def forward(self, images: Tensor) -> Any:
        return self.copies[0](images)


def _refused(
    change: Callable[[dict[str, Any]], None], error: type[Exception], message: str
) -> tuple[Callable[[dict[str, Any]], None], type[Exception], str]:
    return change, error, message


REFUSED = {
    "a detached batch": _refused(
        lambda it: it.update(generated=it["generated"].detach()), ValueError, "generated: got a tensor without a graph"
    ),
    "a frozen discriminator": _refused(
        lambda it: it["discriminator"].requires_grad_(False),
        ValueError,
        "discriminator: got no parameter.*requires_grad_",
    ),
    "outputs without a graph": _refused(
        lambda it: it.update(discriminator=lambda images: images.detach()), ValueError, "outputs without a graph"
    ),
    "outputs of another kind": _refused(
        lambda it: it.update(discriminator=lambda images: {"recon": 2 * images}),
        TypeError,
        r"got dict, expected reconstructions, or \(reconstructions, codes\)",
    ),
    "three outputs": _refused(
        lambda it: it.update(discriminator=lambda images: (2 * images, images, None)),
        TypeError,
        "got tuple of Tensor, Tensor, NoneType, expected",
    ),
    "the generator for its output": _refused(
        lambda it: it.update(generated=networks()[1]),
        TypeError,
        r"generated: got Linear, expected the tensor.*G\(noise\)",
    ),
    "a batch for the discriminator": _refused(
        lambda it: it.update(discriminator=it["real"]), TypeError, "discriminator: got Tensor, expected a Module or"
    ),
    "no real samples": _refused(
        lambda it: it.update(real=None), TypeError, "real: got NoneType, expected a torch.Tensor"
    ),
    "names beside the parameters": _refused(
        lambda it: it.update(parameters=it["discriminator"].named_parameters()),
        TypeError,
        r"parameters: got tuple, expected tensors, such as D.parameters\(\)",
    ),
    "leaves that are not its own": _refused(
        lambda it: it.update(discriminator=_Behind(it["discriminator"])),
        ValueError,
        "its forward pass uses other leaves",
    ),
    "real and generated swapped": _refused(
        lambda it: it.update(generated=it["real"], real=it["generated"]), ValueError, "real samples come behind it"
    ),
    "a scale of 0": _refused(lambda it: it.update(scale=0), ValueError, "scale: got 0, expected a finite number other"),
    "a weight without a code": _refused(
        lambda it: it.update(discriminator=networks(with_code=False)[0]),
        ValueError,
        "pt_weight: got a tensor without a code",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_it_refuses(case: tuple[Callable[[dict[str, Any]], None], type[Exception], str]) -> None:
    change, error, message = case
    D, G = networks()
    noise, real = batches()
    arguments: dict[str, Any] = {"discriminator": D, "generated": G(noise), "real": real}
    change(arguments)
    step: Callable[..., object] = EBGAN(MARGIN, "l2", PT_WEIGHT).backward
    if "parameters" in arguments:
        step = functools.partial(one_pass_backward, discriminator_loss=_never, generator_loss=_never)
    with pytest.raises(error, match=message):
        step(**arguments)
    assert gradients(D) == []


@pytest.mark.parametrize("which", ["generator_loss", "discriminator_loss"])
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [(1.0, TypeError, "got float, expected the loss"), (torch.ones(()), ValueError, "got a loss without a graph")],
    ids=["a number", "a detached loss"],
)
def test_a_loss_that_is_none(which: str, given: object, error: type[Exception], message: str) -> None:
    D, G = networks(with_code=False)
    noise, real = batches()
    losses: dict[str, Any] = {
        "generator_loss": lambda recon, fake, upstream: recon.sum(),
        "discriminator_loss": lambda of_real, real, of_fake, fake, upstream: of_real.sum() + of_fake.sum(),
    }
    losses[which] = lambda *_: given
    with pytest.raises(error, match=f"{which}: {message}"):
        one_pass_backward(D, G(noise), real, **losses)


def test_a_game_is_not_called() -> None:
    with pytest.raises(
        TypeError, match=r"EBGAN: got a call, expected .discriminator\(...\), .generator\(...\) or .back"
    ):
        EBGAN(1.0)(torch.ones(2, 3))


def test_nothing_is_done_under_no_grad() -> None:
    D, G = networks()
    noise, real = batches()
    generated = G(noise)
    with torch.no_grad(), pytest.raises(ValueError, match="got a call under no_grad, expected gradients to be on"):
        EBGAN(MARGIN).backward(D, generated, real)


@pytest.mark.parametrize(
    "transform",
    [
        lambda step, noise: torch.func.grad(step)(noise),
        lambda step, noise: torch.func.vmap(step)(torch.stack([noise, noise])),
        lambda step, noise: torch.func.jvp(step, (noise,), (noise,)),
    ],
    ids=["grad", "vmap", "jvp"],
)
def test_a_step_is_no_function_to_transform(transform: Callable[..., object]) -> None:
    D, G = networks()
    noise, real = batches()
    message = r"backward: got a call inside a transform of torch.func .*expected one outside.*EBGAN.discriminator and"
    with pytest.raises(ValueError, match=message):
        transform(lambda it: EBGAN(MARGIN).backward(D, G(it), real).loss_g, noise)
    assert all(parameter.grad is None for net in (D, G) for parameter in net.parameters())
