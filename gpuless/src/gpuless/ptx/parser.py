"""Parse PTX text into a program: instructions, labels, registers, and offsets in shared, local and constant memory."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from .errors import Unsupported
from .formats import DTYPES, size_of


@dataclass(frozen=True)
class Instruction:
    opcode: str  # "ld"
    modifiers: tuple[str, ...]  # ("global", "v4", "b32")
    operands: tuple[str, ...]
    guard: str | None  # the predicate register in @%p or @!%p
    negated: bool
    line: int  # the line in the PTX text
    text: str
    source: str  # like "kernels.py:12", if the PTX tells it

    @property
    def kind(self) -> str:
        """The type of the instruction's last operand."""
        return self.modifiers[-1] if self.modifiers else ""


@dataclass(frozen=True)
class Parameter:
    name: str
    kind: str  # "u64", "f32", ..., or "bytes"
    size: int


@dataclass
class Program:
    name: str
    parameters: list[Parameter]
    threads: int | None  # from .reqntid or .maxntid
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    registers: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (index, bytes; 0 for a predicate)
    shared: dict[str, int] = field(default_factory=dict)  # name -> offset
    shared_bytes: int = 0
    local: dict[str, int] = field(default_factory=dict)
    local_bytes: int = 0
    constants: dict[str, int] = field(default_factory=dict)  # name -> offset in constant_bytes
    constant_bytes: bytearray = field(default_factory=bytearray)


def split_operands(text: str) -> tuple[str, ...]:
    """Split at the commas that lie outside of brackets and braces."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    if text[start:].strip():
        parts.append(text[start:].strip())
    return tuple(parts)


def parse(ptx: str, entry: str | None = None) -> Program:
    """Return the kernel named `entry`, or the only kernel. Raise Unsupported unless there is exactly one."""
    text = re.sub(r"\.section\b.*", "", ptx, flags=re.S)
    files = {
        number: path.rsplit("/", 1)[-1] for number, path in re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', ptx, re.M)
    }
    text = re.sub(r"/\*.*?\*/", lambda comment: "\n" * comment[0].count("\n"), text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text)
    entries = [m for m in re.finditer(r"\.entry\s+([\w$.]+)\s*\(([^)]*)\)", text) if entry in (None, m[1])]
    if len(entries) != 1:
        raise Unsupported(f"got {len(entries)} kernels in the PTX, expected one: say which by entry=")
    head = entries[0]
    begin = text.index("{", head.end())
    end = _closing_brace(text, begin)
    bounds = re.search(r"\.(?:reqntid|maxntid)\s+([\d,\s]+)", text[head.end() : begin])
    threads = int(np.prod([int(size) for size in bounds[1].split(",")])) if bounds else None
    program = Program(head[1], _parameters(head[2]), threads)
    _lay_out_memory(program, text, text[begin:end])
    _number_registers(program, text[begin:end])
    _read_body(program, text, begin + 1, end, files)
    return program


def _closing_brace(text: str, begin: int) -> int:
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, begin):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    raise Unsupported("the kernel has no end")


def _parameters(text: str) -> list[Parameter]:
    parameters = []
    for declaration in split_operands(text):
        words = declaration.split()
        array = re.match(r"([\w$]+)\[(\d+)\]$", words[-1])
        if array:
            parameters.append(Parameter(array[1], "bytes", int(array[2])))
        else:
            kind = next(word[1:] for word in words if word[1:] in DTYPES)
            parameters.append(Parameter(words[-1], kind, size_of(kind)))
    return parameters


_DECLARATION = re.compile(
    r"\.(shared|local|global|const)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$.]+)\s*(\[\s*\d*\s*\])?\s*(?:=\s*(\{[^}]*\}|[^;]+))?\s*;"
)


def _lay_out_memory(program: Program, text: str, body: str) -> None:
    """Set the offsets of variables in shared, local and (initialized) global or constant memory."""
    for space, align, kind, name, bracket, initial in _DECLARATION.findall(text):
        if kind not in DTYPES:
            continue
        alignment = int(align or size_of(kind))
        count = int(bracket.strip("[] ") or 0) if bracket else 1
        if space == "shared":
            program.shared[name] = -(-program.shared_bytes // alignment) * alignment
            program.shared_bytes = program.shared[name] + count * size_of(kind)
        elif space == "local":
            program.local[name] = -(-program.local_bytes // alignment) * alignment
            program.local_bytes = program.local[name] + count * size_of(kind)
        else:
            program.constant_bytes.extend(bytes(-len(program.constant_bytes) % max(alignment, 16)))
            program.constants[name] = len(program.constant_bytes)
            program.constant_bytes.extend(_initial_bytes(initial, kind, count))


def _initial_bytes(initial: str, kind: str, count: int) -> bytes:
    mask = (1 << 8 * size_of(kind)) - 1
    words = [word.strip() for word in initial.strip("{} ").split(",") if word.strip()]
    bits = []
    for word in words:
        number = int(word[2:], 16) if re.match(r"0[fFdD]", word) else int(word.rstrip("U"), 0)
        bits.append((number & mask).to_bytes(size_of(kind), "little"))
    return b"".join(bits).ljust(count * size_of(kind), b"\0")


def _number_registers(program: Program, body: str) -> None:
    for kind, names in re.findall(r"\.reg\s+\.(\w+)\s+([^;]+);", body):
        if kind not in DTYPES:
            continue
        size = 0 if kind == "pred" else size_of(kind)
        for name in names.split(","):
            block = re.match(r"\s*(.+)<(\d+)>", name)
            every = [f"{block[1]}{number}" for number in range(int(block[2]))] if block else [name.strip()]
            for register in every:
                program.registers.setdefault(register, (len(program.registers), size))


_TOKEN = re.compile(r"\.loc\s+(\d+)\s+(\d+)[^\n]*|([\w$%.]+):(?!:)|[{}](?=\s)|([^;{}\s](?:[^;{}]|\{[^}]*\})*);")
_STATEMENT = re.compile(r"(?:@(!?)\s*([%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", re.S)


def _read_body(program: Program, text: str, begin: int, end: int, files: dict[str, str]) -> None:
    """Fill in instructions and labels. Scopes in braces are flattened, because their registers have distinct names."""
    source, line, counted = "", text.count("\n", 0, begin) + 1, begin
    for token in _TOKEN.finditer(text, begin, end):
        line += text.count("\n", counted, token.start())
        counted = token.start()
        if token[1]:
            source = f"{files.get(token[1], '?')}:{token[2]}"
        elif token[3]:
            program.labels[token[3]] = len(program.instructions)
        elif token[4] and not token[4].startswith("."):
            words = " ".join(token[4].split())
            statement = _STATEMENT.match(words)
            if statement is None:
                raise Unsupported(f"can't read line {line}: {words}")
            opcode, *modifiers = statement[3].split(".")
            instruction = Instruction(
                opcode,
                tuple(modifiers),
                split_operands(statement[4]),
                statement[2],
                bool(statement[1]),
                line,
                words,
                source,
            )
            program.instructions.append(instruction)
