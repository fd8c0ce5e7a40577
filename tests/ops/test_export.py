"""Graphs that outlive the call: exported, traced, packaged, and converted to ONNX.

They give what eager mode gives, can be trained, and refuse a device that their kernels cannot read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

import ebgan_fast
from ebgan_fast.ops import backends, op
from tests import stand_in
from tests.older_versions import needs_whole_graphs

from .budget import assert_within_budget, energy_sums, pulling_away_sums
from .cases import DEVICE, every_kernel
from .small_ops import MARGIN, OPS, leaves_of

Values = tuple[Tensor, ...]
raw = torch.ops.ebgan_fast


def _generator_loss(model: _AutoEncoder, x: Tensor, y: Tensor) -> Values:
    code = model.encode(x)
    return ebgan_fast.generator_loss(model.decode(code), x, code, pt_weight=0.25)


# A graph makes a float32 of a margin or weight, which holds 0.25 and 1.0 exactly. amax rounds nothing.
LOSSES: dict[str, Callable[[_AutoEncoder, Tensor, Tensor], Any]] = {
    "reconstruction_energy": lambda model, x, y: ebgan_fast.reconstruction_energy(model(x), x, norm="mse"),
    "hinge_margin_loss": lambda model, x, y: ebgan_fast.hinge_margin_loss(model(x).amax(1), model(y).amax(1), 1.0),
    "pulling_away_term": lambda model, x, y: ebgan_fast.pulling_away_term(model.encode(x)),
    "discriminator_loss": lambda model, x, y: ebgan_fast.discriminator_loss(model(x), x, model(y), y, 1.0),
    "discriminator_loss-upstream": lambda model, x, y: ebgan_fast.discriminator_loss(
        model(x), x, model(y), y, 1.0, upstream=4.0
    ),
    "generator_loss": _generator_loss,
    "generator_loss-without_code": lambda model, x, y: ebgan_fast.generator_loss(model(x), x),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


class _AutoEncoder(nn.Module):
    """A small auto-encoder that multiplies single numbers only.

    Matrix products may round differently when their operands lie at other addresses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.rand(12) + 0.5)

    def encode(self, x: Tensor) -> Tensor:
        return x[:, :6] * self.inner

    def decode(self, code: Tensor) -> Tensor:
        return code.repeat(1, 2) * self.outer

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class _Model(nn.Module):
    """A loss together with its auto-encoder, returning a plain tuple."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model, self.name = _AutoEncoder(), name

    def forward(self, x: Tensor, y: Tensor) -> Values:
        found = LOSSES[self.name](self.model, x, y)
        return tuple(found) if isinstance(found, tuple) else (found,)


def _batches(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cpu").manual_seed(n)
    first, second = (torch.randn(n, 12, generator=generator, device="cpu").to(DEVICE) for _ in range(2))
    return first, second


def _assert_equal(got: Values, expected: Values) -> None:
    assert len(got) == len(expected)
    assert all(map(torch.equal, got, expected))


def _gradients(module: nn.Module, batches: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Return the gradients of the parameters that the loss depends on, by the parameters' names."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(module(*batches)[0].sum(), parameters, allow_unused=True)
    return {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}


def _assert_trained_alike(graph: nn.Module, model: nn.Module, batches: tuple[Tensor, Tensor]) -> None:
    found, expected = _gradients(graph, batches), _gradients(model, batches)
    assert found.keys() == expected.keys()
    assert "model.inner" in found
    _assert_equal(tuple(found.values()), tuple(expected[name] for name in found))


def _exported(model: nn.Module, strict: bool, dynamic: bool = True) -> torch.export.ExportedProgram:
    size = {0: torch.export.Dim("n", min=2)} if dynamic else {}
    return torch.export.export(model, _batches(4), dynamic_shapes=(size, size), strict=strict)


def _ops(graph: torch.fx.GraphModule) -> set[str]:
    """Return the names of this package's ops in a graph and its inner graphs."""
    return {
        str(node.target)
        for module in graph.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
        if "ebgan_fast" in str(node.target)
    }


