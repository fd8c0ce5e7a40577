"""One fused op as torch sees it: a raw op of `torch.ops.ebgan_fast`, and behind it, where a graph is wanted, autograd.

An `Op` is data: its schema, what it launches on a backend, the shapes of its results, and the reference formula that
differentiates it once more. `energy.py` and `pulling_away.py` hold the instances; this file holds all that they share.

Raw ops check the device and nothing else (`functional.py` does the rest). Each takes the name of the backend that runs
it, so a traced graph keeps the choice that was made when it was traced. A gradient that is not needed is an empty
tensor. `need` is of ints because `torch.jit.trace` takes no list of bools.

The one autograd Function is ctx-style: it costs 38 us forward and backward at tiny sizes where `custom_op` +
`register_autograd` costs 68 (torch 2.13, two cores). Its backward uses a kernel, or the gradients that a kernel made
with the value. Where a graph of the gradient itself is wanted (create_graph), or the upstream is a batch of many or a
dual number, it differentiates the reference formula instead: derivatives of derivatives are right and never dropped.
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

# The package's own name, under which a second copy of it may be loaded beside this one.
NAMESPACE = (__package__ or "").rpartition(".")[0].replace(".", "_")
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
OPS: dict[str, Op] = {}


@dataclass(eq=False)
class Op:
    """A fused op.

    Its arguments are `tensors`, then coefficients and options, the last of them `upstream` where the op takes one, and
    then `need` where it takes that. Its results are the value, `logs` that carry no gradient, and then the gradients to
    `tensors`. With a `backward` it makes no gradients: behind the value comes what that op needs. The arguments of a
    `backward` are the gradient to the value, `tensors`, what the forward left (the value, if that is all), the options,
    and `need`.
    """

    schema: str
    """ "name(Tensor recon, ..., str norm) -> (...)": the arguments without the backend, which comes behind them."""
    launch: Callable[..., Any]
    """Called with a backend's kernels (`backends/protocol.py`) and the arguments; None stands for a gradient that is
    not needed."""
    shapes: Callable[..., Any]
    """Called with the arguments while the op is traced: the results for tensors without values."""
    tensors: int = 0
    """The number of leading arguments that may want a gradient."""
    formula: Callable[..., Any] | None = None
    """The reference: of `tensors`, coefficients and options, without `upstream`."""
    logs: int = 0
    backward: Op | None = None
    flops: Callable[..., int] | None = None
    """Called with the arguments, shapes in place of tensors: the operations of its matrix products (`flops.py`)."""

    def __post_init__(self) -> None:
        self.name = self.schema.partition("(")[0]
        self.takes_need = "int[] need" in self.schema
        self.takes_upstream = "Tensor upstream, int[] need" in self.schema
        arguments, _, results = self.schema.partition(") -> ")
        self._no_need = ([False] * self.tensors,) if self.takes_need else ()
        self._is_alone = results == "Tensor"
        self._shown = slice(0, 1 + self.logs) if self.logs else 0
        self._function = _with_kernel(self, self.backward) if self.backward else _with_gradients(self)
        # What Function.apply calls behind its questions about transforms, which take 2.6 us and are answered here.
        self._record = super(torch.autograd.Function, self._function).apply  # type: ignore[misc]
        OPS[self.name] = self
        LIBRARY.define(f"{arguments}, str backend) -> {results}")
        LIBRARY.impl(self.name, self.run, "CompositeExplicitAutograd")
        fake = lambda *arguments: self.shapes(*arguments[:-1])  # noqa: E731
        torch.library.register_fake(f"{NAMESPACE}::{self.name}", fake, lib=LIBRARY)
        if self.flops is not None:
            flops.register(raw(self.name), self.flops)

    def run(self, *arguments: Any) -> Any:
        """The results of the raw op, by its kernels."""
        check(self.name, arguments[-1], arguments)
        results = kernel(self.name, arguments[-1])(*arguments[:-1])
        if not isinstance(results, tuple):
            return results
        # An op whose gradients may be unneeded has a batch of their dtype first, or behind the upstream gradient.
        like = next(it for it in arguments[1::-1] if isinstance(it, Tensor))
        return tuple(like.new_empty(0) if result is None else result for result in results)

    def apply(self, backend: str, *arguments: Any) -> Any:
        """The value, or (value, *logs), recorded if autograd wants to know of it.

        An energy of 8 x 16 takes 15 us by way of a Function, 7 past it. Arguments that torch refuses to record come a
        second time, as `detours.mended` gives them.
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
                                break  # such a graph holds the raw op, which has a gradient itself: graphs.py
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
    """Return the function that launches an op on a backend, whose module is imported at the first use.

    In place of a gradient that is not needed it returns None.
    """
    kernels = importlib.import_module(f".backends.{backend}", __package__)
    return functools.partial(OPS[name].launch, kernels)


