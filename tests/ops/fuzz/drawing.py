"""Cases of the differential test: everything that an op is called with, drawn from one integer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from . import energies
from .layouts import LAYOUTS, laid_out, negative_view, numbers
from .ranges import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Array, Format

FORMATS = {torch.float64: FLOAT64, torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
OPS = {
    "reconstruction_energy": ("recon", "target"),
    "hinge_margin_loss": ("energy_real", "energy_fake"),
    "pulling_away_term": ("code",),
    "discriminator_loss": ("recon_real", "real", "recon_fake", "fake"),
    "generator_loss": ("recon_fake", "fake", "code"),
}
_SHARES = (0.24, 0.1, 0.3, 0.18, 0.18)
NORMS = ("l2", "mse", "sse", "l1")
KINDS = ("normal", "sparse", "half", "parallel", "alike", "orthogonal", "zero_rows", "constant", "wide")
SCALES = ("plain", "any", "smallest", "largest", "rows", "subnormal", "not_finite")
_OF_CODES = (0.3, 0.14, 0.14, 0.12, 0.03, 0.03, 0.1, 0.03, 0.11)
"""The share of each kind among codes.

Few codes are alike, orthogonal or constant: their gradient is 0, which a wrong formula may give too.
"""
_REPEATING = ("expanded_sample", "expanded_element")
"""Layouts in which a code has gradient 0: all its rows are equal, or all elements of each row."""
_SCALE_SHARES = (0.3, 0.24, 0.06, 0.06, 0.26, 0.04, 0.04)
_UPSTREAMS = (0.38, 0.2, 0.2, 0.2, 0.02)
"""The shares of 1, two other numbers, any number, and 0. Gradients of 0 show little, so 0 is rare."""
_WEIGHTS = (0.06, 0.5, 0.44)
"""The shares of a term's weights: 0, which leaves its gradient out, and two others."""

Coefficient: TypeAlias = Tensor | float


