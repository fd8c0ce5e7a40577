"""One fused op as torch sees it: a raw op of `torch.ops.ebgan_fast`, and an autograd Function where a graph is
recorded.

An `Op` is data: its schema, its launch on a backend, the shapes of its results, and the reference formula that gives
its second derivatives. `energy.py` and `pulling_away.py` hold the instances. This file holds the code that they share.

Raw ops check only the device (`functional.py` checks the rest). Each takes the name of the backend that runs it, so a
traced graph keeps the choice of the time of tracing. A gradient that is not needed is an empty tensor. `need` holds
ints because `torch.jit.trace` takes no list of bools.

The autograd Function is ctx-style. At tiny sizes it costs 38 us forward and backward, and `custom_op` +
`register_autograd` costs 68 (torch 2.13, two cores). Its backward runs a kernel, or returns the gradients that the
forward's kernel computed with the value. It differentiates the reference formula instead if the gradient itself needs a
graph (create_graph), or the upstream is a batch of gradients or a dual number. So second derivatives are right and
never dropped.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from . import detours, flops
from .detours import Gradients, gradients_of_formula, in_transform, is_wrapped, multiplied, with_coefficients
from .devices import check
from .tensors import Coefficient, accumulation_dtype, number, readable

__all__ = ["Function", "Op", "call", "kernel", "needs_reference", "raw"]

# The package's own name: a second copy of the package may be loaded under another name.
NAMESPACE = (__package__ or "").rpartition(".")[0].replace(".", "_")
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
OPS: dict[str, Op] = {}


@dataclass(eq=False)
class Op:
    """A fused op.

    Its arguments are `tensors`, coefficients and options. The last option is `upstream`, if the op takes it. `need`
    follows, if the op takes it. Its results are the value, `logs` that carry no gradient, and the gradients to
    `tensors`.

    An op with a `backward` computes no gradients: its results behind the value are what `backward` needs. The arguments
    of a `backward` are the gradient to the value, `tensors`, the forward's other results, the options, and `need`. If
    the forward returns only the value, the value is passed in place of other results.
    """

    schema: str
    """The text "name(Tensor recon, ..., str norm) -> (...)", without the last argument, which is the backend."""
    launch: Callable[..., Any]
    """A function of a backend's kernels (`backends/protocol.py`) and the arguments. An unneeded gradient is None."""
    shapes: Callable[..., Any]
    """A function of the arguments that returns results without values, for tracing."""
    tensors: int = 0
    """The number of leading arguments that may need a gradient."""
    formula: Callable[..., Any] | None = None
    """The reference formula: a function of `tensors`, coefficients and options, without `upstream`."""
    logs: int = 0
    backward: Op | None = None
    flops: Callable[..., int] | None = None
    """A function of the arguments, shapes in place of tensors. Returns the operations of the op's matrix products."""

    def __post_init__(self) -> None:
        self.name = self.schema.partition("(")[0]
        self.takes_need = "int[] need" in self.schema
        self.takes_upstream = "Tensor upstream, int[] need" in self.schema
        arguments, _, results = self.schema.partition(") -> ")
        self._no_need = ([False] * self.tensors,) if self.takes_need else ()
        self._is_alone = results == "Tensor"
        self._shown = slice(0, 1 + self.logs) if self.logs else 0
        self._function = _with_kernel(self, self.backward) if self.backward else _with_gradients(self)
        # Function.apply checks for transforms first, which takes 2.6 us. `apply` below checks for them itself and calls
        # this.
        self._record = super(torch.autograd.Function, self._function).apply  # type: ignore[misc]
        OPS[self.name] = self
        LIBRARY.define(f"{arguments}, str backend) -> {results}")
        LIBRARY.impl(self.name, self.run, "CompositeExplicitAutograd")
        fake = lambda *arguments: self.shapes(*arguments[:-1])  # noqa: E731
        torch.library.register_fake(f"{NAMESPACE}::{self.name}", fake, lib=LIBRARY)
        if self.flops is not None:
            flops.register(raw(self.name), self.flops)

    def run(self, *arguments: Any) -> Any:
        """Return the results of the raw op, computed by the kernels of the backend that its last argument names."""
        check(self.name, arguments[-1], arguments)
        results = kernel(self.name, arguments[-1])(*arguments[:-1])
        if not isinstance(results, tuple):
            return results
        # If gradients may be unneeded, the first argument, or the second behind an upstream gradient, is a batch of
        # their dtype.
        like = next(it for it in arguments[1::-1] if isinstance(it, Tensor))
        return tuple(like.new_empty(0) if result is None else result for result in results)

    def apply(self, backend: str, *arguments: Any) -> Any:
        """Return the value, or (value, *logs), and record the op if autograd needs it.

        An energy of 8 x 16 takes 15 us through a Function and 7 without one. If torch refuses to record the arguments,
        the op runs a second time with those of `detours.mended`.
        """
        try:
            if torch.is_grad_enabled():
                tensors = arguments[: self.tensors]
                for tensor in tensors:
                    if tensor is not None and tensor.requires_grad:
                        if (
                            (is_traced := _tracing() is not None)
                            or is_compiling()
                            or in_transform()
                            or _are_wrapped(tensors)
                        ):
                            if is_traced or _is_exporting():
                                break  # such a graph holds the raw op, whose gradient is in graphs.py
                            if is_compiling():
                                arguments = tuple(detours.told_apart(arguments))
                            return self._function.apply(backend, *arguments)
                        return self._record(backend, *arguments)
            results = call(self.name, backend, *arguments, *self._no_need)
        except RuntimeError:
            mended = detours.mended(self.name, arguments)
            if mended is None:
                raise
            return self.apply(backend, *mended)
        return results if self._is_alone else results[self._shown]


