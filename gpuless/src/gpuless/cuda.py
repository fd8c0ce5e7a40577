"""Compile kernels of .cu files by nvcc and run them in the PTX simulator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from . import tools
from .compiling import compiled
from .ptx import Argument, Report, simulate


def missing() -> str | None:
    """Return the reason why .cu files cannot be compiled here; None if they can."""
    return None if tools.nvcc() else tools.NO_NVCC


def ptx(
    source: Path | str,
    target: str = "sm_80",
    *,
    options: Sequence[str] = (),
    headers: Sequence[Path] = (),
    root: Path | None = None,
) -> str:
    """Return the PTX of a .cu file, compiled by nvcc with C++17, -O3 and line numbers.

    Args:
        source: The .cu file.
        target: The GPU architecture, like "sm_80".
        options: More options for nvcc.
        headers: Folders for -I.
        root: If given, file names in the PTX are relative to this folder. Another tree with the same files then shares
            the cache entry.

    Raises:
        RuntimeError: If nvcc is missing, or fails: with the text that it printed.
    """
    nvcc = tools.nvcc()
    if nvcc is None:
        raise RuntimeError(missing())
    flags = ["-std=c++17", "-O3", "-lineinfo", *options, f"-arch={target}", "-ptx"]
    made = compiled(
        nvcc,
        [Path(source).resolve()],
        options=flags,
        headers=headers,
        root=root,
        host_compiler=tools.compiler(),
        take_root_out=True,
    )
    return made.decode()


def run(
    source: Path | str,
    entry: str,
    *,
    grid: int | tuple[int, ...],
    threads: int | tuple[int, ...],
    arguments: Sequence[Argument],
    shared_bytes: int = 0,
    seed: int = 0,
    target: str = "sm_80",
    options: Sequence[str] = (),
    headers: Sequence[Path] = (),
) -> Report:
    """Compile a .cu file and run its kernel `entry` in the PTX simulator. The kernel's stores are in the arrays
    afterward.

    Args:
        source: The .cu file.
        entry: The kernel's name in the source. Where several kernels share it (templates), the name in the PTX.
        grid: The number of blocks, in up to three dimensions.
        threads: The number of threads of a block, in up to three dimensions.
        arguments: The kernel's arguments, as `gpuless.ptx.simulate` takes them.
        shared_bytes: The bytes of dynamic shared memory of a block.
        seed: The seed of the order in which the blocks run.
        target: The GPU architecture, like "sm_80".
        options: More options for nvcc.
        headers: Folders for -I.

    Returns:
        The counts of the run, as `gpuless.ptx.simulate` returns them.

    Raises:
        RuntimeError: If nvcc is missing, or fails: with the text that it printed.
        ValueError: If `entry` is not the name of exactly one kernel.
        gpuless.ptx.SimulationError: If the kernel does something wrong, like a race or an access out of bounds.
    """
    text = ptx(source, target, options=options, headers=headers)
    return simulate(
        text,
        entry=name_in(text, entry),
        grid=grid,
        threads=threads,
        arguments=arguments,
        shared_bytes=shared_bytes,
        seed=seed,
    )


def name_in(text: str, entry: str) -> str:
    """Return the name in the PTX of a kernel of the source. Raise ValueError unless exactly one kernel has the name
    `entry`.
    """
    # A mangled C++ name holds the length of the kernel's name and then the name.
    names = re.findall(r"\.entry\s+([\w$.]+)", text)
    mangled = [name for name in names if name.startswith("_Z") and f"{len(entry)}{entry}" in name]
    found = [entry] if entry in names else mangled
    if len(found) != 1:
        raise ValueError(f"entry: got {entry!r}, expected the name of one kernel of {', '.join(names) or 'none'}")
    return found[0]