# The strict way runs the compiler's front end, which takes longer.
strict_or_not = pytest.mark.parametrize(
    "strict", [pytest.param(True, id="strict", marks=pytest.mark.slow), pytest.param(False, id="non_strict")]
)


@needs_whole_graphs
@every_kernel
@every_loss
@strict_or_not
def test_an_exported_model_is_the_model_at_any_batch_size(
    backend: str, name: str, strict: bool, tmp_path: Path
) -> None:
    """An exported model gives the model's values and gradients at any batch size.

    The exported program is also saved and loaded again, and decomposed.
    """
    model = _Model(name)
    with ebgan_fast.use_backend(backend):
        program = _exported(model, strict)
        assert _ops(program.graph_module) == {f"ebgan_fast.{name.partition('-')[0]}.default"}
        torch.export.save(program, tmp_path / "model.pt2")
        for each in (program, torch.export.load(tmp_path / "model.pt2"), program.run_decompositions()):
            graph = each.module()
            for n in (2, 4, 7):
                _assert_equal(graph(*_batches(n)), model(*_batches(n)))
                _assert_trained_alike(graph, model, _batches(n))


@needs_whole_graphs
@every_kernel
@every_loss
@strict_or_not
def test_a_model_that_was_exported_frozen_can_be_trained(backend: str, name: str, strict: bool) -> None:
    model = _Model(name).requires_grad_(False)
    with ebgan_fast.use_backend(backend):
        graph = _exported(model, strict, dynamic=False).module()
        _assert_equal(graph(*_batches(4)), model(*_batches(4)))
        _assert_trained_alike(graph.requires_grad_(True), model.requires_grad_(True), _batches(4))


@needs_whole_graphs
@every_kernel
@every_loss
@strict_or_not
def test_a_model_exported_without_gradients_gives_none(backend: str, name: str, strict: bool) -> None:
    class Without(_Model):
        def forward(self, x: Tensor, y: Tensor) -> Values:
            with torch.no_grad():
                return super().forward(x, y)

    model = Without(name)
    with ebgan_fast.use_backend(backend):
        found = _exported(model, strict).module()(*_batches(7))
        _assert_equal(found, model(*_batches(7)))
    assert not any(value.requires_grad for value in found)


@needs_whole_graphs
@every_loss
def test_on_the_reference_a_graph_has_plain_ops_alone(name: str) -> None:
    model = _Model(name)
    with ebgan_fast.use_backend("reference"):
        program = _exported(model, strict=False)
        expected = model(*_batches(7))
    assert _ops(program.graph_module) == set()
    _assert_equal(program.module()(*_batches(7)), expected)


@every_kernel
@every_loss
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_model_gives_the_same_bits_and_gradients(backend: str, name: str) -> None:
    model = _Model(name)
    with ebgan_fast.use_backend(backend):
        traced, buffer = torch.jit.trace(model, _batches(4)), io.BytesIO()
        assert f"ebgan_fast::{name.partition('-')[0]}" in str(traced.inlined_graph)
        torch.jit.save(traced, buffer)
        buffer.seek(0)
        for graph in (traced, torch.jit.load(buffer)):
            for n in (4, 7, 7):  # a scripted graph is optimized in its second run
                _assert_equal(graph(*_batches(n)), model(*_batches(n)))
                _assert_trained_alike(graph, model, _batches(n))


@needs_whole_graphs
@every_kernel
@pytest.mark.slow
def test_a_packaged_model_gives_the_same_bits(backend: str, tmp_path: Path) -> None:
    """A packaged model gives the model's bits. All losses share one package, as compiling it takes ten seconds."""

    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.models = nn.ModuleList(map(_Model, LOSSES))

        def forward(self, x: Tensor, y: Tensor) -> Values:
            return tuple(value for model in self.models for value in model(x, y))

    model = All()
    with ebgan_fast.use_backend(backend), torch.no_grad():
        program = _exported(model, strict=False)
        path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
        _assert_equal(tuple(torch._inductor.aoti_load_package(path)(*_batches(7))), model(*_batches(7)))