# torch 2.7
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)
# A lookup of each name on the way takes as long as the question.
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
    """The raw op of that name, or its kernels themselves where no tracer, mode or tensor subclass watches the
    dispatcher.

    The way through `torch.ops` costs 22 of 53 us (discriminator loss of tiny batches, torch 2.13).

    A coefficient (margin, weight, upstream) may be a number. A gradient that is not needed may come as None.
    """
    if (
        not is_compiling()
        and modes() == 0
        and _tracing() is None
        # The first question takes 0.5 us, the second 1.5.
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
    """The op of that name in `torch.ops`."""
    return getattr(getattr(torch.ops, NAMESPACE), name)


# Shapes, for the instances.


def scalar_like(tensor: Tensor) -> Tensor:
    return tensor.new_empty((), dtype=accumulation_dtype(tensor.dtype))


def energy_like(batch: Tensor) -> Tensor:
    return batch.new_empty(batch.shape[:1], dtype=accumulation_dtype(batch.dtype))


def gradient_like(tensor: Tensor, needed: bool) -> Tensor:
    return torch.empty_like(tensor) if needed else tensor.new_empty(0)


# ---- Autograd


class Function(torch.autograd.Function):
    """torch's, with types."""

    if TYPE_CHECKING:

        @classmethod
        def apply(cls, *arguments: Any) -> Any: ...


def _with_kernel(op: Op, backward: Op) -> type[Function]:
    """The Function of an op whose backward is an op of its own: (backend, *arguments) -> value."""
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
                # Autograd passes over what is not needed, which may be an empty tensor.
                need = ctx.needs_input_grad[1 : 1 + n]
                found = call(name_of_backward, ctx.backend, upstream, *saved, *options, need)
            else:
                found = (call(name_of_backward, ctx.backend, upstream, *saved, *options),)
            return None, *found, *(None,) * len(options)

    return Recorded


def _with_gradients(op: Op) -> type[Function]:
    """The Function of an op that makes its gradients with its value: (backend, *arguments) -> value, or (value,
    *logs)."""
    n, shown = op.tensors, 1 + op.logs

    class Recorded(Function):
        @staticmethod
        def forward(ctx: Any, backend: str, *arguments: Any) -> Any:
            need = (list(ctx.needs_input_grad[1 : 1 + n]),) if op.takes_need else ()
            results = call(op.name, backend, *arguments, *need)
            ctx.set_materialize_grads(False)  # no zeros for the outputs that carry no gradient
            ctx.backend, ctx.options = backend, arguments[n:]
            ctx.is_hooked = hooked = is_hooked()
            coefficients = [option for option in ctx.options if isinstance(option, Tensor)]
            if coefficients:  # they are saved as tensors are
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
    """Return True if a function transform (vmap, grad, jvp), forward-mode differentiation or a trace for ONNX is
    active: kernels cannot be transformed, the reference formulas can."""
    return (
        in_transform()
        or forward_ad._current_level >= 0
        or (_tracing() is not None and torch.onnx.is_in_onnx_export())  # its older exporter; graphs.py has the other
    )


def is_transformed(upstream: Tensor) -> bool:
    """Return True for an upstream gradient that says more than its memory: many at once, as
    `torch.autograd.grad(is_grads_batched=True)` and vmap send them, or a dual number of forward mode."""
    return not is_compiling() and (in_transform() or forward_ad._current_level >= 0 or _is_legacy_batch(upstream))


def _is_plain(tensor: Tensor) -> bool:
    """Return True if a kernel may read the tensor's memory."""
    return type(tensor) is Tensor and not (is_compiling() or is_transformed(tensor))


def in_capture(device: torch.device) -> bool:
    """Return True if what runs now goes into a CUDA graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


# torch 2.8
top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def is_hooked() -> bool | None:
    """Return True if a hook takes what is saved for backward, and may own what comes back; None if torch can't say."""
    if is_compiling():
        return True
    return None if top_hooks is None else top_hooks(True) is not None


def _scaled(
    gradients: Sequence[Tensor | None], upstream: Tensor, expected: Coefficient, needed: Sequence[bool], ctx: Any
) -> Gradients:
    """The gradients for the upstream that came, of those that were made for the one `expected`.

    The forward made them and gave them to nobody. So where they will not be met again, they are multiplied where they
    lie, and not even touched for an upstream that was expected. On a GPU only the kernel knows the upstream. They are
    met again where the graph is kept, and where a CUDA graph holds this backward without its forward. A compiled graph
    multiplies by itself: its compiler puts the product into whatever comes next.
    """
    # What is not needed may be an empty tensor.
    wanted = [gradient if it else None for gradient, it in zip(gradients, needed, strict=True)]
    # Where torch can't say whether a hook shares the gradients, they are multiplied into new memory.
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
    """New gradients: upstream / expected times those, rounded once. Each fills one run of memory."""
    to = [torch.empty_like(gradient) for gradient in gradients]
    kernels.scale(gradients, to, readable(upstream), expected)
    return to


def _scale_gradients_(kernels: Any, gradients: list[Tensor], upstream: Tensor, expected: Coefficient) -> None:
    """Multiply gradients by upstream / expected where they lie; for an upstream that was expected nothing is moved."""
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