@dataclass
class Case:
    """A call of an op and of its backward."""

    seed: int
    op: str
    tensors: dict[str, Tensor]
    """The op's arguments that are batches, by name."""
    norm: str = "l2"
    reduction: str = "none"
    margin: Coefficient = 0.0
    weight: Coefficient = 0.0
    upstream: Tensor = field(default_factory=lambda: torch.tensor(1.0))
    told: Coefficient | None = None
    """The op's argument `upstream`, or None without it."""
    wanted: tuple[str, ...] = ()
    """The names of the tensors that require a gradient."""
    keeps_graph: bool = False
    threads: tuple[int, ...] = (1,)
    """The numbers of threads to run with, which must not change a bit."""
    words: list[str] = field(default_factory=list)
    """The words that describe the case to a reader."""

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first tensor."""
        return next(iter(self.tensors.values())).dtype


def format_of(dtype: torch.dtype) -> Format:
    return FORMATS[dtype]


def acc_of(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums run in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def promoted(*tensors: Tensor) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _one_of(rng: Generator, names: tuple[str, ...], shares: tuple[float, ...] | None = None) -> str:
    return names[int(rng.choice(len(names), p=shares))]


def _size(rng: Generator, most: int) -> int:
    """Draw a size: a small one, one around the widths of vectors and blocks, or any."""
    which = rng.random()
    if which < 0.4:
        size = int(rng.integers(1, 20))
    elif which < 0.7:
        size = int(rng.choice((16, 32, 64, 128, 256, 512, 1024, 2048))) + int(rng.integers(-1, 2))
    else:
        size = int(np.exp(rng.uniform(0, np.log(3000))))
    return max(1, min(size, most))


def _trailing(rng: Generator, elements: int) -> tuple[int, ...]:
    """Draw the shape of a sample of about so many elements."""
    which = rng.random()
    if elements == 1 and which < 0.3:
        return ()
    if which < 0.6:
        return (elements,)
    parts = int(rng.integers(2, 5))
    sizes, left = [], elements
    for _ in range(parts - 1):
        sizes.append(int(rng.integers(1, max(2, round(left ** (1 / parts)) + 2))))
        left = max(1, left // sizes[-1])
    return (left, *sizes) if rng.random() < 0.5 else (*sizes, left)


def _shape(rng: Generator) -> tuple[int, ...]:
    """Draw the shape of a pair."""
    if rng.random() < 0.02:  # rows that are cut into several tasks
        return (int(rng.integers(1, 6)), int(rng.integers(4000, 40_000)))
    count = int(rng.integers(0, 4)) if rng.random() < 0.25 else _size(rng, 150)
    return (count, *_trailing(rng, _elements(rng, count)))


def _elements(rng: Generator, count: int) -> int:
    room = 200_000 if rng.random() < 0.1 else 20_000
    return _size(rng, max(1, room // max(count, 1)))


def _shape_of_code(rng: Generator) -> tuple[int, ...]:
    which = rng.random()
    if which < 0.08:
        count = int(rng.integers(0, 4))
    else:
        count = int(rng.integers(150, 700)) if which < 0.11 else _size(rng, 150)
    narrow = rng.random() < 0.3 or count >= 150  # the dual form takes fewer elements than codes
    return (count, *_trailing(rng, int(rng.integers(1, min(count, 60) + 2)) if narrow else _elements(rng, count)))


def _values(rng: Generator, kind: str, count: int, elements: int, own: Format) -> Array:
    """Draw numbers of size about 1, [count, elements]."""
    drawn = rng.standard_normal((count, elements))
    if kind == "sparse":
        drawn *= rng.random((count, elements)) < 0.1
    if kind == "half":
        drawn = np.maximum(drawn, 0)
    if kind == "parallel" and count:
        drawn = drawn[:1] * rng.choice((-1.0, 1.0), (count, 1)) + rng.choice((1e-1, 1e-3, 1e-6)) * drawn
    if kind == "alike" and count:
        drawn = np.repeat(drawn[:1], count, 0)
    if kind == "orthogonal":
        drawn *= (np.arange(elements) % max(count, 1)) == np.arange(count)[:, None]
    if kind == "zero_rows":
        drawn *= rng.random((count, 1)) < 0.6
    if kind == "constant":
        drawn = np.repeat(rng.standard_normal((count, 1)), elements, 1)
    if kind == "wide":
        most = min(own.top, 300) * 0.8
        drawn = np.ldexp(drawn, rng.integers(-int(most), int(most) + 1, drawn.shape))
    return drawn


def _exponents(values: Array, own: Format) -> tuple[Array, Array]:
    """Return the exponents of the smallest and the largest power of two that may scale each row, [N, 1] each.

    Between these the row's numbers stay 0 or normal numbers.
    """
    sizes = np.abs(values)
    largest = sizes.max(1, initial=0.0, keepdims=True)
    smallest = np.where(sizes > 0, sizes, np.inf).min(1, initial=np.inf, keepdims=True)
    is_zero = largest == 0
    lowest = own.bottom + 1 - np.frexp(np.where(is_zero, 1.0, smallest))[1]
    return lowest, own.top + 1 - np.frexp(np.where(is_zero, 1.0, largest))[1]


def _shift(rng: Generator, scale: str, lowest: int, highest: int) -> int:
    """Draw the exponent of a power of two to multiply by."""
    if highest < lowest:  # numbers that span the whole range
        return 0
    if scale == "smallest":
        return lowest
    if scale == "largest":
        return highest
    if scale == "subnormal":
        return lowest - int(rng.integers(1, 6))
    if scale == "any":
        return int(rng.integers(lowest, highest + 1))
    return int(np.clip(rng.integers(-6, 7), lowest, highest))


def _scaled(rng: Generator, values: Array, scale: str, own: Format) -> Array:
    """Return the rows multiplied by a power of two: one for all, or one for each."""
    lowest, highest = _exponents(values, own)
    if scale != "rows":
        shift = _shift(rng, scale, int(lowest.max(initial=own.bottom)), int(highest.min(initial=own.top)))
        values = np.ldexp(values, shift)
    else:
        scales = ("any", "any", "smallest", "largest")
        shifts = [_shift(rng, _one_of(rng, scales), *each) for each in zip(lowest[:, 0], highest[:, 0], strict=True)]
        values = np.ldexp(values, np.array(shifts, dtype=int)[:, None])
    if scale == "not_finite" and values.size:
        for _ in range(int(rng.integers(1, 4))):
            values[int(rng.integers(len(values))), int(rng.integers(values.shape[1]))] = rng.choice(
                (np.inf, -np.inf, np.nan)
            )
    return values


def _rounded(values: Array, dtype: torch.dtype) -> Array:
    """Return the values rounded to the dtype, with zeros in place of numbers that are not normal."""
    own, found = format_of(dtype), torch.from_numpy(values).to(dtype).double().numpy()
    return np.where((np.abs(found) >= own.smallest) & (np.abs(found) <= own.largest), found, 0.0)


class _Drawing:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.scale = _one_of(self.rng, SCALES, _SCALE_SHARES)
        self.words: list[str] = []

    def dtype(self) -> torch.dtype:
        return tuple(FORMATS)[int(self.rng.integers(4))]

    def batch(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, beside: Tensor | None = None) -> Tensor:
        """Draw a tensor; with `beside`, it may be close or equal to that tensor."""
        rng, own, elements = self.rng, format_of(dtype), int(np.prod(shape[1:], dtype=int))
        kind = _one_of(rng, KINDS, _OF_CODES if name == "code" else None)
        if beside is not None and rng.random() < 0.4:
            kind = "close"
            near = numbers(beside).numpy()
            noise = rng.standard_normal(near.shape) * rng.choice((0.0, 1e-4, 1e-2, 1.0))
            with np.errstate(over="ignore", invalid="ignore"):
                drawn = np.clip(near * (1 + noise), -own.largest, own.largest)
        else:
            drawn = _scaled(rng, _rounded(_values(rng, kind, shape[0], elements, own), dtype), self.scale, own)
        values = torch.from_numpy(drawn.reshape(shape)).to(dtype)
        if name.startswith("energy"):
            values = values.abs()
        layout = _one_of(rng, LAYOUTS) if rng.random() < 0.6 else "contiguous"
        if name == "code" and layout in _REPEATING and rng.random() < 0.7:
            layout = "contiguous"
        tensor, layout = laid_out(values, layout, rng)
        if rng.random() < 0.05:
            tensor, layout = negative_view(tensor), f"{layout} negative_view"
        self.words.append(f"{name}={str(dtype).removeprefix('torch.')}{list(shape)} {kind} {layout}")
        return tensor

    def pair(self, names: tuple[str, str], shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
        other_dtype = self.dtype() if self.rng.random() < 0.1 else dtype
        target = self.batch(names[1], shape, other_dtype)
        return {names[0]: self.batch(names[0], shape, dtype, target), names[1]: target}

    def coefficient(self, value: float, dtype: torch.dtype = torch.float32) -> Coefficient:
        """Return the value as a number or as a 0-d tensor."""
        which, other = self.rng.random(), self.dtype()
        if value and not FLOAT16.smallest <= abs(value) <= FLOAT16.largest:
            other = dtype
        return value if which < 0.6 else torch.tensor(value, dtype=other if which < 0.8 else dtype)

    def upstream(self, dtype: torch.dtype, count: int | None = None) -> Tensor:
        """Draw an upstream gradient: a scalar, or one for each of `count` samples, with any stride."""
        rng = self.rng
        drawn = rng.standard_normal() * 2.0 ** rng.integers(-20, 21)
        if count is None:
            found = torch.tensor(float(rng.choice((1.0, -0.37, 4096.0, drawn, 0.0), p=_UPSTREAMS)), dtype=dtype)
        elif rng.random() < 0.3:  # the expanded scalar that .sum() sends
            found = torch.tensor(float(rng.choice((1.0, 0.5, -3.0, drawn, 0.0), p=_UPSTREAMS)), dtype=dtype)
            found = found.expand(count)
        else:
            several = rng.standard_normal(count) * 2.0 ** rng.integers(-8, 9) * (rng.random(count) < 0.85)
            step = int(rng.integers(1, 4))
            room = torch.full((count * step,), float("nan"), dtype=dtype)
            found = room[::step]
            found.copy_(torch.from_numpy(several))
        return negative_view(found) if rng.random() < 0.05 else found

    def margin(self, levels: Array) -> Coefficient:
        """Draw a margin: between energies, equal to one, beyond all, or one of a few fixed numbers."""
        levels = np.sort(levels[levels < 1e30])
        which = self.rng.random()
        if which < 0.1 or not levels.size:
            return self.coefficient(float(self.rng.choice((0.0, 1.0, 80.0))))
        if which < 0.3:
            value = float(levels[int(self.rng.integers(levels.size))])
        elif which < 0.9:
            value = float(levels[int(self.rng.integers(levels.size))] * self.rng.uniform(0.5, 1.5))
        else:
            value = float(levels[-1] * 2 + 1)
        return self.coefficient(value)


def draw(seed: int) -> Case:
    """Return the case of this integer."""
    drawing = _Drawing(seed)
    rng = drawing.rng
    op = _one_of(rng, tuple(OPS), _SHARES)
    dtype = drawing.dtype()
    tensors: dict[str, Tensor] = {}
    if op == "hinge_margin_loss":
        for name in OPS[op]:
            tensors[name] = drawing.batch(
                name, (int(rng.integers(0, 60)),), drawing.dtype() if rng.random() < 0.1 else dtype
            )
    elif op == "pulling_away_term":
        tensors["code"] = drawing.batch("code", _shape_of_code(rng), dtype)
    else:
        shape = _shape(rng)
        names = OPS[op]
        tensors |= drawing.pair((names[0], names[1]), shape, dtype)
        if op == "discriminator_loss":
            other = (int(rng.integers(0, 2 * shape[0] + 2)), *shape[1:])
            tensors |= drawing.pair((names[2], names[3]), other, dtype)
        if op == "generator_loss" and rng.random() < 0.8:
            code_dtype = drawing.dtype() if rng.random() < 0.1 else dtype
            elements = int(rng.integers(1, shape[0] + 2)) if rng.random() < 0.3 else _size(rng, 400)
            tensors["code"] = drawing.batch("code", (shape[0], *_trailing(rng, elements)), code_dtype)
    case = Case(seed, op, tensors, norm=_one_of(rng, NORMS), words=[f"{op} {drawing.scale}"])
    case.wanted = tuple(tensors)
    if rng.random() < 0.25:
        case.wanted = tuple(name for name in tensors if rng.random() < 0.5) or case.wanted[:1]
    case.keeps_graph = bool(rng.random() < 0.25)
    # Below this size a second thread gets no work anyway.
    is_large = sum(tensor.numel() for tensor in tensors.values()) > 2048
    case.threads = (1, 2, 3) if is_large or rng.random() < 0.2 else (int(rng.integers(1, 4)),)
    _complete(case, drawing)
    case.words += drawing.words
    return case


def _complete(case: Case, drawing: _Drawing) -> None:
    """Draw the arguments that only some ops have, such as the upstream, the margin and the weight."""
    rng, tensors = drawing.rng, case.tensors
    acc = acc_of(promoted(*tensors.values()))
    if case.op == "reconstruction_energy":
        case.reduction = _one_of(rng, ("none", "mean", "sum"), (0.7, 0.15, 0.15))
        count = tensors["recon"].shape[0] if case.reduction == "none" else None
        case.upstream = drawing.upstream(acc, count)
        case.words += [case.norm, case.reduction]
        return
    case.upstream = drawing.upstream(acc)
    if case.op == "hinge_margin_loss":
        case.margin = drawing.margin(numbers(tensors["energy_fake"]).numpy().reshape(-1))
    if case.op in ("discriminator_loss", "generator_loss"):
        if rng.random() < 0.5:
            came = float(case.upstream)
            is_other = rng.random() < 0.4 or came == 0
            case.told = drawing.coefficient(float(2.0 ** rng.integers(-4, 12)) if is_other else came, acc)
        case.words += [case.norm, f"told {case.told}"]
    if case.op == "discriminator_loss":
        recon, fake = tensors["recon_fake"], tensors["fake"]
        with np.errstate(all="ignore"):
            found = energies.energy(
                numbers(recon).numpy(), numbers(fake).numpy(), case.norm, format_of(acc_of(promoted(recon, fake)))
            )
        case.margin = drawing.margin(found.high)
    if case.op == "generator_loss" and "code" in tensors:
        case.weight = drawing.coefficient(float(rng.choice((0.0, 0.1, 3.0), p=_WEIGHTS)))
    case.words += [f"margin {case.margin}" if case.op != "generator_loss" else f"weight {case.weight}"]
    case.words += [f"upstream {case.upstream.tolist()}", "wanted " + ",".join(case.wanted)]
