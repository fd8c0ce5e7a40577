"""Compile Triton kernels for a GPU that this machine need not have, with the specialization that Triton's JIT would
choose.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from unittest import mock

from . import cache
from .ptx import Report, simulate

try:
    import torch  # noqa: F401  (the arguments of a launch are tensors)
    import triton
except ImportError as error:
    raise ImportError(f"gpuless.triton needs triton and torch ({error}): pip install 'gpuless[triton]'") from error

from triton._C.libtriton import get_cache_invalidating_env_vars
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature


def gpu_target(name: str) -> GPUTarget:
    """Return Triton's description of a GPU. Its name is like "sm_80" or "gfx942"; raise ValueError for any other."""
    if found := re.fullmatch(r"sm_(\d+)a?", name):
        return GPUTarget("cuda", int(found[1]), 32)
    if re.fullmatch(r"gfx\w+", name):
        return GPUTarget("hip", name, 64 if name.startswith("gfx9") else 32)
    raise ValueError(f"target: got {name!r}, expected NVIDIA's like 'sm_80' or AMD's like 'gfx942'")


def flattened(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in the order of a kernel's parameters, with each member of a tuple as an argument of its
    own.

    The member `stride` of a NamedTuple `batch` is named "batch.stride". The first member of a plain tuple `shape` is
    "shape.0".
    """
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, tuple):
            members = getattr(value, "_fields", range(len(value)))
            named = {f"{name}.{member}": each for member, each in zip(members, value, strict=True)}
            flat.update(flattened(named))
        else:
            flat[name] = value
    return flat


class Specialization(NamedTuple):
    """The facts that the compiler knows about the arguments of a launch."""

    signature: dict[str, Any]  # the types, in a tuple for a tuple; "constexpr" if the value is compiled in
    constants: dict[tuple[int, ...], Any]  # by position; several numbers for a member of a tuple
    hints: dict[tuple[int, ...], Any]  # by position: divisibility, and on AMD the range of a pointer
    options: Any

    def runtime_arguments(self) -> tuple[str, ...]:
        """Return the names of the arguments that the launch must pass, in order, as `flattened` names them."""
        return tuple(name for name, kind in flattened(self.signature).items() if kind != "constexpr")


@dataclass(frozen=True)
class Artifact:
    """A compiled kernel. `ptx` is empty on AMD, `amdgcn` on NVIDIA. `binary` is a cubin or an hsaco.

    The kernel's parameters are `runtime_arguments`, and then Triton's own scratch pointers. These are null unless a
    kernel asks for scratch memory.
    """

    name: str
    target: str
    num_warps: int
    shared: int  # bytes of a block
    tensor_memory: int  # columns of a block, on Blackwell GPUs of data centers
    runtime_arguments: tuple[str, ...]
    ttir: str  # Triton's IR before it is lowered for a target
    ptx: str
    amdgcn: str
    binary: bytes

    @cached_property
    def sass(self) -> str:
        """The disassembled machine code for an NVIDIA target. It is made at the first access, as the simulator needs
        none.
        """
        # -ndf leaves out the analysis that names the targets of jumps: 0.3 s for a small kernel in place of 0.45 s.
        return self._inspect(triton.knobs.nvidia.nvdisasm.path, "-c", "-ndf")

    @cached_property
    def usage(self) -> str:
        """The registers and the stack on an NVIDIA target, as cuobjdump prints them."""
        return self._inspect(triton.knobs.nvidia.cuobjdump.path, "-res-usage")

    def run(
        self,
        grid: tuple[int, ...],
        arguments: Mapping[str, Any],
        *,
        seed: int = 0,
        ctas: Sequence[tuple[int, int, int]] | None = None,
        edit: Callable[[str], str] = str,
    ) -> Report:
        """Run the kernel in the PTX simulator, as the function `run` does.

        Args:
            grid: The number of programs, in up to three dimensions.
            arguments: The kernel's arguments by name.
            seed: The seed of the order in which the programs run.
            ctas: If given, the only programs to run.
            edit: A function that takes the PTX and returns the PTX to run in its place.

        Raises:
            ValueError: If the kernel was not compiled for NVIDIA.
        """
        values = flattened(arguments)
        return simulate(
            edit(self._of_nvidia(self.ptx)),
            grid=grid,
            threads=32 * self.num_warps,
            arguments=[values[name] for name in self.runtime_arguments],
            shared_bytes=self.shared,
            seed=seed,
            ctas=ctas,
        )

    def _inspect(self, tool: str, *options: str) -> str:
        self._of_nvidia(self.ptx)
        name = cache.key(tool, *options, triton.__version__, self.binary)

        def make() -> bytes:
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(self.binary)
                file.flush()
                return subprocess.run([tool, *options, file.name], check=True, capture_output=True).stdout

        return cache.once(name, make).decode()

    def _of_nvidia(self, ptx: str) -> str:
        if not ptx:
            raise ValueError(f"{self.name} was compiled for {self.target}, which is not NVIDIA's")
        return ptx


def _check_kernel(kernel: Any) -> None:
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: kernels are interpreted, so there is nothing to compile; unset it")
    if not isinstance(kernel, JITFunction):
        raise TypeError(f"{kernel!r} is no @triton.jit function")


def specialize(
    kernel: Any, arguments: Mapping[str, Any], target: str = "sm_80", *, debug: bool = False, **options: Any
) -> Specialization:
    """Return the compiler's input for a launch, found by the functions of Triton's own JIT.

    Args:
        kernel: The @triton.jit function.
        arguments: The kernel's arguments by name.
        target: The GPU to compile for.
        debug: If True, compile `tl.device_assert` and the checks for integer overflow in.
        **options: Options of the launch, like num_warps.

    Raises:
        TypeError: If `kernel` is no @triton.jit function.
        RuntimeError: If TRITON_INTERPRET is set.
        ValueError: If `target` is no GPU's name.
    """
    _check_kernel(kernel)
    backend = make_backend(gpu_target(target))
    keywords = {**arguments, **options, "debug": debug}
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, parsed = binder(**keywords)
    # Triton has no public name for this step.
    parsed, signature, constants, hints = kernel._pack_args(backend, keywords, bound, specialization, parsed)
    return Specialization(signature, constants, hints, parsed)


class _Driver:
    """A stand-in for Triton's driver, with the methods that the JIT calls before it compiles."""

    def __init__(self, target: str) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return gpu_target(self._target)

    def get_current_device(self) -> str:
        return self._target

    def get_current_stream(self, device: str) -> int:
        return 0


@contextlib.contextmanager
def jit_specializations(target: str) -> Iterator[list[Specialization]]:
    """Collect the specializations of all launches inside the `with` block, as Triton's JIT would compile them for
    `target`.

    Host code runs unchanged. No kernel is compiled or run.
    """
    found: list[Specialization] = []

    def record(
        kernel: Any, key: Any, signature: Any, device: Any, constants: Any, options: Any, hints: Any, warmup: Any
    ) -> None:
        found.append(Specialization(signature, constants, hints, options))

    # Triton has no public names for these.
    with (
        mock.patch.object(triton.runtime.driver, "_active", _Driver(target)),
        mock.patch.object(JITFunction, "_do_compile", record),
    ):
        yield found


def _name(kernel: Any, special: Specialization, target: str) -> str:
    """Return the key of an artifact in the cache. The path of the source is part of it, because messages in the code
    hold the path.
    """
    tools = triton.knobs.nvidia
    found = (getattr(tools, name, None) for name in ("ptxas", "ptxas_blackwell"))  # Triton has the second from 3.6 on
    assemblers = [(tool.path, tool.version) for tool in found if tool is not None]
    variables = sorted(get_cache_invalidating_env_vars().items())
    parts = (kernel.cache_key, kernel.fn.__code__.co_filename, target, repr(special), repr((assemblers, variables)))
    return cache.key("triton", triton.__version__, *parts)


def _unpacked(content: bytes, target: str) -> Artifact:
    text, _, binary = content.partition(b"\0")
    fields = json.loads(text)
    fields["runtime_arguments"] = tuple(fields["runtime_arguments"])
    return Artifact(target=target, binary=binary, **fields)


def _packed(compiled: Any, runtime_arguments: tuple[str, ...]) -> bytes:
    """Return the cache entry of a kernel that Triton has compiled. `_unpacked` turns it into an artifact."""
    values: dict[str, Any] = {
        "name": compiled.metadata.name,
        "num_warps": compiled.metadata.num_warps,
        "shared": compiled.metadata.shared,
        "tensor_memory": getattr(compiled.metadata, "tmem_size", None) or 0,
        "runtime_arguments": runtime_arguments,
        "ttir": compiled.asm["ttir"],
        **{kind: compiled.asm.get(kind, "") for kind in ("ptx", "amdgcn")},
    }
    return json.dumps(values).encode() + b"\0" + bytes(compiled.kernel)  # the JSON is ASCII without a null byte


_compiled: dict[str, Artifact] = {}


def forget() -> None:
    """Forget the artifacts that this process has compiled or read from the cache."""
    _compiled.clear()


def compile(
    kernel: Any, arguments: Mapping[str, Any], target: str = "sm_80", *, debug: bool = False, **options: Any
) -> Artifact:
    """Compile a kernel as Triton's JIT would for a launch with these arguments on that target.

    The cache keeps each compiled kernel for all processes.

    Args:
        kernel: The @triton.jit function.
        arguments: The kernel's arguments by name.
        target: The GPU to compile for: NVIDIA's like "sm_80" or AMD's like "gfx942".
        debug: If True, compile `tl.device_assert` and the checks for integer overflow in.
        **options: Options of the launch: num_warps, num_stages, enable_fp_fusion and so on.

    Raises:
        TypeError: If `kernel` is no @triton.jit function.
        RuntimeError: If TRITON_INTERPRET is set.
        ValueError: If `target` is no GPU's name.
    """
    special = specialize(kernel, arguments, target, debug=debug, **options)
    name = _name(kernel, special, target)
    if name not in _compiled:

        def make() -> bytes:
            source = ASTSource(kernel, special.signature, special.constants, special.hints)
            compiled = triton.compile(source, target=gpu_target(target), options=special.options.__dict__)
            return _packed(compiled, special.runtime_arguments())

        _compiled[name] = _unpacked(cache.once(name, make), target)
    return _compiled[name]


def run(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: Mapping[str, Any],
    target: str = "sm_80",
    *,
    debug: bool = False,
    seed: int = 0,
    ctas: Sequence[tuple[int, int, int]] | None = None,
    **options: Any,
) -> Report:
    """Compile a kernel for an NVIDIA GPU and run it in the PTX simulator. The kernel's stores are in the tensors
    afterward.

    Args:
        kernel: The @triton.jit function.
        grid: The number of programs, in up to three dimensions.
        arguments: The kernel's arguments by name.
        target: The NVIDIA GPU to compile for.
        debug: If True, compile `tl.device_assert` and the checks for integer overflow in.
        seed: The seed of the order in which the programs run.
        ctas: If given, the only programs to run.
        **options: Options of the launch: num_warps, num_stages, enable_fp_fusion and so on.

    Returns:
        The counts of the run, as `gpuless.ptx.simulate` returns them.

    Raises:
        TypeError: If `kernel` is no @triton.jit function.
        RuntimeError: If TRITON_INTERPRET is set.
        ValueError: If `target` is no NVIDIA GPU's name.
        gpuless.ptx.SimulationError: If the kernel does something wrong, like a race or an access out of bounds.
    """
    artifact = compile(kernel, arguments, target, debug=debug, **options)
    return artifact.run(grid, arguments, seed=seed, ctas=ctas)
