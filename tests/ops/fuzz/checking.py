"""Run a case on a backend, and report what is wrong with its results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import ebgan_fast

from . import energies
from .drawing import OPS, Case, acc_of, format_of, promoted
from .layouts import memory, numbers
from .pulling_away import Form, PullingAway
from .ranges import CHAIN, TF32, Array, Format, Range

Results = dict[str, Tensor]
"""The results of an op by name; a gradient's name is "gradient " and its tensor's name."""
_PAIRS = {"recon": "target", "recon_real": "real", "recon_fake": "fake"}


def run(case: Case, backend: str) -> Results:
    """Call the op and its backward, and return all results."""
    leaves = {name: tensor.detach().requires_grad_(name in case.wanted) for name, tensor in case.tensors.items()}
    with ebgan_fast.use_backend(backend):
        results = _call(case, leaves)
        value = next(iter(results.values()))
        wanted = [leaves[name] for name in case.wanted]
        found = torch.autograd.grad(value, wanted, case.upstream, retain_graph=case.keeps_graph)
        if case.keeps_graph:
            again = torch.autograd.grad(value, wanted, case.upstream)
            results |= {f"second gradient {name}": it for name, it in zip(case.wanted, again, strict=True)}
    results |= {f"gradient {name}": it for name, it in zip(case.wanted, found, strict=True)}
    return {name: tensor.detach() for name, tensor in results.items()}


def _call(case: Case, leaves: dict[str, Tensor]) -> Results:
    if case.op == "reconstruction_energy":
        value = ebgan_fast.reconstruction_energy(**leaves, norm=case.norm, reduction=case.reduction)
        return {"energy": value} if case.reduction == "none" else {"value": value}
    if case.op == "hinge_margin_loss":
        return {"value": ebgan_fast.hinge_margin_loss(**leaves, margin=case.margin)}
    if case.op == "pulling_away_term":
        return {"pulling_away": ebgan_fast.pulling_away_term(**leaves)}
    if case.op == "discriminator_loss":
        loss, real, fake = ebgan_fast.discriminator_loss(
            **leaves, margin=case.margin, norm=case.norm, upstream=case.told
        )
        return {"value": loss, "energy_real": real, "energy_fake": fake}
    weight = case.weight if "code" in leaves else None
    result = ebgan_fast.generator_loss(**leaves, pt_weight=weight, norm=case.norm, upstream=case.told)
    return {"value": result.loss, "energy": result.energy, "pulling_away": result.pulling_away}


def problems(case: Case, backend: str) -> list[str]:
    """Return what is wrong with the results on a backend, a line each."""
    before = {name: memory(tensor).clone() for name, tensor in given(case).items()}
    was = torch.get_num_threads()
    try:
        runs = []
        for count in case.threads if backend == "cpu" else case.threads[:1]:
            torch.set_num_threads(count)
            runs.append(run(case, backend))
    finally:
        torch.set_num_threads(was)
    with np.errstate(all="ignore"):
        found = list(_Judge(case, backend, runs[0]).complaints())
    for count, other in zip(case.threads[1:], runs[1:], strict=False):
        changed = [name for name in other if _differ(other[name], runs[0][name])]
        found += [f"{name}: {count} threads give other bits than {case.threads[0]}" for name in changed]
    for name, tensor in runs[0].items():
        if name.startswith("second ") and _differ(tensor, runs[0][name.removeprefix("second ")]):
            found.append(f"{name}: differs from the first")
    after = {name: memory(tensor) for name, tensor in given(case).items()}
    found += [f"{name}: an input was written" for name in before if not torch.equal(before[name], after[name])]
    return found


def given(case: Case) -> dict[str, Tensor]:
    """Return every tensor that the op and its backward are given, by name."""
    others = {"margin": case.margin, "weight": case.weight, "told": case.told, "upstream": case.upstream}
    return case.tensors | {name: it for name, it in others.items() if isinstance(it, Tensor)}


def _differ(one: Tensor, other: Tensor) -> bool:
    """Return True if any bit differs; all NaNs count as equal."""
    a, b = (it.resolve_neg().double().numpy() for it in (one, other))
    same = (a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)
    return not same.all()


@dataclass
class _Judge:
    case: Case
    backend: str
    got: Results

    def complaints(self) -> Iterator[str]:
        case, tensors = self.case, self.case.tensors
        acc = {acc_of(promoted(*self._pair(name))) for name in tensors if name in _PAIRS}
        acc |= {acc_of(tensor.dtype) for name, tensor in tensors.items() if name.startswith(("code", "energy"))}
        value = next(iter(self.got.values()))
        wide = torch.float64 if torch.float64 in acc else torch.float32
        if value.dtype != wide:
            yield f"value: got {value.dtype}, expected {wide}"
        for name in case.wanted:
            gradient, tensor = self.got[f"gradient {name}"], tensors[name]
            if gradient.dtype != tensor.dtype or gradient.shape != tensor.shape:
                got, expected = ((it.dtype, tuple(it.shape)) for it in (gradient, tensor))
                yield f"gradient {name}: got {got}, expected {expected}"
        yield from {
            "reconstruction_energy": self._reconstruction_energy,
            "hinge_margin_loss": self._hinge_margin_loss,
            "pulling_away_term": self._pulling_away_term,
            "discriminator_loss": self._discriminator_loss,
            "generator_loss": self._generator_loss,
        }[case.op]()

    # ---- The ops

    def _reconstruction_energy(self) -> Iterator[str]:
        case = self.case
        acc = self._acc("recon")
        if case.reduction == "none":
            yield from self._differs("energy", self._true_energy("recon"))
            energy = Range.exactly(self._numbers("energy"))
            yield from self._pair_gradients("recon", energy, case.upstream.resolve_neg().double().numpy(), None)
            return
        energy = self._true_energy("recon")
        count = max(len(energy.low), 1)
        if case.reduction == "sum":
            yield from self._differs("value", energies.batch_sum(energy, acc).rounded(acc))
            yield from self._pair_gradients("recon", energy, np.full(len(energy.low), float(case.upstream)), None)
            return
        yield from self._differs("value", energies.mean(energy, acc))
        made_for = self._made_for()
        yield from self._pair_gradients("recon", energy, np.full(len(energy.low), made_for / count), made_for)

    def _hinge_margin_loss(self) -> Iterator[str]:
        case = self.case
        real, fake = (numbers(case.tensors[name]).numpy().reshape(-1) for name in OPS[case.op])
        dtype = promoted(*case.tensors.values())
        margin, acc = self._margin(acc_of(dtype)), format_of(acc_of(dtype))
        is_open = energies.is_open(fake, margin)
        yield from self._differs("value", energies.hinge_margin_loss(real, Range.exactly(fake), is_open, margin, acc))
        made_for = float(case.upstream) if self.backend == "reference" else 1.0
        of_real = np.full(len(real), made_for / max(len(real), 1))
        of_fake = np.where(is_open, -made_for / max(len(fake), 1), 0.0)
        for name, gradient in (("energy_real", of_real), ("energy_fake", of_fake)):
            yield from self._gradient(name, Range.exactly(gradient).rounded(acc, 2), dtype, acc, made_for)

    def _pulling_away_term(self) -> Iterator[str]:
        yield from self._code(fused=False)

    def _discriminator_loss(self) -> Iterator[str]:
        tensors = self.case.tensors
        margin, acc = self._margin(acc_of(promoted(*tensors.values()))), self._acc("recon_real")
        yield from self._differs("energy_real", self._true_energy("recon_real"))
        yield from self._differs("energy_fake", self._true_energy("recon_fake"))
        real, fake = self._numbers("energy_real"), self._numbers("energy_fake")
        yield from self._differs("value", self._hinge_of(real, fake, margin, acc))
        upstream = self._made_for()
        of_fake = np.where(energies.is_open(fake, margin), -upstream, 0.0) / max(len(fake), 1)
        of_real = np.full(len(real), upstream / max(len(real), 1))
        yield from self._pair_gradients("recon_real", Range.exactly(real), of_real, upstream)
        yield from self._pair_gradients("recon_fake", Range.exactly(fake), of_fake, upstream)

    def _hinge_of(self, real: Array, fake: Array, margin: float, acc: Format) -> Range:
        """Return the range of the loss for the energies that the op returned.

        The reference computes the energies of generated samples a second time, perhaps in another order.
        """
        is_open = energies.is_open(fake, margin)
        ranges = self._true_energy("recon_fake") if self.backend == "reference" else Range.exactly(fake)
        return energies.hinge_margin_loss(real, ranges, is_open, margin, acc)

    def _generator_loss(self) -> Iterator[str]:
        case = self.case
        yield from self._differs("energy", self._true_energy("recon_fake"))
        energy, term = self._numbers("energy"), float(self.got["pulling_away"])
        acc = acc_of_code = self._acc("recon_fake")
        if "code" in case.tensors:
            acc_of_code = format_of(acc_of(case.tensors["code"].dtype))
        loss = energies.generator_loss(energy, acc, term, float(case.weight), acc_of_code)
        yield from self._differs("value", loss)
        upstream = self._made_for()
        weights = np.full(len(energy), upstream / max(len(energy), 1))
        yield from self._pair_gradients("recon_fake", Range.exactly(energy), weights, upstream)
        if "code" in case.tensors:
            yield from self._code(fused=True)
        elif term != 0:
            yield f"pulling_away: got {term}, expected 0 without a code"

    # ---- Their parts

    def _pair(self, name: str) -> tuple[Tensor, ...]:
        """Return a pair, or all tensors of an op that promotes them to one dtype."""
        tensors = self.case.tensors
        if self.case.op == "discriminator_loss":
            return tuple(tensors.values())
        return tensors[name], tensors[_PAIRS[name]]

    def _acc(self, name: str) -> Format:
        return format_of(acc_of(promoted(*self._pair(name))))

    def _margin(self, acc: torch.dtype) -> float:
        """Return the margin as the ops round it."""
        return float(torch.as_tensor(self.case.margin, dtype=torch.float64).to(acc))

    def _made_for(self) -> float:
        """Return the upstream gradient for which a loss makes its gradients: its argument `upstream`, or 1.

        Where the losses run as separate ops it is the actual upstream: on the reference, in float16 without the
        argument, and with a code of another dtype.
        """
        case, code = self.case, self.case.tensors.get("code")
        dtype = promoted(*self._pair(next(iter(case.tensors))))
        is_apart = self.backend == "reference" or (code is not None and code.dtype != dtype)
        if is_apart or (case.told is None and dtype == torch.float16):
            return float(case.upstream)
        return 1.0 if case.told is None else float(case.told)

    def _numbers(self, name: str) -> Array:
        return self.got[name].resolve_neg().double().numpy()

    def _true_energy(self, recon: str) -> Range:
        return energies.energy(*self._values(recon), self.case.norm, self._acc(recon))

    def _values(self, recon: str) -> tuple[Array, Array]:
        tensors = self.case.tensors
        return numbers(tensors[recon]).numpy(), numbers(tensors[_PAIRS[recon]]).numpy()

    def _pair_gradients(self, recon: str, energy: Range, weight: Array, made_for: float | None) -> Iterator[str]:
        """Give complaints about the gradients of a pair, whose samples have these weights."""
        values, acc, dtype = self._values(recon), self._acc(recon), promoted(*self._pair(recon))
        to_recon = energies.energy_gradient(*values, self.case.norm, energy, weight, acc)
        if self.backend == "reference":
            to_recon = self._by_autograd(to_recon, np.abs(values[0] - values[1]), weight, acc)
        for name, it in ((recon, to_recon), (_PAIRS[recon], to_recon.times(-1.0))):
            yield from self._gradient(name, it, dtype, acc, made_for)

    @staticmethod
    def _by_autograd(to_recon: Range, sizes: Array, weight: Array, acc: Format) -> Range:
        """Widen the range to what torch's rules allow: 0 times a number that is not finite is NaN, and a difference is
        doubled."""
        is_free = (weight == 0)[:, None] & ~np.isfinite(sizes).all(1, keepdims=True) | (2 * sizes > acc.largest)
        return Range(np.where(is_free, np.nan, to_recon.low), np.where(is_free, 0.0, to_recon.high))

    def _code(self, fused: bool) -> Iterator[str]:
        case, code = self.case, self.case.tensors["code"]
        values, acc = numbers(code).numpy(), format_of(acc_of(code.dtype))
        form: Form = "primal" if values.shape[0] <= values.shape[1] else "dual"
        chain: int | None = CHAIN
        if self.backend == "reference":
            form, chain = "projected", None  # as in torch's matrix products
        own = format_of(code.dtype)
        factors = TF32 if self.backend in ("triton", "cuda") and own.digits <= TF32.digits else None
        truth = PullingAway(values, acc, form, chain, factors)
        yield from self._differs("pulling_away", truth.value())
        if "code" not in case.wanted:
            return
        if truth.is_finite or (truth.pairs == 0 and self.backend != "reference"):
            made_for = self._made_for() if fused else float(case.upstream)
            gradient = truth.gradient(made_for * (float(case.weight) if fused else 1.0))
            yield from self._gradient("code", gradient, code.dtype, acc, made_for)
        elif truth.pairs and float(case.upstream) and self.got["gradient code"].isfinite().all():
            yield "gradient code: all finite, expected NaN of a code that is not finite"

    def _gradient(
        self, name: str, made: Range, dtype: torch.dtype, acc: Format, made_for: float | None
    ) -> Iterator[str]:
        """Give complaints about a gradient that is made, rounded, and perhaps multiplied and rounded once more."""
        if f"gradient {name}" not in self.got:
            return
        came, own = float(self.case.upstream) if self.case.upstream.dim() == 0 else 1.0, self.case.tensors[name].dtype
        made = made.rounded(format_of(dtype))
        if made_for is not None and made_for != came:
            made = made.times(came / made_for).rounded(acc, 2, 2).rounded(format_of(dtype))
        if own != dtype:
            made = made.rounded(format_of(own))
        yield from self._differs(f"gradient {name}", made)

    def _differs(self, name: str, right: Range) -> Iterator[str]:
        got = self._numbers(name)
        if name.startswith("gradient "):  # a gradient has its tensor's shape, the formulas' have samples and elements
            got = got.reshape(right.low.shape)
        if got.shape != right.low.shape:
            yield f"{name}: got shape {got.shape}, expected {right.low.shape}"
            return
        wrong = right.lacks(got)
        if wrong.any():
            where = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            yield (
                f"{name}{list(map(int, where))}: got {got[where]:.9g}, expected {right.low[where]:.9g} to "
                f"{right.high[where]:.9g} ({int(wrong.sum())} of {wrong.size} are wrong)"
            )
