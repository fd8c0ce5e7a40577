"""ebgan_fast as another commit has it, in a process of its own that times it by turns with this one's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import measure
from .cases import Case
from .provenance import ROOT
from .terminal import note, short

_BUILDS = ROOT / "build" / "compare"
# The other package first, so that this one's tools measure it.
_PROGRAM = "import sys; sys.path[:0] = {paths!r}; from bench.other_process import serve; serve()"


def install(ref: str) -> tuple[str, Path]:
    """(short hash, folder to import the commit's package from), built unless it is there.

    Raises:
        ValueError: no commit of that name, or its package cannot be built.
    """
    commit = _commit(ref)
    folder = _BUILDS / commit
    site = folder / "site"
    if not (folder / "built").exists():
        note(f"building ebgan_fast of {ref} ({commit}) into {short(folder)}")
        source = folder / "source"
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
        _build(source, site, ref)
        (folder / "built").touch()
    return commit, site


def _commit(ref: str) -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", "--short=12", f"{ref}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if ref.startswith("-") or done.returncode:
        raise ValueError(f"compare: got {ref!r}, expected a commit, branch or tag of this repository")
    return done.stdout.strip()


def _build(source: Path, site: Path, ref: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", site, source]
    environment = {**os.environ, "EBGAN_FAST_BUILD_EXT": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "")
        raise ValueError(f"compare: ebgan_fast of {ref} cannot be built: {last}")


class OtherCommit:
    """Answers `measure.Elsewhere`."""

    def __init__(self, ref: str) -> None:
        commit, site = install(ref)
        self.name = f"ebgan_fast at {ref}" if commit.startswith(ref) else f"ebgan_fast at {ref} ({commit})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(paths=[str(site), str(ROOT)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        home = Path(self._ask({"question": "where"})["where"])
        if not home.is_relative_to(site):
            raise ValueError(f"compare: the other process imported {home}, expected a package below {site}")

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise ValueError(f"compare: the process of {self.name} has ended; its last words are above")
        got: dict[str, Any] = json.loads(answer)
        return got

    def prepare(self, case: Case, setting: measure.Setting, copies: int) -> str | None:
        question = {
            "question": "prepare",
            "case": case.name,
            "dtype": str(setting.dtype).removeprefix("torch."),
            "threads": setting.threads,
            "device": str(setting.device.torch),
            "watch": setting.watch,
            "mode": setting.mode,
            "copies": copies,
        }
        complaint: str | None = self._ask(question)["complaint"]
        return complaint

    def clock(self, repeats: int) -> float:
        return float(self._ask({"question": "time", "repeats": repeats})["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
