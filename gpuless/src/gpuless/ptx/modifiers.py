"""The modifiers that the simulator knows. An instruction with an unknown modifier must not run as if it had none."""

from __future__ import annotations

from .errors import Unsupported
from .formats import DTYPES
from .parser import Instruction

_TYPES = frozenset(DTYPES)
_FLOATING = frozenset(("rn", "ftz", "sat", "relu", "NaN", "approx", "full"))
_INTEGER = frozenset(("lo", "hi", "wide", "l", "r", "clamp", "wrap"))
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu")
_SPACES = ("global", "shared", "shared::cta", "local", "param", "const")
_ORDERINGS = ("weak", "relaxed", "acquire", "release", "acq_rel", "sc", "volatile", "cta", "cluster", "gpu", "sys")
_CACHES = ("ca", "cg", "cs", "cv", "wb", "wt", "lu", "nc")
_ATOMIC = ("add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec", "noftz")
_SHAPES = ("m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32", "m8n8k4")

_KNOWN: dict[str, frozenset[str]] = {
    "mov": frozenset(),
    "and": frozenset(),
    "or": frozenset(),
    "xor": frozenset(),
    "not": frozenset(),
    "selp": frozenset(),
    "cvt": frozenset(("rn", "rz", "rna", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "relu")),
    "setp": frozenset((*_COMPARISONS, "num", "nan", "and", "or", "xor", "ftz")),
    "cvta": frozenset((*_SPACES, "to")),
    "ld": frozenset((*_SPACES, *_ORDERINGS, *_CACHES, "v2", "v4", "v8")),
    "ldu": frozenset((*_SPACES, "v2", "v4")),
    "st": frozenset((*_SPACES, *_ORDERINGS, *_CACHES, "v2", "v4", "v8", "func")),
    "atom": frozenset((*_SPACES, *_ORDERINGS, *_ATOMIC, "v2", "v4", "v8")),
    "red": frozenset((*_SPACES, *_ORDERINGS, *_ATOMIC, "v2", "v4", "v8")),
    "mma": frozenset((*_SHAPES, "sync", "aligned", "row", "col")),
    "ldmatrix": frozenset(("sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta")),
    "stmatrix": frozenset(("sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta")),
    "shfl": frozenset(("sync", "up", "down", "bfly", "idx")),
    "vote": frozenset(("sync", "ballot", "any", "all", "uni")),
    "redux": frozenset(("sync", "add", "min", "max", "and", "or", "xor")),
}


def check_modifiers(instruction: Instruction, computes: bool) -> None:
    """Raise Unsupported for an unknown modifier.

    `computes` tells if an opcode outside of the table is arithmetic. Other opcodes outside of the table are not
    checked.
    """
    known = _KNOWN.get(instruction.opcode, _FLOATING | _INTEGER if computes else None)
    if known is None:
        return
    hints = ("L1::", "L2::")
    unknown = [each for each in instruction.modifiers if each not in known | _TYPES and not each.startswith(hints)]
    if unknown:
        raise Unsupported(f"{'.'.join(unknown)} of {instruction.opcode}")
