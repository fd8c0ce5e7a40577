"""Read the machine code of NVIDIA's GPUs (SASS) from cubins, and disassemble it.

nvdisasm comes with Triton. It takes 0.2 to 0.5 s to start, and 0.02 s for each kernel, so many kernels share one run.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice

from . import cache

_INSTRUCTION_BYTES = 16  # since sm_70
# /*0a10*/  @!P0 LDG.E.128 R4, [R2.64] ;
_LINE = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)", re.MULTILINE)
_SECTION_HEADER = struct.Struct("<IIQQQQ")  # name, type, flags, address, offset, size; the later fields are not read


def code_of(cubin: bytes) -> dict[str, bytes]:
    """Return the machine code of every function in a cubin, by the function's name.

    A cubin is a 64-bit ELF file, whose section .text.NAME holds the function NAME. Raise ValueError for any other file,
    and for a file that was cut short.
    """
    if cubin[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"cubin: got a file that begins with {cubin[:6]!r}, expected ELF of 64 bits, little-endian")
    try:
        return dict(_functions(cubin))
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"cubin: got {len(cubin)} bytes, expected more: {error}") from error


def _functions(cubin: bytes) -> Iterator[tuple[str, bytes]]:
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, of_names = struct.unpack_from("<3H", cubin, 58)
    headers = [_SECTION_HEADER.unpack_from(cubin, table + number * size) for number in range(count)]
    names = headers[of_names][4]
    for name, _, _, _, offset, length in headers:
        begin = names + name
        text = cubin[begin : cubin.index(b"\0", begin)].decode()
        if text.startswith(".text."):
            if offset + length > len(cubin):
                raise IndexError(f"{text} ends at {offset + length}")
            yield text.removeprefix(".text."), cubin[offset : offset + length]


def instructions(target: str, codes: Sequence[bytes]) -> list[list[str]]:
    """Return the instructions of each code in order, without predicates and operands: "LDG.E.128", "BRA".

    The cache keeps the result of each disassembly. Raise RuntimeError if nvdisasm cannot read a code.
    """
    tool, version = _nvdisasm()
    names = [cache.key("instructions", version, target, code) for code in codes]
    found = {name: kept.decode().split() for name in names if (kept := cache.read(name)) is not None}
    missing = {name: code for name, code in zip(names, codes, strict=True) if name not in found}
    if missing:
        made = _disassembled(tool, target, list(missing.values()))
        for name, instruction in zip(missing, made, strict=True):
            cache.write(name, " ".join(instruction).encode())
            found[name] = instruction
    return [found[name] for name in names]


def names_in(listing: str) -> list[str]:
    """Return the instructions in a listing of nvdisasm or cuobjdump, without predicates and operands."""
    return [instruction for _, instruction in _LINE.findall(listing)]


def _nvdisasm() -> tuple[str, str]:
    """Return the path and the version of nvdisasm."""
    import triton

    tool = triton.knobs.nvidia.nvdisasm
    return tool.path, tool.version


def _disassembled(tool: str, target: str, codes: Sequence[bytes]) -> list[list[str]]:
    """Return the instructions of each code. One run of nvdisasm reads all codes, joined to a single one."""
    if any(len(code) % _INSTRUCTION_BYTES for code in codes):
        raise RuntimeError(f"got codes of {[len(code) for code in codes]} bytes, expected multiples of 16")
    number = int(target.removeprefix("sm_"))
    # With "a", nvdisasm reads more instructions, and the others in the same way.
    architecture = f"SM{number}a" if number >= 90 else f"SM{number}"
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        # -ndf leaves out the analysis that names the targets of jumps.
        command = [tool, "-ndf", "-b", architecture, file.name]
        done = subprocess.run(command, capture_output=True, text=True)
    lines = _LINE.findall(done.stdout)
    places = range(0, sum(map(len, codes)), _INSTRUCTION_BYTES)
    if done.returncode or [int(place, 16) for place, _ in lines] != list(places):
        raise RuntimeError(f"{' '.join(command)}: {len(lines)} of {len(places)} instructions\n{done.stderr}")
    every = (instruction for _, instruction in lines)
    return [list(islice(every, len(code) // _INSTRUCTION_BYTES)) for code in codes]
