"""Time of the losses against eager torch: forward and backward, interleaved, as ratios.

    python bench/ops.py [--rounds 30] [--append bench/results/ops.jsonl]

Every round times each provider once, in turn, so that a change of the machine's speed meets them all; the minimum over
rounds is what the machine can do, and the ratio is what to quote. A provider whose loss is wrong gets no time.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import ebgan_fast

Step = Callable[[], Tensor]


def _discriminator(n: int, k: int) -> dict[str, Step]:
    generator = torch.Generator().manual_seed(0)
    recon_real, recon_fake = (torch.randn(n, k, generator=generator, requires_grad=True) for _ in range(2))
    real, fake = (torch.randn(n, k, generator=generator) for _ in range(2))
    margin = (2 * k) ** 0.5  # about the energy of a sample: half of the hinges are on

    def eager() -> Tensor:
        energy_real = torch.linalg.vector_norm(recon_real - real, dim=1)
        energy_fake = torch.linalg.vector_norm(recon_fake - fake, dim=1)
        return energy_real.mean() + F.relu(margin - energy_fake).mean()

    def ours() -> Tensor:
        return ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, margin, norm="l2")[0]

    return {name: _with_backward(loss, [recon_real, recon_fake]) for name, loss in (("eager", eager), ("ours", ours))}


def _pulling_away(n: int, d: int) -> dict[str, Step]:
    code = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).relu().requires_grad_()

    def eager() -> Tensor:
        unit = F.normalize(code, dim=1)
        squares = (unit @ unit.T).square()
        return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1))

    losses = (("eager", eager), ("ours", lambda: ebgan_fast.pulling_away_term(code)))
    return {name: _with_backward(loss, [code]) for name, loss in losses}


def _with_backward(loss: Step, leaves: list[Tensor]) -> Step:
    def step() -> Tensor:
        value = loss()
        torch.autograd.grad(value, leaves)
        return value.detach()

    return step


CASES: dict[str, dict[str, Step]] = {
    "discriminator_loss l2 64x1024": _discriminator(64, 32 * 32),
    "discriminator_loss l2 64x12288": _discriminator(64, 64 * 64 * 3),
    "discriminator_loss l2 64x49152": _discriminator(64, 128 * 128 * 3),
    "pulling_away_term 64x1024": _pulling_away(64, 1024),
    "pulling_away_term 64x16384": _pulling_away(64, 16384),
    "pulling_away_term 2048x64": _pulling_away(2048, 64),
}


def _best_times(providers: dict[str, Step], rounds: int) -> dict[str, float]:
    """Seconds, the minimum over rounds; each step is repeated to last about 5 ms."""
    best = dict.fromkeys(providers, float("inf"))
    repeats = {}
    for name, step in providers.items():
        step()
        start = time.perf_counter()
        step()
        repeats[name] = max(1, int(0.005 / (time.perf_counter() - start)))
    for _ in range(rounds):
        for name, step in providers.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats[name])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--append", type=Path, help="a JSONL file that gets one line per case")
    options = parser.parse_args()
    environment = {
        "ebgan_fast": ebgan_fast.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "cpu": ebgan_fast.backends()["cpu"].reason,
    }
    print(f"float32, {environment}")
    for case, providers in CASES.items():
        eager, ours = providers["eager"](), providers["ours"]()
        torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-7)
        times = _best_times(providers, options.rounds)
        ratio = times["eager"] / times["ours"]
        print(f"{case:<34} eager {times['eager'] * 1e6:9.0f} us   ours {times['ours'] * 1e6:9.0f} us   {ratio:5.1f}x")
        if options.append is not None:
            row = {"case": case, "seconds": times, "ratio": ratio, "rounds": options.rounds, **environment}
            with options.append.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