@functools.cache
def kernel(name: str, backend: str) -> Callable[..., Any]:
    """Return the function that launches an op on a backend. The backend's module is imported at the first use.

    The function returns None in place of a gradient that is not needed.
    """
    kernels = importlib.import_module(f".backends.{backend}", __package__)
    return functools.partial(OPS[name].launch, kernels)


# new in torch 2.7
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)
# Names of this module, because the lookups inside torch would take as long as the calls.
modes, _tracing = torch._C._len_torch_dispatch_stack, torch._C._get_tracing_state
_is_legacy_batch = torch._C._functorch.is_legacy_batchedtensor
_is_graph_kept = torch._C._autograd._get_current_graph_task_keep_graph

_PLAIN = frozenset((Tensor, torch.nn.Parameter))
_USUAL = _PLAIN | {float, int, bool, str, list, tuple, type(None)}
_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)


def _are_wrapped(tensors: Sequence[Tensor | None]) -> bool:
    for tensor in tensors:  # noqa: SIM110  0.3 us for two; `any` of a list takes 0.5
        if tensor is not None and is_wrapped(tensor):
            return True
    return False


def _is_subclassed(argument: object) -> bool:
    return isinstance(argument, Tensor) and type(argument) not in _PLAIN


def call(name: str, backend: str, *arguments: Any) -> Any:
    """Run the raw op of that name, or its kernels directly if no tracer, mode or tensor subclass watches the
    dispatcher.

    The call through `torch.ops` costs 22 of 53 us (discriminator loss of tiny batches, torch 2.13).

    A coefficient (margin, weight, upstream) may be a number. A gradient that is not needed may be returned as None.
    """
    if (
        not is_compiling()
        and modes() == 0
        and _tracing() is None
        # The first check takes 0.5 us, the second 1.5.
        and (_USUAL.issuperset(map(type, arguments)) or not any(map(_is_subclassed, arguments)))
    ):
        return kernel(name, backend)(*arguments)
    like: Tensor = arguments[0] if isinstance(arguments[0], Tensor) else arguments[0][0]
    tensors = [
        like.new_full((), a, dtype=accumulation_dtype(like.dtype))  # type: ignore[arg-type]
        if isinstance(a, _NUMBERS) and not isinstance(a, bool)
        else a
        for a in arguments
    ]
    return raw(name)(*tensors, backend)


def raw(name: str) -> Any:
    """Return the op of that name in `torch.ops`."""
    return getattr(getattr(torch.ops, NAMESPACE), name)


# Results without values, for the `shapes` of the ops.


def scalar_like(tensor: Tensor) -> Tensor:
    return tensor.new_empty((), dtype=accumulation_dtype(tensor.dtype))


