"""A launch compiled for a GPU that is not there, with exactly the specialisation that Triton's JIT would give it."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from ebgan_fast.ops.triton.launch import OPTIONS, Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


class Specialisation(NamedTuple):
    """What the compiler is told about the arguments of a launch."""

    signature: dict[str, str]  # type of every argument; "constexpr" where the value is compiled in
    constants: dict[tuple[int, ...], Any]  # by position
    hints: dict[tuple[int, ...], Any]  # by position: divisibility and, on AMD, the range of a pointer
    options: Any

    def runtime_arguments(self) -> tuple[str, ...]:
        """The arguments that are left for the launch to pass, in order."""
        return tuple(name for name, kind in self.signature.items() if kind != "constexpr")


@dataclass(frozen=True)
class Artefact:
    """A compiled kernel. `ptx` is empty on AMD, `amdgcn` on NVIDIA; `binary` is a cubin or an hsaco.

    The kernel's parameters are `runtime_arguments` and then Triton's own scratch pointers, null unless a kernel asks
    for scratch memory.
    """

    name: str
    target: str
    num_warps: int
    shared: int  # bytes a block
    tensor_memory: int  # columns a block, on the Blackwell of data centres
    runtime_arguments: tuple[str, ...]
    ttir: str  # Triton's own, before any target's lowering
    ptx: str
    amdgcn: str
    binary: bytes

    @cached_property
    def sass(self) -> str:
        """The machine code of an NVIDIA target. Read when first asked for: the simulator needs none."""
        return self._inspect(triton.knobs.nvidia.nvdisasm.path, "-c")

    @cached_property
    def usage(self) -> str:
        """The registers and the stack of an NVIDIA target, in cuobjdump's words."""
        return self._inspect(triton.knobs.nvidia.cuobjdump.path, "-res-usage")

    def _inspect(self, tool: str, option: str) -> str:
        if not self.ptx:
            raise ValueError(f"{self.name} was compiled for {self.target}, which is not NVIDIA's")
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.binary)
            file.flush()
            return subprocess.run([tool, option, file.name], check=True, capture_output=True, text=True).stdout


def _check_kernel(kernel: Any) -> None:
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: kernels are interpreted, so there is nothing to compile; unset it")
    if not isinstance(kernel, JITFunction):
        raise TypeError(f"{kernel!r} is no @triton.jit function")


def specialise(launch: Launch, target: str, *, debug: bool = False) -> Specialisation:
    """The compiler's input for this launch, from the functions by which Triton's own JIT finds it."""
    _check_kernel(launch.kernel)
    backend = make_backend(TARGETS[target])
    keywords = {
        **launch.arguments,
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        "debug": debug,
        **OPTIONS,
    }
    binder = create_function_from_signature(launch.kernel.signature, launch.kernel.params, backend)
    bound, specialization, options = binder(**keywords)
    options, signature, constants, hints = launch.kernel._pack_args(backend, keywords, bound, specialization, options)
    return Specialisation(signature, constants, hints, options)


_compiled: dict[Any, Artefact] = {}


def compile_launch(launch: Launch, target: str, *, debug: bool = False) -> Artefact:
    """Compile the kernel as the JIT would at this launch on that target (a key of TARGETS).

    debug compiles `tl.device_assert` and the checks for integer overflow in. A specialisation is compiled once a
    process; TRITON_CACHE_DIR keeps it on disk.
    """
    special = specialise(launch, target, debug=debug)
    key = (launch.kernel.cache_key, target, repr(special))
    if key not in _compiled:
        source = ASTSource(launch.kernel, special.signature, special.constants, special.hints)
        compiled = triton.compile(source, target=TARGETS[target], options=special.options.__dict__)
        _compiled[key] = Artefact(
            name=compiled.metadata.name,
            target=target,
            num_warps=compiled.metadata.num_warps,
            shared=compiled.metadata.shared,
            tensor_memory=getattr(compiled.metadata, "tmem_size", None) or 0,
            runtime_arguments=special.runtime_arguments(),
            ttir=compiled.asm["ttir"],
            ptx=compiled.asm.get("ptx", ""),
            amdgcn=compiled.asm.get("amdgcn", ""),
            binary=compiled.kernel,
        )
    return _compiled[key]
