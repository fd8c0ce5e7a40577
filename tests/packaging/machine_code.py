"""The registers, memory and instructions of each CUDA kernel in a built module, read from its machine code.

After a wanted change, `python -m tests.packaging.machine_code FILE` writes the budgets of the GPUs that a built module
is for (the ebgan_fast/_C.*.so of a wheel). Budgets of other GPUs are kept. Read the difference before you commit it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import triton

from gpuless import cache, sass
from gpuless.resources import Resources, budget_of, measure_sass, read_budgets, write_budgets

# GPUs whose code is disassembled too: sm_75, which runs multiply-adds only, and two that use tensor cores, the newest
# among them.
READ = ("sm_75", "sm_90", "sm_120")
FILE = Path(__file__).with_name("cuda_budgets.json")


def cuobjdump(module: Path, *options: str) -> str:
    """Return the output of cuobjdump, which comes with Triton."""
    tool = triton.knobs.nvidia.cuobjdump
    name = cache.key("cuobjdump", tool.version, module.read_bytes(), *options)
    command = [tool.path, *options, str(module)]
    return cache.once(name, lambda: subprocess.run(command, check=True, capture_output=True).stdout).decode()


def _sections(text: str, pattern: str) -> Iterator[tuple[str, str]]:
    """Yield each text that the pattern's group matches, with the text from there to the next match."""
    found = list(re.finditer(pattern, text, re.MULTILINE))
    for match, after in zip(found, [*found[1:], None], strict=False):
        yield match[1], text[match.end() : after.start() if after else None]


def _names(mangled: list[str]) -> dict[str, str]:
    """Return the kernels' names without namespaces, such as "gram_matrix<float, 64, false>", by their mangled names."""
    plain = subprocess.run(["c++filt"], input="\n".join(mangled), check=True, capture_output=True, text=True).stdout
    short = re.compile(r"^(?:void )?ebgan::cuda::([^(]+)\(")
    names = {}
    for symbol, line in zip(mangled, plain.splitlines(), strict=True):
        match = short.match(line)
        assert match is not None, line
        names[symbol] = match[1].replace("ebgan::cuda::", "")
    return names


def _warps(kernel: str) -> int:
    """Return the number of warps of a kernel's block, as the host code launches it."""
    if kernel.startswith("loss_by_rows"):
        return 16
    if kernel.startswith("gram_matrix"):
        return 8 if ", 128, " in kernel else 4
    if kernel.startswith("dual_gradient") or kernel == "primal_gradient<double>":
        return 4
    return 8


def _instructions(module: Path, architecture: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the kernels for one GPU and their instructions."""
    with tempfile.TemporaryDirectory() as folder:
        command = [triton.knobs.nvidia.cuobjdump.path, "-arch", architecture, "-xelf", "all", str(module.resolve())]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)  # writes files into the folder
        codes = {}
        for cubin in sorted(Path(folder).iterdir()):
            codes |= sass.code_of(cubin.read_bytes())
    yield from zip(codes, sass.instructions(architecture, list(codes.values())), strict=True)


def resources_of(module: Path) -> dict[str, Resources]:
    """Return the resources of each kernel for each GPU, by "kernel | architecture"."""
    usage = {
        (architecture, symbol): line
        for architecture, part in _sections(cuobjdump(module, "-res-usage"), r"^arch = (sm_\d+)$")
        for symbol, line in _sections(part, r"^ Function (\S+):$")
    }
    instructions = {
        (architecture, symbol): names
        for architecture in sorted({architecture for architecture, _ in usage}.intersection(READ))
        for symbol, names in _instructions(module, architecture)
    }
    names = _names(sorted({symbol for _, symbol in usage}))
    found = {}
    for (architecture, symbol), line in usage.items():
        shared = re.search(r"SHARED:(\d+)", line)
        assert shared is not None
        kernel, code = names[symbol], instructions[architecture, symbol] if architecture in READ else []
        found[f"{kernel} | {architecture}"] = measure_sass(architecture, line, code, int(shared[1]), _warps(kernel))
    return found


_OF_CODE = ("spills", "wide_loads", "wide_stores", "tensor_core", "float_atomics", "instructions")
_LEFT_OUT = ("scalar_loads", "scalar_stores")  # of one number, not 16 bytes; some kernels need them


def _budget(resources: Resources) -> dict[str, float]:
    budget = budget_of(resources)
    for key in (*_LEFT_OUT, *([] if resources.target in READ else _OF_CODE)):
        del budget[key]
    return budget


if __name__ == "__main__":
    found = {key: _budget(it) for key, it in resources_of(Path(sys.argv[1])).items()}
    kernels = {key.split(" | ")[0] for key in found}
    kept = {key: it for key, it in read_budgets(FILE).items() if key.split(" | ")[0] in kernels}
    write_budgets(FILE, kept | found)
