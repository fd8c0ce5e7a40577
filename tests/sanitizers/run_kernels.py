"""Run the kernels of one compiled module, without torch, on arrays that end where the kernels must.

    python run_kernels.py MODULE malloc|guard-pages FAMILY...     place the arrays so (see memory.Memory), and run these
                                                                  cases: energy, hinge, code
    python run_kernels.py MODULE --list                           print the instruction sets of this processor

Each case prints a line before it runs, so that the last line names the case that ended the process.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from types import ModuleType

import numpy as np
import truth
from memory import FLOAT32, FLOAT64, FORMATS, Array, Format, Memory, Rows, accumulator

SHORT = [*range(1, 71), 127, 128, 129, 1023, 4097]
CHUNKED = [(1, 4097), (2, 9000), (1, 70_001), (3, 8192)]  # rows longer than one task of 4,096 elements
# These run again with stores past the cache: (gap, shift) of rows that start on whole vectors, and of others.
STREAMED = [(3, 9024, (0, 0)), (3, 9024 + 13, (64 - 13, 0)), (2, 9024, (3, 5))]
STREAMED_CODES = [(8192, 16, (0, 0)), (17, 9024 + 13, (64 - 13, 0)), (17, 9024, (3, 5))]
CODES = [(0, 3), (1, 5), (2, 1), (2, 2), (3, 7), (5, 97), (7, 8), (9, 4), (97, 100), (100, 95), (250, 17), (64, 300)]
LARGE_CODES = [(193, 200), (130, 520), (1500, 40), (400, 33), (2, 40_000), (7, 9001)]
BEYOND_32_BITS = 2**31 + 11
# The upstreams of a loss or a pulling-away term. For 0, gradients are exact zeros.
UPSTREAMS = (1.0, 1.5, -0.375, 3.0, 0.0)
# Exponents of two that bring the squares of a code out of the range of its sums. float16 has none.
FAR = {"float64": 500, "float32": 60, "bfloat16": 60}
NO_BATCH = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)


Layout = tuple[int, int] | None


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("ebgan_fast._C", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _turns(k: int) -> Sequence[int]:
    """Return the turns that rows of k elements take: all eight, or every other one.

    Rows of k and of k + 16 elements end alike, as a vector holds 16 elements at most. One of the two takes the even
    turns, the other the odd turns.
    """
    return range(8) if k <= 16 or k > 70 else range(k // 16 % 2, 8, 2)


def _number(value: float) -> tuple[int, float]:
    """Return a coefficient as the kernels take it: no address, and the number."""
    return 0, value


class Batch:
    """A pair of recon and target, with outputs for the energies and some gradients.

    `turn` decides which gradients there are, and the gap and shift of each array. With `layout`, a (gap, shift), all
    arrays have that one.
    """

    def __init__(self, memory: Memory, fmt: Format, n: int, k: int, turn: int, layout: Layout = None) -> None:
        draw = np.random.default_rng([fmt.code, n, k, turn])
        recon, target = draw.integers(-4, 5, (2, n, k)).astype(np.float64)
        if n > 2:
            recon[-1] = target[-1]  # makes an energy of 0
        self.n, self.k, self.format = n, k, fmt
        self.difference = recon - target
        layouts = [layout or (turn * odd % 6, (turn * odd + odd // 2) % 8) for odd in (1, 3, 5, 7)]
        rows = partial(Rows, memory, fmt, (n, k))
        self.recon, self.target = rows(recon, *layouts[0]), rows(target, *layouts[1])
        self.to_recon = rows(None, *layouts[2]) if turn % 4 != 1 else None
        self.to_target = rows(None, *layouts[3]) if turn % 4 != 2 else None
        self.energy = Rows(memory, accumulator(fmt), (1, n), None, shift=turn % 3)

    def packed(self, gradients: bool = True) -> tuple[int, ...]:
        """Return the members of Batch in csrc/kernels.h."""
        arrays = self.recon, self.target, *((self.to_recon, self.to_target) if gradients else (None, None))
        addresses = [rows.address if rows else 0 for rows in arrays]
        strides = [rows.stride if rows else 0 for rows in arrays]
        return *addresses, self.energy.address, *strides, self.n, self.k

    def check(self, norm: str, coefficient: Array | None) -> None:
        """Check energies and gradients; `coefficient` is dL/dE, [n], or None if no gradient was computed."""
        self.recon.check("recon")
        self.target.check("target")
        self.energy.check("energy")
        truth.assert_close("energy", self.energy.read()[0], truth.energies(norm, self.difference), self.energy.format)
        if coefficient is None:
            return
        gradient = truth.gradients(norm, self.difference, coefficient)
        for what, rows, sign in (("to_recon", self.to_recon, 1), ("to_target", self.to_target, -1)):
            if rows:
                rows.check(what)
                truth.assert_close(what, rows.read(), sign * gradient, self.format)


class Cases:
    def __init__(self, module: ModuleType, placement: str) -> None:
        self.kernels = module
        self.memory = Memory(guard_pages=placement == "guard-pages")

    def run(self, families: Sequence[str]) -> int:
        """Run the cases of the families, and return their number."""
        cases = {"energy": self.energies, "hinge": self.hinges, "code": self.codes}
        number = 0
        for number, (name, case) in enumerate((case for family in families for case in cases[family]()), 1):
            print(f"case {number}: {name}", flush=True)
            case()
            self.memory.release()
        return number

    def energies(self) -> Iterator[tuple[str, partial[None]]]:
        for fmt in FORMATS:
            short = [((1, 3)[(turn + k) % 2], k, turn) for k in SHORT for turn in _turns(k)]
            others = [(n, k, turn) for n, k in [(0, 5), (1000, 33), *CHUNKED] for turn in range(4)]
            for n, k, turn in short + others:
                yield f"energy {fmt.name} {n} x {k}, turn {turn}", partial(self.energy, fmt, n, k, turn)
            for n, k, layout in STREAMED:
                for turn in range(4):
                    case = partial(self.energy, fmt, n, k, turn, layout)
                    yield f"streamed energy {fmt.name} {n} x {k}, {layout}, turn {turn}", partial(self.streamed, case)
            far = BEYOND_32_BITS, 1
            yield f"energy {fmt.name}, samples 2^31 apart", partial(self.energy, fmt, 3, 37, 0, far)

    def codes(self) -> Iterator[tuple[str, partial[None]]]:
        for fmt in FORMATS:
            for n, d in CODES + LARGE_CODES:
                for turn in range(4 if n * d < 10_000 else 2):
                    yield f"code {fmt.name} {n} x {d}, turn {turn}", partial(self.code, fmt, n, d, turn)
            for n, d, layout in STREAMED_CODES:
                case = partial(self.code, fmt, n, d, 0, layout)
                yield f"streamed code {fmt.name} {n} x {d}, {layout}", partial(self.streamed, case)
            for n, d in ((3, 7), (7, 3)):
                far = BEYOND_32_BITS, 1
                yield f"code {fmt.name} {n} x {d}, samples 2^31 apart", partial(self.code, fmt, n, d, 1, far)

    def hinges(self) -> Iterator[tuple[str, partial[None]]]:
        for fmt in (FLOAT64, FLOAT32):
            for n_real, n_fake in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 7), (33, 32), (1000, 1)):
                yield f"hinge {fmt.name} {n_real}, {n_fake}", partial(self.hinge, fmt, n_real, n_fake)

    def streamed(self, case: partial[None]) -> None:
        """Run a case with every gradient stored past the cache."""
        self.kernels.set_stream_from(0, False)
        case()
        self.kernels.set_stream_from(-1, False)

    def energy(self, fmt: Format, n: int, k: int, turn: int, layout: Layout = None) -> None:
        norm, threads, upstream = turn % len(truth.NORMS), 1 + (turn + k) % 3, UPSTREAMS[(turn + k) % 5]
        name = truth.NORMS[norm]
        batch = partial(Batch, self.memory, fmt, turn=turn, layout=layout)

        def loss(real: Batch, fake: Batch | None, margin: float) -> Rows:
            value = Rows(self.memory, accumulator(fmt), (1, 1), None)
            of_fake = fake.packed() if fake else NO_BATCH
            it = norm, real.packed(), of_fake, *_number(margin), *_number(upstream), value.address
            self.kernels.loss(fmt.code, it, threads)
            return value

        alone = batch(n, k)
        it = norm, alone.packed(gradients=False), NO_BATCH, *_number(0.0), *_number(1.0), 0
        self.kernels.loss(fmt.code, it, threads)
        alone.check(name, None)
        stride = BEYOND_32_BITS if layout and layout[0] == BEYOND_32_BITS else (0, 1, 3)[turn % 3]
        coefficient = np.arange(n) % 5 - 1.0 if stride else np.full(n, 1.5)
        coefficients = coefficient if stride else coefficient[:1]
        upstreams = Rows(self.memory, accumulator(fmt), (len(coefficients), 1), coefficients, max(stride - 1, 0))
        self.kernels.energy_gradient(fmt.code, (norm, alone.packed(), upstreams.address, stride), threads)
        upstreams.check("upstreams")
        alone.check(name, coefficient)

        mean = batch(n, k)
        value = loss(mean, None, 0.0)
        mean.check(name, np.full(n, upstream / max(n, 1)))
        self._check_loss(value, truth.energies(name, mean.difference), np.zeros(0), 0.0)

        real, fake = batch(n, k), batch(n + 1, k)
        energy_fake = truth.energies(name, fake.difference)
        # The margin lies between two energies: some gates are open, some closed. In every fourth turn a sample is past
        # the margin early in its row.
        share = 0.0123 if turn % 4 == 3 else 1 + 0.001 * (-1) ** turn
        margin = float(np.median(energy_fake)) * share + 0.25
        value = loss(real, fake, margin)
        real.check(name, np.full(n, upstream / max(n, 1)))
        fake.check(name, -upstream * truth.hinge_gates(margin, energy_fake) / (n + 1))
        self._check_loss(value, truth.energies(name, real.difference), energy_fake, margin)

    def hinge(self, fmt: Format, n_real: int, n_fake: int) -> None:
        values = np.random.default_rng([n_real, n_fake]).integers(0, 9, n_real + n_fake).astype(np.float64)
        parts = values[:n_real], values[n_real:]
        real, fake = (Rows(self.memory, fmt, (1, len(part)), part, shift=1) for part in parts)
        to_real, to_fake = (Rows(self.memory, fmt, (1, len(part)), None, shift=1) for part in parts)
        loss = Rows(self.memory, fmt, (1, 1), None)
        addresses = [rows.address for rows in (real, fake, to_real, to_fake)]
        self.kernels.hinge(fmt.code, (*addresses, n_real, n_fake, *_number(4.0), loss.address))
        for what, rows in (("real", real), ("fake", fake), ("to_real", to_real), ("to_fake", to_fake)):
            rows.check(what)
        truth.assert_close("to_real", to_real.read()[0], np.full(n_real, 1 / max(n_real, 1)), fmt)
        truth.assert_close("to_fake", to_fake.read()[0], -truth.hinge_gates(4.0, parts[1]) / max(n_fake, 1), fmt)
        self._check_loss(loss, *parts, 4.0)

    def _check_loss(self, loss: Rows, energy_real: Array, energy_fake: Array, margin: float) -> None:
        loss.check("loss")
        terms = np.maximum(margin - energy_fake, 0)
        expected = energy_real.sum() / max(len(energy_real), 1) + terms.sum() / max(len(energy_fake), 1)
        # The bound has the roundings of energies and margin, whose difference may be small, and those of the sums over
        # the batch.
        size = expected + (margin + energy_fake).sum() / max(len(energy_fake), 1)
        bound = (2 * loss.format.eps + (len(energy_real) + len(energy_fake)) * FLOAT64.eps) * size
        truth.assert_close("loss", loss.read()[0], np.array([expected]), loss.format, bound)

    def code(self, fmt: Format, n: int, d: int, turn: int, layout: Layout = None) -> None:
        values = np.random.default_rng([fmt.code, n, d]).integers(-4, 5, (n, d)).astype(np.float64)
        if turn % 2 and n:
            values[0] = 0
        # In the last turn every row is too short or too long for its squares, alternately.
        far = FAR.get(fmt.name, 0) if turn == 3 else 0
        powers = 2.0 ** np.where(np.arange(n) % 2, far, -far)[:, None]
        acc, side, threads = accumulator(fmt), min(n, d), 1 + (turn + n) % 3
        code = Rows(self.memory, fmt, (n, d), values * powers, *(layout or (2 * turn, turn)))
        lengths = Rows(self.memory, acc, (2, n), None, shift=turn % 3)
        residual = Rows(self.memory, acc, (1, side * side), None, shift=turn % 2)
        grad = Rows(self.memory, fmt, (n, d), None, *(layout or (turn, 5 * turn % 8)))
        value, loss = (Rows(self.memory, acc, (1, 1), None) for _ in range(2))
        loss.write(2.0)
        upstream, weight, adds = UPSTREAMS[(turn + d) % 5], 0.5, turn % 2 == 0
        to_loss = loss.address if adds else 0
        packed = code.address, code.stride, n, d
        forward = packed, lengths.address, residual.address, value.address, to_loss, *_number(weight)
        self.kernels.pulling_away(fmt.code, forward, threads)
        backward = packed, lengths.address, residual.address, *_number(upstream), grad.address, grad.stride
        self.kernels.pulling_away_gradient(fmt.code, backward, threads)
        for what, rows in (
            *(("code", code), ("lengths", lengths), ("residual", residual)),
            *(("value", value), ("loss", loss), ("grad", grad)),
        ):
            rows.check(what)
        if n < 2:
            assert value.read() == 0, f"value: got {value.read()}, expected 0"
            assert loss.read() == 2, f"loss: got {loss.read()}, expected 2"
            assert not np.count_nonzero(grad.read()), "grad: expected zeros"
            return
        expected = truth.pulling_away(values)
        # The products round, and so do their sums: at most 128 terms in a partial sum, half a unit each, forward and
        # backward.
        units = 128 * acc.eps
        got, scales = lengths.read()
        assert (scales[values.any(1)] != 1).all() if far else (scales == 1).all(), f"scales: got {scales}"
        truth.assert_close("lengths", got, expected.lengths * powers[:, 0] * scales, acc)
        added, size = weight * adds, expected.value_size
        truth.assert_close("value", value.read()[0], np.array([expected.value]), acc, units * size)
        truth.assert_close("loss", loss.read()[0], np.array([2.0 + added * expected.value]), acc, added * units * size)
        bound = abs(upstream) * units * expected.gradient_size
        truth.assert_close("grad", grad.read(), upstream * expected.gradient / powers, fmt, bound / powers)


def main() -> None:
    faulthandler.enable()
    module = load(sys.argv[1])
    if sys.argv[2] == "--list":
        print(*module.build_info()["isas_supported"])
        return
    start = time.monotonic()
    count = Cases(module, sys.argv[2]).run(sys.argv[3:])
    isa = module.build_info()["isa"]
    print(f"{isa}, {sys.argv[2]}: {count} cases in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
