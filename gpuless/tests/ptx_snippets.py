"""Kernels of a few PTX instructions, to test one instruction at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuless.arrays import ArrayLike
from gpuless.ptx import Argument, Report, simulate

Array = NDArray[Any]

_KERNEL = """
.version 8.5
.target sm_80
.address_size 64
.visible .entry snippet({parameters})
{{
    .reg .b64 %address<{count}>;
    .reg .b64 %index;
    .reg .b32 %thread;
    .reg .pred %p<10>;
{declarations}
    mov.u32 %thread, %tid.x;
    cvt.u64.u32 %index, %thread;
{addresses}
{body}
    ret;
}}
"""


def kernel(parameters: int, registers: str, body: str) -> str:
    """Return the PTX of a kernel whose parameters are pointers.

    The registers %address0, %address1, … hold the pointers. The kernel also has %thread, %index (64 bits) and the
    predicates %p0 to %p9. `registers` declares more, like "b32 a, b64 c".
    """
    declarations = "".join(
        f"    .reg .{kind} %{name};\n" for kind, name in (each.split() for each in registers.split(",") if each.strip())
    )
    addresses = "".join(f"    ld.param.u64 %address{number}, [p{number}];\n" for number in range(parameters))
    return _KERNEL.format(
        parameters=", ".join(f".param .u64 p{number}" for number in range(parameters)),
        count=parameters,
        declarations=declarations,
        addresses=addresses,
        body=body,
    )


def run(
    body: str,
    *pointers: ArrayLike,
    registers: str = "",
    threads: int = 32,
    grid: tuple[int, ...] = (1,),
    shared_bytes: int = 0,
    seed: int = 0,
    declarations: str = "",
) -> Report:
    """Run a snippet on arrays in the simulator. `declarations`, as of shared memory, come before the kernel."""
    text = kernel(len(pointers), registers, body).replace(".visible", declarations + " .visible")
    arguments: list[Argument] = list(pointers)
    return simulate(text, grid=grid, threads=threads, arguments=arguments, shared_bytes=shared_bytes, seed=seed)


def evaluate(body: str, inputs: Mapping[str, Array], result: np.dtype[Any] | type, registers: str = "") -> Array:
    """Return the content of %d after the body, with one thread for each element of the inputs.

    Each input is in the register of its name. Predicates are %p0 to %p9; a body stores a predicate by selp.
    """
    count = len(next(iter(inputs.values())))
    threads = -(-count // 32) * 32
    output = np.zeros(threads, result)
    padded = [np.resize(values, threads) for values in inputs.values()]
    loads = ""
    for number, (name, values) in enumerate(inputs.items()):
        size = values.dtype.itemsize
        loads += f"mad.lo.u64 %address{number}, %index, {size}, %address{number};\n"
        loads += f"ld.global.b{8 * size} %{name}, [%address{number}];\n"
    last, size = len(inputs), output.itemsize
    store = f"mad.lo.u64 %address{last}, %index, {size}, %address{last};\nst.global.b{8 * size} [%address{last}], %d;\n"
    declared = [registers] if registers else []
    declared += [f"b{8 * values.dtype.itemsize} {name}" for name, values in inputs.items()]
    declared += [f"b{8 * size} d"]
    run(loads + body + "\n" + store, *padded, output, registers=", ".join(declared), threads=threads)
    return output[:count]