def energy_like(batch: Tensor) -> Tensor:
    return batch.new_empty(batch.shape[:1], dtype=accumulation_dtype(batch.dtype))


def gradient_like(tensor: Tensor, needed: bool) -> Tensor:
    return torch.empty_like(tensor) if needed else tensor.new_empty(0)


# ---- Autograd


class Function(torch.autograd.Function):
    """torch's autograd Function, with types."""

    if TYPE_CHECKING:

        @classmethod
        def apply(cls, *arguments: Any) -> Any: ...


def _with_kernel(op: Op, backward: Op) -> type[Function]:
    """Return the Function of an op whose backward is a separate op: (backend, *arguments) -> value."""
    n, takes_need = op.tensors, backward.takes_need
    name, name_of_backward = op.name, backward.name

    class Recorded(Function):
        @staticmethod
        def forward(ctx: Any, backend: str, *arguments: Any) -> Tensor:
            results = call(name, backend, *arguments)
            value: Tensor
            value, *left = results if isinstance(results, tuple) else (results, results)
            saved = *arguments[:n], *left
            ctx.save_for_backward(*saved)
            ctx.backend, ctx.options = backend, arguments[n:]
            ctx.kinds = None if is_hooked() is False else detours.kinds(saved)
            return value

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> Gradients:
            saved, options = ctx.saved_tensors, ctx.options
            if ctx.kinds is not None:
                saved = detours.unpacked(name, saved, ctx.kinds)
            if torch.is_grad_enabled() or is_transformed(upstream):
                found = gradients_of_formula(op, saved[:n], options, upstream, ctx.needs_input_grad[1 : 1 + n])
            elif takes_need:
                # Autograd ignores gradients that are not needed, which may be empty tensors.
                need = ctx.needs_input_grad[1 : 1 + n]
                found = call(name_of_backward, ctx.backend, upstream, *saved, *options, need)
            else:
                found = (call(name_of_backward, ctx.backend, upstream, *saved, *options),)
            return None, *found, *(None,) * len(options)

    return Recorded