@needs_whole_graphs
@every_kernel
@pytest.mark.slow
@pytest.mark.parametrize("name", ["reconstruction_energy", "pulling_away_term", "generator_loss"])
def test_an_exported_model_is_compiled_and_trained(backend: str, name: str) -> None:
    torch.compiler.reset()
    model = _Model(name)
    with ebgan_fast.use_backend(backend):
        graph = _exported(model, strict=False).module()
        compiled = torch.compile(graph, backend="aot_eager", fullgraph=True)
        _assert_equal(compiled(*_batches(6)), model(*_batches(6)))
        found = torch.autograd.grad(compiled(*_batches(6))[0].sum(), list(graph.parameters()), allow_unused=True)
        expected = _gradients(model, _batches(6))
    _assert_equal(tuple(it for it in found if it is not None), tuple(expected.values()))


# ---- The gradient of a raw op


class _Op(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.op = OPS[name][0]

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.op(*tensors)


@needs_whole_graphs
@every_kernel
@pytest.mark.parametrize("name", OPS)
def test_gradients_of_every_order_in_an_exported_graph(backend: str, name: str) -> None:
    leaves = leaves_of(OPS[name][1])
    with ebgan_fast.use_backend(backend):
        graph = torch.export.export(_Op(name), leaves).module()
    assert "ebgan_fast." in graph.code
    assert gradcheck(graph, leaves, check_batched_grad=True)
    assert gradgradcheck(graph, leaves)


@every_kernel
def test_a_raw_op_gives_the_gradients_it_is_asked_for_and_no_others(backend: str) -> None:
    one, (recon, fake, code) = torch.ones(()), (*_batches(4), _batches(5)[0][:4])
    arguments, leaves = (recon.requires_grad_(), fake, code.requires_grad_()), (recon, code)
    for need in ([True, True, False], [False] * 3):
        with torch.no_grad():
            expected = raw.generator_loss(*arguments, one, "mse", one, need, backend)
            of_recon, _, of_code = raw.generator_loss(*arguments, one, "mse", one, [True] * 3, backend)[3:]
        found = raw.generator_loss(*arguments, one, "mse", one, need, backend)
        _assert_equal(found, expected)
        assert [value.requires_grad for value in found] == [True, *[False] * 5]
        _assert_equal(torch.autograd.grad(found[0], leaves), (of_recon, of_code))


# ---- Devices

_IMAGES, _CODE, _ONE = torch.ones(3, 5, device="cpu"), torch.ones(3, 2, device="cpu"), torch.ones((), device="cpu")
_ENERGY, _RESIDUAL = torch.ones(3, device="cpu"), torch.ones(2, 2, device="cpu")
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "reconstruction_energy": (_IMAGES, _IMAGES, "l2"),
    "reconstruction_energy_backward": (_ENERGY, _IMAGES, _IMAGES, _ENERGY, "l2", [True, True]),
    "hinge_margin_loss": (_ENERGY, _ENERGY, _ONE),
    "discriminator_loss": (_IMAGES, _IMAGES, _IMAGES, _IMAGES, _ONE, "l2", _ONE, [True] * 4),
    "generator_loss": (_IMAGES, _IMAGES, _CODE, _ONE, "l2", _ONE, [True] * 3),
    "pulling_away_term": (_CODE,),
    "pulling_away_term_backward": (_ONE, _CODE, _ENERGY, _RESIDUAL),
    "scale_gradients": ([_IMAGES, _CODE], _ONE, _ONE),
    "scale_gradients_": ([_IMAGES, _CODE], _ONE, _ONE),
}
# The 0-d tensors that the kernels read in their own memory, so they must lie on the kernels' device. Any other 0-d
# tensor may also be on the CPU, where its value is read.
READ_IN_PLACE = {("scale_gradients", 1), ("scale_gradients_", 1)}
every_raw_op = pytest.mark.parametrize("name", ARGUMENTS)


