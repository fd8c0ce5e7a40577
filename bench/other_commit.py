"""ebgan_fast as another commit has it, in a process of its own that times it by turns with this one's."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import measure
from .asked import Asked
from .cases import Case
from .provenance import ROOT
from .rows import PACKAGE
from .terminal import note, short

BUILDS = ROOT / "build" / "compare"


def install(ref: str) -> tuple[str, Path]:
    """(short hash, folder to import the commit's package from), built unless it is there.

    Raises:
        ValueError: no commit of that name, or its package cannot be built.
    """
    commit = _commit(ref)
    folder = BUILDS / commit
    site = folder / "site"
    if not (folder / "built").exists():
        note(f"building ebgan_fast of {ref} ({commit}) into {short(folder)}")
        source = folder / "source"
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
        build(source, site, ref)
        (folder / "built").touch()
    return commit, site


def _commit(ref: str) -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", "--short=12", f"{ref}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if ref.startswith("-") or done.returncode:
        raise ValueError(f"compare: got {ref!r}, expected a commit, branch or tag of this repository")
    return done.stdout.strip()


def build(source: Path, site: Path, ref: str) -> None:
    """Install the package of a source tree into a folder. ValueError where it can't be built."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", site, source]
    environment = {**os.environ, "EBGAN_FAST_BUILD_EXT": "1"}
    if not torch.cuda.is_available():  # nvcc for seven architectures takes minutes
        environment["EBGAN_FAST_CUDA"] = "0"
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "")
        raise ValueError(f"compare: ebgan_fast of {ref} cannot be built: {last}")


def check_threads(threads: Sequence[int]) -> None:
    """Raises ValueError for several on the CPU that spin between turns.

    The same package was 1.8 times slower in the other process, whose turns this one's spinning threads share.
    """
    if max(threads) > 1 and os.environ.get("OMP_WAIT_POLICY") != "passive":
        raise ValueError("compare: got several threads that spin between turns, expected OMP_WAIT_POLICY=passive")


def named(ref: str, commit: str) -> str:
    """Return the name that the package of a commit has in a row."""
    return f"ebgan_fast at {ref}" if commit.startswith(ref) else f"ebgan_fast at {ref} ({commit})"


class PackageProcess(Asked):
    """Answers `measure.Elsewhere`: times a package's ops, imported from the first of the paths."""

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        super().__init__(name, "other_process", paths)

    def prepare(self, case: Case, setting: measure.Setting, copies: int) -> str | None:
        """Make a case ready to be timed; returns why its package gets no time on it, or None."""
        complaint: str | None = self.ask(
            "prepare",
            case=case.name,
            dtype=str(setting.dtype).removeprefix("torch."),
            threads=setting.threads,
            device=str(setting.device.torch),
            watch=setting.watch,
            mode=setting.mode,
            copies=copies,
        )["complaint"]
        return complaint

    def clock(self, repeats: int) -> float:
        """Seconds of so many calls of the case that was prepared."""
        return float(self.ask("time", repeats=repeats)["seconds"])


def pair(ref: str, stack: contextlib.ExitStack) -> list[PackageProcess]:
    """This commit's package and the other's, each in a process of its own, which nothing but the package tells apart.

    `stack` ends them. In the process that also holds torch.compile's code a call of some microseconds takes longer.
    """
    commit, site = install(ref)
    both = ((PACKAGE, [ROOT]), (named(ref, commit), [site, ROOT]))
    return [stack.enter_context(contextlib.closing(PackageProcess(name, paths))) for name, paths in both]
