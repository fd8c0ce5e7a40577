"""Another commit's package of ebgan_fast: built, and timed in a process of its own by turns with this commit's.

The processes run this commit's bench beside the other commit's package. Each answers one question a line, in JSON, and
is idle in between. `answer_ops` and `answer_training` are their other ends.

Training steps with another choice of cuDNN also run in such a process. torch keeps cuDNN's choices in one table for the
process, and looks there first, whatever `torch.backends.cudnn.benchmark` said when they were made. So steps with and
without that switch cannot share a process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..results.provenance import ROOT
from ..results.rows import PACKAGE
from ..subjects.cases import Case
from ..subjects.training_step import Wanted
from ..terminal import note, short
from ..timing.contestants import Timed
from ..timing.measure import Setting

BUILDS = ROOT / "build" / "compare"

# ---- Building


def install(ref: str) -> tuple[str, Path]:
    """Build the package of a commit, unless it is built already.

    Args:
        ref: A commit, branch or tag.

    Returns:
        The short hash of the commit, and the folder to import its package from.

    Raises:
        ValueError: There is no commit of that name, or its package cannot be built.
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
    """Install the package of a source tree into a folder.

    Args:
        source: The source tree.
        site: The folder.
        ref: The name of the commit, for the message.

    Raises:
        ValueError: The package cannot be built.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", site, source]
    environment = {**os.environ, "EBGAN_FAST_BUILD_EXT": "1"}
    if not torch.cuda.is_available():  # nvcc for seven architectures takes minutes
        environment["EBGAN_FAST_CUDA"] = "0"
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = next(iter(reversed(done.stderr.strip().splitlines())), "")
        raise ValueError(f"compare: ebgan_fast of {ref} cannot be built: {last}")


def check_threads(threads: Sequence[int]) -> None:
    """Raise ValueError for several CPU threads that spin between turns.

    The same package was 1.8 times slower in the other process, because this process's spinning threads took its turns.
    """
    if max(threads) > 1 and os.environ.get("OMP_WAIT_POLICY") != "passive":
        raise ValueError("compare: got several threads that spin between turns, expected OMP_WAIT_POLICY=passive")


def named(ref: str, commit: str) -> str:
    """Return the name that the package of a commit has in a row."""
    return f"ebgan_fast at {ref}" if commit.startswith(ref) else f"ebgan_fast at {ref} ({commit})"


# ---- Processes

# This commit's bench comes from a later path, and measures the package of the first path.
_PROGRAM = "import sys; sys.path[:0] = {paths!r}; from bench.processes.{module} import serve; serve()"


class Asked:
    """A process that answers questions, seen from the end that asks.

    Args:
        name: The process in words, for messages.
        module: The module of `bench.processes` whose `serve` answers.
        paths: The folders to import from, in order. ebgan_fast must come from the first.
    """

    def __init__(self, name: str, module: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(paths=[str(path) for path in paths], module=module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        home = Path(self.ask("where")["where"])
        if not home.is_relative_to(paths[0]):
            self.close()
            raise ValueError(f"compare: the other process imported {home}, expected a package below {paths[0]}")

    def ask(self, question: str, **details: Any) -> dict[str, Any]:
        """Return the answer to a question. Raises ValueError if the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"question": question, **details}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        if not answer:
            raise ValueError(f"compare: the process of {self.name} has ended; its last words are above")
        got: dict[str, Any] = json.loads(answer)
        return got

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class PackageProcess(Asked):
    """A process that times a package's ops: a `measure.OtherProcess`.

    Args:
        name: The package in words, as in a row.
        paths: The folders to import from, in order.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        super().__init__(name, "answer_ops", paths)

    def prepare(self, case: Case, setting: Setting, copies: int) -> str | None:
        """Make a case ready to be timed. Returns why its package gets no time, or None."""
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
        """Return the seconds of that many calls of the case that was prepared."""
        return float(self.ask("time", repeats=repeats)["seconds"])


def pair(ref: str, stack: contextlib.ExitStack) -> list[PackageProcess]:
    """Start two processes that differ in their package alone: this commit's, and another's.

    This process times neither. It also holds torch.compile's code, beside which a call of some microseconds is slower.

    Args:
        ref: The other commit.
        stack: The stack that ends the processes.
    """
    commit, site = install(ref)
    both = ((PACKAGE, [ROOT]), (named(ref, commit), [site, ROOT]))
    return [stack.enter_context(contextlib.closing(PackageProcess(name, paths))) for name, paths in both]


class TrainingProcess(Asked):
    """A process that times training steps.

    Args:
        name: The process in words, for messages.
        device: The device of the steps.
        threads: The number of CPU threads.
        cudnn_benchmark: True if cuDNN tries its algorithms.
        paths: The folders to import from, in order. The default is this commit's.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        threads: int,
        cudnn_benchmark: bool = False,
        paths: Sequence[Path] = (ROOT,),
    ) -> None:
        super().__init__(name, "answer_training", paths)
        self._cudnn_benchmark = cudnn_benchmark
        self._answer("begin", device=str(device), threads=threads, cudnn_benchmark=cudnn_benchmark)

    def _answer(self, question: str, **details: Any) -> dict[str, Any]:
        """Return the answer to a question. Raises ValueError if the answer is a complaint."""
        answer = self.ask(question, **details)
        if "complaint" in answer:
            raise ValueError(f"{self.name}: {answer['complaint']}")
        return answer

    def check(self, wanted: Wanted) -> None:
        """Raise ValueError if the first losses of a step are not right."""
        self._answer("check", wanted=dataclasses.asdict(wanted))

    def contestant(self, name: str, wanted: Wanted) -> Timed:
        """Build a step, make its first call, and return its clock. Raises ValueError if the step cannot run."""
        prepared = self._answer("prepare", name=name, wanted=dataclasses.asdict(wanted))

        def clock(repeats: int) -> float:
            return float(self._answer("time", name=name, repeats=repeats)["seconds"])

        return Timed(clock, prepared["first_call"], prepared["peak"], self._cudnn_benchmark)