def test_every_raw_op_has_arguments_here() -> None:
    assert set(ARGUMENTS) == set(op.OPS)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the list of the ops whose kernels are called from here on; no kernel runs."""
    names: list[str] = []
    monkeypatch.setattr(op, "kernel", lambda name, backend: lambda *arguments: names.append(name))
    return names


@every_raw_op
@pytest.mark.parametrize("grad", [False, True], ids=["", "requires_grad"])
def test_kernels_of_a_gpu_get_no_tensor_of_the_cpu(name: str, grad: bool, launched: list[str]) -> None:
    def given(argument: Any) -> Any:
        if isinstance(argument, list):
            return [given(each) for each in argument]
        return argument.clone().requires_grad_(grad) if isinstance(argument, Tensor) else argument

    said = (
        f"{name}: got a tensor on 'cpu', expected one on 'cuda', where the backend 'cuda' of this graph runs. "
        "Export or trace the model again where the graph is to run, or inside `with use_backend('reference'):`"
    )
    with stand_in.backend("cuda", takes="cuda"), pytest.raises(ValueError, match=re.escape(said)):
        getattr(raw, name)(*map(given, ARGUMENTS[name]), "cuda")
    assert launched == []


def _moved(arguments: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    def moved(argument: Any) -> Any:
        if isinstance(argument, list):
            return [moved(each) for each in argument]
        # `to` would be wrong here: older versions of torch run it on a constant to get its value.
        return torch.empty_like(argument, device=device) if isinstance(argument, Tensor) else argument

    return tuple(map(moved, arguments))


@pytest.fixture
def pretended() -> Iterator[None]:
    """Fake tensors on a GPU that does not exist, and a backend that takes them."""
    with stand_in.backend("cuda", takes="cuda"), FakeTensorMode(allow_non_fake_inputs=True):
        yield


@every_raw_op
def test_every_tensor_that_kernels_read_must_be_on_their_device(
    name: str, launched: list[str], pretended: None
) -> None:
    """Each op refuses its tensors when one of them is elsewhere: on the CPU, or on another GPU."""
    run, there = op.OPS[name].run, _moved(ARGUMENTS[name], "cuda:0")
    run(*there, "cuda")
    for index, argument in enumerate(there):
        if (isinstance(argument, list) and not isinstance(argument[0], Tensor)) or isinstance(argument, str):
            continue
        is_coefficient = isinstance(argument, Tensor) and argument.dim() == 0
        for device, said in (
            ("cpu", "got a tensor on 'cpu', expected"),
            ("cuda:1", "got tensors on cuda:0 and cuda:1"),
        ):
            arguments = (*there[:index], *_moved((argument,), device), *there[index + 1 :], "cuda")
            launched.clear()
            if device == "cpu" and is_coefficient and (name, index) not in READ_IN_PLACE:
                run(*arguments)
                assert launched == [name]
            elif device == "cuda:1" and len(there) == 1:
                run(*arguments)  # the only tensor defines the device
            else:
                with pytest.raises(ValueError, match=said):
                    run(*arguments)
                assert launched == []


def test_kernels_of_the_cpu_read_a_margin_from_anywhere(launched: list[str], pretended: None) -> None:
    energies, margin = torch.ones(3, device="cpu"), torch.ones((), device="cuda:0")
    op.OPS["hinge_margin_loss"].run(energies, energies, margin, "cpu")
    assert launched == ["hinge_margin_loss"]
    with pytest.raises(ValueError, match="got a tensor on 'cuda:0', expected one on 'cpu'"):
        op.OPS["hinge_margin_loss"].run(energies, energies.to("cuda:0"), margin, "cpu")


@needs_whole_graphs
@every_kernel
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_graph_made_elsewhere_is_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _Model("reconstruction_energy")
    with ebgan_fast.use_backend(backend):
        graphs = _exported(model, strict=False).module(), torch.jit.trace(model, _batches(4))
    known = backends.KNOWN[backend]
    monkeypatch.setitem(backends.KNOWN, backend, known._replace(takes=lambda: "elsewhere"))
    for graph in graphs:
        with pytest.raises(
            (ValueError, RuntimeError), match=f"got a tensor on '{DEVICE.type}.*', expected one on 'else"
        ):
            graph(*_batches(4))


def test_a_graph_for_a_backend_that_is_missing_says_why(launched: list[str]) -> None:
    said = "got a graph for the backend 'cuda', which cannot run here: a stand-in. Export or trace the model again"
    with (
        stand_in.backend("cuda", takes="cpu", available=False),
        pytest.raises(ebgan_fast.BackendUnavailableError, match=said),
    ):
        raw.pulling_away_term(_CODE, "cuda")
    assert launched == []


@pytest.mark.parametrize("name", ["fastest", "auto", "reference"])
def test_a_name_that_is_of_no_kernels_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"got backend '{name}', expected one of 'cpu', 'triton', 'cuda'"):
        raw.pulling_away_term(_CODE, name)


def test_a_margin_that_was_frozen_when_the_graph_was_made_can_be_trained() -> None:
    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = ebgan_fast.nn.DiscriminatorLoss(nn.Parameter(torch.tensor(10.0)))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            loss: Tensor = self.loss(0.5 * x, x, 0.5 * y, y).loss
            return loss

    model = Scored().to(DEVICE).requires_grad_(False)
    graph = torch.export.export(model, _batches(4)).module()
    graph.requires_grad_(True)
    model.requires_grad_(True)
    found, expected = graph(*_batches(4)), model(*_batches(4))
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, list(graph.parameters()))
    assert torch.equal(gradient, torch.autograd.grad(expected, list(model.parameters()))[0])
    assert gradient == 1  # every hinge is open


# ---- ONNX


@needs_whole_graphs
@every_kernel
@every_loss
@strict_or_not
def test_onnx_gets_plain_ops(backend: str, name: str, strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter decomposes a program to plain ops, whether it was given the program or made it."""
    model = _Model(name)
    with ebgan_fast.use_backend(backend):
        program = _exported(model, strict)
    assert _ops(program.graph_module)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    plain = program.run_decompositions()
    assert _ops(plain.graph_module) == set()
    with ebgan_fast.use_backend("reference"):
        _assert_equal(plain.module()(*_batches(7)), model(*_batches(7)))


