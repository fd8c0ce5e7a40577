"""Both updates of an EBGAN with one pass of the discriminator over the generated batch.

Neither update depends on the other: each uses the other network as it was before the step. So one pass of the
discriminator over the generated batch serves both updates. A step takes 10 passes of one network over one batch, and
the usual loop takes 12. The two passes saved are a forward pass of the discriminator, and the gradient of the
generator's loss to the discriminator's weights, which nothing uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from . import _checks, functional
from ._coefficients import WithWeight
from .functional import Norm
from .ops.detours import in_transform
from .ops.tensors import Coefficient, without_autocast
from .results import DiscriminatorResult, GameResult, GeneratorResult

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["EBGAN", "Scaler", "one_pass_backward"]

_Outputs = TypeVar("_Outputs")
_Real = TypeVar("_Real")
_ResultD = TypeVar("_ResultD")
_ResultG = TypeVar("_ResultG")


class Scaler(Protocol):
    """The interface of a loss scaler, such as `torch.amp.GradScaler`.

    Example:
        >>> import torch, ebgan_fast
        >>> scaler: ebgan_fast.game.Scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        >>> scaler.scale(torch.ones(()))
        tensor(8.)
    """

    def scale(self, outputs: Tensor, /) -> Tensor:
        """Return the loss times the scale.

        Args:
            outputs: the loss.
        """


class EBGAN(WithWeight):
    """The losses of an Energy-Based GAN, with the margin, norm and weight set once for both.

    `backward` computes a whole step with one pass of the discriminator over the generated batch. `discriminator` and
    `generator` compute one loss each.

    EBGAN is a Module, and its margin and weight are 0-d buffers. They move with the Module's device, and `.half()` and
    similar calls never round them. They are in `state_dict`. A schedule changes them between steps, in place
    (`game.margin.fill_(5.0)`) or by assignment. A Parameter that is given for one of them stays a Parameter, and is
    trained. With several processes, each process computes its own gradient of that Parameter: average it yourself.

    Args:
        margin: m >= 0 in units of the energy: a number, a 0-d tensor, or a Parameter (equation 1). The sign of a tensor
            is not checked. A number becomes a float64 tensor, or float32 on a device without float64.
        norm: the kind of energy: "l2", "sse", "mse" or "l1". See `reconstruction_energy` (equation 13).
        pt_weight: weight >= 0 of the pulling-away term: a number, a 0-d tensor, or a Parameter (equation 14). None: the
            paper's 0.1 with a code, and no term without a code. If you give a weight other than 0, each step needs a
            code.

    Raises:
        ValueError: if the margin or weight is negative or not 0-d, or the norm is unknown.
        TypeError: if the margin or weight is neither a number nor a floating-point tensor.

    Example:
        >>> import torch, ebgan_fast
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> game = ebgan_fast.EBGAN(margin=10.0)
        >>> D, G = nn.Linear(64, 64), nn.Linear(8, 64)
        >>> optimizer_d, optimizer_g = torch.optim.Adam(D.parameters()), torch.optim.Adam(G.parameters())
        >>> for _ in range(3):
        ...     optimizer_d.zero_grad()
        ...     optimizer_g.zero_grad()
        ...     result = game.backward(D, G(torch.randn(16, 8)), torch.rand(16, 64))
        ...     optimizer_d.step()
        ...     optimizer_g.step()
        >>> result.energy_fake.shape
        torch.Size([16])
    """

    margin: Tensor

    def __init__(self, margin: Coefficient, norm: Norm = "l2", pt_weight: Coefficient | None = None) -> None:
        super().__init__()
        _checks.check_norm(norm)
        self._register_coefficient("margin", margin)
        self._register_weight(pt_weight)
        self.norm = norm

    def discriminator(
        self, recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor, *, upstream: Coefficient | None = None
    ) -> DiscriminatorResult:
        """Return the discriminator's loss with its energies: `functional.discriminator_loss` (equation 1).

        Args:
            recon_real: [N, ...] reconstructions of the real samples.
            real: [N, ...] real samples.
            recon_fake: [M, ...] reconstructions of the generated samples.
            fake: [M, ...] generated samples, detached.
            upstream: the gradient that the loss will get in backward, if you know it. See
                `functional.discriminator_loss`.

        Raises:
            ValueError, TypeError: as `functional.discriminator_loss` does.
        """
        batches = recon_real, real, recon_fake, fake
        return functional.discriminator_loss(*batches, self.margin, norm=self.norm, upstream=upstream)

    def generator(
        self,
        recon_fake: Tensor,
        fake: Tensor,
        code: Tensor | None = None,
        *,
        upstream: Coefficient | None = None,
        process_group: ProcessGroup | None = None,
    ) -> GeneratorResult:
        """Return the generator's loss with its energies and pulling-away term: `functional.generator_loss`.

        Equations 2 and 14.

        Args:
            recon_fake: [N, ...] reconstructions of the generated samples.
            fake: [N, ...] generated samples, not detached.
            code: [N, ...] the encoder's output for the generated samples. None: an EBGAN without the pulling-away term.
            upstream: the gradient that the loss will get in backward, if you know it. See
                `functional.discriminator_loss`.
            process_group: take the pulling-away term over all ranks of this group, each with the same N.

        Raises:
            ValueError, TypeError, RuntimeError: as `functional.generator_loss` does.
        """
        weight = self._weight_for(code)
        return functional.generator_loss(
            recon_fake, fake, code, pt_weight=weight, norm=self.norm, upstream=upstream, process_group=process_group
        )

    def backward(
        self,
        discriminator: Callable[[Tensor], Tensor | tuple[Tensor, Tensor]],
        generated: Tensor,
        real: Tensor,
        *,
        scaler: Scaler | None = None,
        process_group: ProcessGroup | None = None,
        scale: Coefficient = 1.0,
    ) -> GameResult:
        """Add both updates' gradients to `.grad`, with one pass of the discriminator over the generated batch.

        The gradients are those of two separate backward passes with the same weights. The discriminator gets none from
        the generator's loss. Both passes of the discriminator run under the caller's autocast, and the losses and
        backward passes run without autocast. Nothing waits for the device, except in a process group's first step on a
        GPU.

        Args:
            discriminator: the auto-encoder, which returns reconstructions, or (reconstructions, codes) for the
                pulling-away term. To leave the codes out, pass `lambda images: D(images)[0]`. With a Module, its own
                parameters get gradients. With another callable, every leaf that it uses gets a gradient.
            generated: [M, ...], the generator's output with its graph.
            real: [N, ...] real samples.
            scaler: a GradScaler. The gradients are multiplied by its scale: step both optimizers with it.
            process_group: take the pulling-away term over all ranks of this group, each with the same M.
            scale: a factor of the gradients, but not of the returned losses: a number other than 0, or a 0-d tensor. If
                you split a batch into parts, give this part's share of the batch.

        Returns:
            Both losses, the energies and the pulling-away term, without a gradient. Under a process group the energies
            are of this process's samples, and the term is of all processes' samples. The average of a loss over
            processes is the loss of the whole batch.

        Raises:
            ValueError: if the generated batch has no graph, the discriminator has no parameter to train, or the call is
                inside no_grad or a transform of torch.func. Also as `discriminator` and `generator` do.
            TypeError: if the arguments are in another order, or the discriminator's output has another type.
            RuntimeError: with a process group, as `functional.pulling_away_term` does.

        Example:
            >>> import torch, ebgan_fast
            >>> _ = torch.manual_seed(0)
            >>> D, G = torch.nn.Linear(4, 4), torch.nn.Linear(2, 4)
            >>> game = ebgan_fast.EBGAN(margin=10.0)
            >>> result = game.backward(D, G(torch.randn(3, 2)), torch.randn(5, 4))
            >>> D.weight.grad.shape, G.weight.grad.shape
            (torch.Size([4, 4]), torch.Size([4, 2]))
        """

        if not isinstance(real, Tensor):  # checked before the generator gets its gradients
            raise TypeError(f"real: got {type(real).__name__}, expected a torch.Tensor")

        def generator_loss(outputs: Any, fake: Tensor, upstream: Coefficient) -> GeneratorResult:
            recon, code = _recon_and_code(outputs)
            return self.generator(recon, fake, code, upstream=upstream, process_group=process_group)

        def discriminator_loss(
            of_real: Any, real: Tensor, of_fake: Any, fake: Tensor, upstream: Coefficient
        ) -> DiscriminatorResult:
            recons = _recon_and_code(of_real)[0], _recon_and_code(of_fake)[0]
            return self.discriminator(recons[0], real, recons[1], fake, upstream=upstream)

        of_d, of_g = one_pass_backward(
            discriminator,
            generated,
            real,
            discriminator_loss=discriminator_loss,
            generator_loss=generator_loss,
            trained=(self.margin, self.pt_weight),
            scaler=scaler,
            scale=scale,
        )
        return GameResult(of_d.loss, of_g.loss, of_d.energy_real, of_d.energy_fake, of_g.pulling_away)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module) and name in ("discriminator", "generator", "backward"):
            raise AttributeError(
                f"{name}: got {type(value).__name__} for a method of EBGAN, expected another name for it"
            )
        super().__setattr__(name, value)

    def forward(self, *arguments: object, **options: object) -> NoReturn:
        """Raise a TypeError: call `discriminator`, `generator` or `backward` instead.

        Args:
            arguments: ignored.
            options: ignored.

        Raises:
            TypeError: always.
        """
        raise TypeError("EBGAN: got a call, expected .discriminator(...), .generator(...) or .backward(...)")

    def extra_repr(self) -> str:
        return f"{self._shown('margin')}, norm={self.norm!r}, {self._shown('pt_weight')}"


def one_pass_backward(
    discriminator: Callable[[Any], _Outputs],
    generated: Tensor,
    real: _Real,
    *,
    discriminator_loss: Callable[[_Outputs, _Real, _Outputs, Tensor, Coefficient], _ResultD],
    generator_loss: Callable[[_Outputs, Tensor, Coefficient], _ResultG],
    parameters: Iterable[Tensor] | None = None,
    trained: Iterable[Tensor] = (),
    scaler: Scaler | None = None,
    scale: Coefficient = 1.0,
) -> tuple[_ResultD, _ResultG]:
    """Add the gradients of any two losses to `.grad`, with one pass of the discriminator over the generated batch.

    `EBGAN.backward` calls this function with the EBGAN's losses. The gradients are those of two separate backward
    passes with the same weights. The discriminator's passes run under the caller's autocast, and the losses and
    backward passes run without autocast.

    Args:
        discriminator: called with the generated batch and with `real`. It returns a tensor, or tensors in tuples, lists
            or dicts.
        generated: [M, ...], the generator's output with its graph.
        real: the discriminator's input of real samples, usually a tensor.
        discriminator_loss: a function of five arguments: the discriminator's outputs for real samples, `real`, the
            discriminator's outputs for the generated batch, that batch, and the gradient that the loss will get
            (`upstream` of this package's losses). It returns the loss, or a tuple whose first element is the loss.
        generator_loss: a function of three arguments: the discriminator's outputs for the generated batch, that batch,
            and the gradient that the loss will get. It returns the same as `discriminator_loss`. Its gradient goes to
            these tensors and to `trained`, and to nothing else that it uses. For a penalty on the generator's weights,
            call `backward` on the penalty separately.
        parameters: the tensors that get the gradient of the discriminator's loss. None: the parameters of a
            discriminator that is a Module, or every leaf that another callable uses.
        trained: further tensors whose leaves get the gradients of both losses, such as a margin that is a Parameter, or
            is computed from one.
        scaler: a GradScaler. The gradients are multiplied by its scale.
        scale: a factor of the gradients, but not of the results: a number other than 0, or a 0-d tensor.

    Returns:
        The results of `discriminator_loss` and `generator_loss`, in this order, detached.

    Raises:
        ValueError: if the generated batch, the outputs or a loss have no graph, or there is no parameter to train. Also
            if the scale is 0, or the call is inside no_grad or a transform of torch.func.
        TypeError: if a loss is no tensor, or the arguments are in another order.

    Example:
        >>> import torch, ebgan_fast
        >>> from torch.nn.functional import softplus
        >>> _ = torch.manual_seed(0)
        >>> D, G = torch.nn.Linear(4, 1), torch.nn.Linear(2, 4)
        >>> loss_d, loss_g = ebgan_fast.one_pass_backward(  # a plain GAN
        ...     D, G(torch.randn(3, 2)), torch.randn(3, 4),
        ...     discriminator_loss=lambda of_real, real, of_fake, fake, upstream:
        ...         softplus(-of_real).mean() + softplus(of_fake).mean(),
        ...     generator_loss=lambda logits, fake, upstream: softplus(-logits).mean(),
        ... )
        >>> D.weight.grad.shape, loss_d.requires_grad
        (torch.Size([1, 4]), False)
    """
    _check(discriminator, generated)
    trained = _leaves(trained)
    inputs = _inputs(discriminator, parameters, trained)
    # A view and not a leaf, because torch refuses a gradient to a leaf that hooks wait for, such as those that count
    # FLOPs.
    fake = generated.detach().requires_grad_().view_as(generated)
    of_fake = discriminator(fake)
    upstream = _upstream((of_fake, fake), generated, scaler, scale)
    with without_autocast(generated.device):
        result_g, gradient = _gradient_to(fake, of_fake, generator_loss, trained, upstream)
        # The generator's backward pass runs before the discriminator's pass over real samples, to free the generator's
        # maps. The other order would raise the peak of celeba64 by a quarter (262 to 328 MB in batches of 64).
        generated.backward(gradient)
    of_real = discriminator(real)
    with without_autocast(generated.device):
        result_d = discriminator_loss(of_real, real, of_fake, fake.detach(), upstream)
        loss = _loss_of(result_d, "discriminator_loss")
        # With the weights named, autograd doesn't compute the gradient to the generated batch, which is also in the
        # graph.
        torch.autograd.backward(loss, _for(loss, upstream), inputs=inputs)
    if inputs is not None and all(leaf.grad is None for leaf in inputs):
        raise ValueError(
            "discriminator: got no gradient to its own parameters, expected some: its forward pass uses other leaves. "
            "Pass it as a function, lambda images: D(images), whose gradients go to every leaf"
        )
    return _detached(result_d), _detached(result_g)


def _check(discriminator: object, generated: object) -> None:
    if not torch.is_grad_enabled():
        raise ValueError("backward: got a call under no_grad, expected gradients to be on")
    if in_transform():
        raise ValueError(
            "backward: got a call inside a transform of torch.func (vmap, grad, jvp), expected one outside, as it adds "
            "to .grad. Inside, take the gradients of the losses alone: EBGAN.discriminator and EBGAN.generator"
        )
    if not callable(discriminator):
        raise TypeError(f"discriminator: got {type(discriminator).__name__}, expected a Module or a function of images")
    if getattr(discriminator, "static_graph", False):
        raise ValueError(
            "discriminator: got DistributedDataParallel with static_graph=True, expected it without: it would exchange "
            "gradients before there are any"
        )
    if not isinstance(generated, Tensor):
        raise TypeError(
            f"generated: got {type(generated).__name__}, expected the tensor that the generator returned: "
            "(D, G(noise), real), in this order"
        )
    if not generated.requires_grad:
        raise ValueError(
            "generated: got a tensor without a graph, expected the generator's output, not detached and not made under "
            "no_grad; real samples come behind it"
        )


def _leaves(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return the leaves that the tensors were computed from, each once. A tensor that is a leaf is its own leaf."""
    wanting = [tensor for tensor in tensors if tensor.requires_grad]
    leaves = {id(tensor): tensor for tensor in wanting if tensor.is_leaf}
    waiting, seen = [tensor.grad_fn for tensor in wanting], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        # Recognized by name, because torch has no public class for it. A node of a user's own Function may also have an
        # attribute `variable`.
        if type(node).__name__ == "AccumulateGrad":
            leaf: Tensor = node.variable  # type: ignore[attr-defined]
            leaves[id(leaf)] = leaf
        waiting.extend(following for following, _ in node.next_functions)
    return list(leaves.values())


def _inputs(discriminator: object, parameters: Iterable[Tensor] | None, trained: list[Tensor]) -> list[Tensor] | None:
    """Return the leaves that get the gradient of the discriminator's loss, or None for all leaves of the graph."""
    if parameters is None:
        if not isinstance(discriminator, nn.Module) or type(discriminator).__name__ == "FullyShardedDataParallel":
            return None
        parameters = list(discriminator.parameters())
        # Sharded parameters are not the leaves of the graph.
        if any(type(parameter) is not nn.Parameter for parameter in parameters):
            return None
    wanted = []
    for parameter in parameters:
        if not isinstance(parameter, Tensor):
            raise TypeError(f"parameters: got {type(parameter).__name__}, expected tensors, such as D.parameters()")
        if parameter.requires_grad:
            wanted.append(parameter)
    if not wanted:
        raise ValueError(
            "discriminator: got no parameter that requires a gradient, expected some to train (requires_grad_(True) "
            "undoes a freeze, which one pass for both updates does not need)"
        )
    return wanted + [leaf for leaf in trained if not any(leaf is parameter for parameter in wanted)]


def _upstream(tensors: object, beside: Tensor, scaler: Scaler | None, scale: Coefficient) -> Coefficient:
    """Return the gradient that both losses get: 1.0, or a 0-d tensor if there is a scaler or a scale.

    The tensor is float64 if one of `tensors` is, as the losses then are, else float32.
    """
    meaning = "the share of the batch that these samples are, such as 1/k for one of k parts"
    scale = _checks.factor("scale", scale, meaning, beside)
    is_scaled = scaler is not None and getattr(scaler, "is_enabled", lambda: True)()
    if not is_scaled and not isinstance(scale, Tensor) and scale == 1:
        return 1.0
    is_double = any(isinstance(it, Tensor) and it.dtype == torch.float64 for it in _pytree.tree_leaves(tensors))
    upstream = torch.ones((), dtype=torch.float64 if is_double else torch.float32, device=beside.device)
    upstream = upstream * (scale.to(upstream) if isinstance(scale, Tensor) else scale)
    return scaler.scale(upstream) if is_scaled and scaler is not None else upstream


def _gradient_to(
    fake: Tensor,
    outputs: _Outputs,
    generator_loss: Callable[[_Outputs, Tensor, Coefficient], _ResultG],
    trained: list[Tensor],
    upstream: Coefficient,
) -> tuple[_ResultG, Tensor]:
    """Return the result of `generator_loss`, and the gradient of its loss to the generated batch.

    The discriminator's graph is kept, because the discriminator's loss needs it too. The loss gets a separate graph
    that is freed after one use: an op whose graph is freed returns its gradients themselves, without a copy.
    """
    leaves, structure = _pytree.tree_flatten(outputs)
    reachable = [number for number, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not reachable:
        raise ValueError(
            "discriminator: got outputs without a graph, expected ones that depend on its input, not detached and not "
            "made under no_grad"
        )
    ends = list(leaves)
    for number in reachable:
        ends[number] = leaves[number].detach().requires_grad_()
    target = fake.detach().requires_grad_()
    result = generator_loss(_pytree.tree_unflatten(ends, structure), target, upstream)
    loss = _loss_of(result, "generator_loss")
    if trained:
        torch.autograd.backward(loss, _for(loss, upstream), retain_graph=True, inputs=trained)
    *to_ends, to_target = torch.autograd.grad(
        loss, [*(ends[number] for number in reachable), target], _for(loss, upstream), allow_unused=True
    )
    reached = [(leaves[number], given) for number, given in zip(reachable, to_ends, strict=True) if given is not None]
    through = None
    if reached:
        outputs_reached, given = zip(*reached, strict=True)
        (through,) = torch.autograd.grad(outputs_reached, fake, given, retain_graph=True, allow_unused=True)
    if through is None or to_target is None:
        gradient = to_target if through is None else through
        return result, torch.zeros_like(fake) if gradient is None else gradient
    return result, through + to_target


def _loss_of(result: object, name: str) -> Tensor:
    loss = result[0] if isinstance(result, tuple) and result else result
    if not isinstance(loss, Tensor):
        raise TypeError(f"{name}: got {type(loss).__name__}, expected the loss, or a tuple that begins with it")
    if not loss.requires_grad:
        raise ValueError(f"{name}: got a loss without a graph, expected one of the tensors that it is called with")
    return loss


def _for(loss: Tensor, upstream: Coefficient) -> Tensor | None:
    """Return the gradient to a loss in the form that autograd takes: a tensor of the loss's dtype, or None for 1."""
    return upstream.to(loss.dtype) if isinstance(upstream, Tensor) else None


def _recon_and_code(outputs: object) -> tuple[Tensor, Tensor | None]:
    if isinstance(outputs, Tensor):
        return outputs, None
    got = type(outputs).__name__
    if isinstance(outputs, (tuple, list)):
        if len(outputs) == 2 and isinstance(outputs[0], Tensor) and isinstance(outputs[1], (Tensor, type(None))):
            return outputs[0], outputs[1]
        got = f"{got} of {', '.join(type(it).__name__ for it in outputs)}"
    raise TypeError(
        f"discriminator: got {got}, expected reconstructions, or (reconstructions, codes). For "
        "other outputs wrap it in a function, or see one_pass_backward"
    )


_Result = TypeVar("_Result")


def _detached(result: _Result) -> _Result:
    detached: _Result = _pytree.tree_map_only(Tensor, Tensor.detach, result)
    return detached