def _with_gradients(op: Op) -> type[Function]:
    """Return the Function of an op that computes its gradients with its value.

    (backend, *arguments) -> value, or (value, *logs).
    """
    n, shown = op.tensors, 1 + op.logs

    class Recorded(Function):
        @staticmethod
        def forward(ctx: Any, backend: str, *arguments: Any) -> Any:
            need = (list(ctx.needs_input_grad[1 : 1 + n]),) if op.takes_need else ()
            results = call(op.name, backend, *arguments, *need)
            ctx.set_materialize_grads(False)  # no zeros for outputs without a gradient
            ctx.backend, ctx.options = backend, arguments[n:]
            ctx.is_hooked = hooked = is_hooked()
            coefficients = [option for option in ctx.options if isinstance(option, Tensor)]
            if coefficients:  # saved as the other tensors are
                ctx.options = [None if isinstance(option, Tensor) else option for option in ctx.options]
            saved = *arguments[:n], *results[shown:], *coefficients
            ctx.save_for_backward(*saved)
            ctx.kinds = None if hooked is False else detours.kinds(saved)
            if backend != "cpu":
                ctx.in_capture = in_capture(arguments[0].device)
            if shown == 1:
                return results[0]
            ctx.mark_non_differentiable(*results[1:shown])
            return results[:shown]

        @staticmethod
        def backward(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> Gradients:
            if upstream is None:
                return (None,) * len(ctx.needs_input_grad)
            saved, need, options = ctx.saved_tensors, ctx.needs_input_grad[1 : 1 + n], ctx.options
            if ctx.kinds is not None:
                saved = detours.unpacked(op.name, saved, ctx.kinds)
            if len(saved) > 2 * n:
                options = with_coefficients(options, saved[2 * n :])
            if torch.is_grad_enabled():
                found = gradients_of_formula(op, saved[:n], options, upstream, need)
            else:
                expected = options[-1] if op.takes_upstream else 1.0
                found = _scaled(saved[n : 2 * n], upstream, expected, need, ctx)
            return None, *found, *(None,) * len(options)

    return Recorded


def needs_reference() -> bool:
    """Return True if only the reference formulas can run, because kernels cannot be transformed.

    This is so in a function transform (vmap, grad, jvp), in forward-mode differentiation, and in a trace for ONNX.
    """
    return (
        in_transform()
        or forward_ad._current_level >= 0
        or (_tracing() is not None and torch.onnx.is_in_onnx_export())  # torch's older exporter (graphs.py: the newer)
    )


def is_transformed(upstream: Tensor) -> bool:
    """Return True if a kernel can't read all of an upstream gradient from its memory.

    It may be a batch of gradients, as `torch.autograd.grad(is_grads_batched=True)` and vmap pass, or a dual number of
    forward mode.
    """
    return not is_compiling() and (in_transform() or forward_ad._current_level >= 0 or _is_legacy_batch(upstream))


def _is_plain(tensor: Tensor) -> bool:
    """Return True if a kernel may read the tensor's memory."""
    return type(tensor) is Tensor and not (is_compiling() or is_transformed(tensor))


def in_capture(device: torch.device) -> bool:
    """Return True if a CUDA graph is being captured on the device."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


# new in torch 2.8
top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def is_hooked() -> bool | None:
    """Return True if a hook takes tensors saved for backward, and may own those it returns. None: torch can't say."""
    if is_compiling():
        return True
    return None if top_hooks is None else top_hooks(True) is not None


def _scaled(
    gradients: Sequence[Tensor | None], upstream: Tensor, expected: Coefficient, needed: Sequence[bool], ctx: Any
) -> Gradients:
    """Return the gradients for the actual upstream, from gradients that were computed for the upstream `expected`.

    Nothing outside has seen the saved gradients. So if no later pass needs them, they are multiplied in place, and left
    unchanged if the upstream is the expected one. On a GPU only the kernel reads the upstream. A later pass needs them
    if the graph is kept, or if a CUDA graph holds this backward without its forward. In a compiled graph a plain
    product is used, which the compiler fuses with the next op.
    """
    # A gradient that is not needed may be an empty tensor.
    wanted = [gradient if it else None for gradient, it in zip(gradients, needed, strict=True)]
    # If torch can't say whether a hook shares the gradients, the products are new tensors.
    is_readable = ctx.is_hooked is False and _is_plain(upstream)
    is_kept = is_readable and _is_graph_kept()
    is_known = is_readable and ctx.backend == "cpu" and not (modes() and detours.is_traced())
    if is_known and not is_kept and upstream.item() == number(expected):
        return tuple(wanted)
    if not is_readable:
        return tuple([None if gradient is None else multiplied(gradient, upstream, expected) for gradient in wanted])
    present = [gradient for gradient in wanted if gradient is not None]
    if not is_kept and (ctx.backend == "cpu" or ctx.in_capture == in_capture(upstream.device)):
        call("scale_gradients_", ctx.backend, present, upstream, expected)
        return tuple(wanted)
    scaled = iter(call("scale_gradients", ctx.backend, present, upstream, expected))
    return tuple([None if gradient is None else next(scaled) for gradient in wanted])


def _scale_gradients(kernels: Any, gradients: list[Tensor], upstream: Tensor, expected: Coefficient) -> list[Tensor]:
    """Return new gradients: upstream / expected times the given ones, rounded once. Each fills one run of memory."""
    to = [torch.empty_like(gradient) for gradient in gradients]
    kernels.scale(gradients, to, readable(upstream), expected)
    return to


def _scale_gradients_(kernels: Any, gradients: list[Tensor], upstream: Tensor, expected: Coefficient) -> None:
    """Multiply gradients in place by upstream / expected. If the two are equal, no gradient is read or written."""
    kernels.scale(gradients, gradients, readable(upstream), expected)


SCALE_GRADIENTS = Op(
    schema="scale_gradients(Tensor[] gradients, Tensor upstream, Tensor expected) -> Tensor[]",
    launch=_scale_gradients,
    shapes=lambda gradients, upstream, expected: [torch.empty_like(gradient) for gradient in gradients],
)
SCALE_GRADIENTS_ = Op(
    schema="scale_gradients_(Tensor(a!)[] gradients, Tensor upstream, Tensor expected) -> ()",
    launch=_scale_gradients_,
    shapes=lambda gradients, upstream, expected: None,
)