@pytest.mark.slow
@every_kernel
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dynamo", [True, False], ids=["", "older_exporter"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_an_onnx_model_gives_the_same(backend: str, name: str, dynamo: bool) -> None:
    for needed in ("onnx", "onnxscript"):
        pytest.importorskip(needed, reason=f"{needed} is not installed (pip install onnx onnxscript)")
    from onnx import load_model_from_string
    from onnx.reference import ReferenceEvaluator

    inputs, file = tuple(tensor.float() for tensor in OPS[name][1]), io.BytesIO()
    with ebgan_fast.use_backend(backend):
        torch.onnx.export(_Op(name), inputs, file, dynamo=dynamo, verbose=False)
    evaluator = ReferenceEvaluator(load_model_from_string(file.getvalue()))
    (found,) = evaluator.run(
        None, dict(zip(evaluator.input_names, (each.cpu().numpy() for each in inputs), strict=True))
    )
    with ebgan_fast.use_backend("reference"):
        truth, eager = OPS[name][0](*(each.double() for each in inputs)), OPS[name][0](*inputs)
    sums = max(max(energy_sums(each), pulling_away_sums(each)) for each in inputs)
    assert_within_budget(torch.as_tensor(found).to(DEVICE), truth, eager, "value", 2 * MARGIN, sums)
