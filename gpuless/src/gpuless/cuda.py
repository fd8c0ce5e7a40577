"""Kernels of .cu files as nvcc compiles them, in the PTX simulator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from . import tools
from .compiling import compiled
from .ptx import Argument, Report, simulate


def missing() -> str | None:
    """The reason why no .cu file can be compiled here; None if it can."""
    return None if tools.nvcc() else tools.NO_NVCC


def ptx(
    source: Path | str,
    target: str = "sm_80",
    *,
    options: Sequence[str] = (),
    headers: Sequence[Path] = (),
    root: Path | None = None,
) -> str:
    """The PTX of a .cu file, by nvcc -ptx with C++17, -O3 and line numbers.

    options are nvcc's, headers are folders for -I. With a root, the file names in it are relative to it, and another
    tree with the same files is not compiled again. RuntimeError without nvcc, or with what it printed.
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
    """Compile a .cu file and run its kernel `entry` in the PTX simulator; its stores are in the arrays afterward.

    entry is the kernel's name in the source, or that in the PTX where several have it (templates). The rest is as for
    `ptx` and `gpuless.ptx.simulate`.
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
    """The name that a kernel of the source has in PTX. ValueError unless it is that of one kernel."""
    # C++ writes a name as its length and itself, among those of its namespaces and parameters.
    names = re.findall(r"\.entry\s+([\w$.]+)", text)
    mangled = [name for name in names if name.startswith("_Z") and f"{len(entry)}{entry}" in name]
    found = [entry] if entry in names else mangled
    if len(found) != 1:
        raise ValueError(f"entry: got {entry!r}, expected the name of one kernel of {', '.join(names) or 'none'}")
    return found[0]
