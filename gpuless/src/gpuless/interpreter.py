"""Functions run under Triton's interpreter, in a process of their own each, and how each ended.

The interpreter (TRITON_INTERPRET=1) runs kernels on CPU tensors and would read past the end of an ordinary one without
a word: tensors that end at a guard page make it a fault.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .guard_pages import guarded_allocations


@dataclass(frozen=True)
class Outcome:
    """The end of a call. `fault`: it touched forbidden memory. `wrong`: an assertion failed. `report`: its output."""

    kind: Literal["fine", "wrong", "fault"]
    report: str


def interpreted(*calls: tuple[Any, ...], first: Callable[[], None] | None = None) -> list[Outcome]:
    """Run each call, a module's function and its arguments (of what JSON holds), under Triton's interpreter.

    One process imports the modules, which takes torch and triton 5 seconds, calls the module's function `first`, and
    forks for every call: 0.1 seconds. The first launch of a kernel costs 0.2 seconds more, in each call anew unless
    `first` has made it. RuntimeError for a call, or a `first`, that ends in another way than an Outcome's.
    """
    named = [(function.__module__, function.__qualname__, arguments) for function, *arguments in calls]
    begin = [] if first is None else [(first.__module__, first.__qualname__)]
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps([begin, named]),
        env={
            **os.environ,
            "TRITON_INTERPRET": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "CUDA_VISIBLE_DEVICES": "",  # torch's autograd has a thread for each GPU, which no fork survives
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"neither fine nor wrong nor a fault:\n{done.stdout}{done.stderr}")
    return [Outcome(**outcome) for outcome in json.loads(done.stdout)]


def _forked(function: Callable[..., None], case: Sequence[Any]) -> dict[str, str]:
    """Run in a child: its signal or exit status tells the outcome."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(_status(function, case))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        report = output.read().decode(errors="replace")
    kinds = {0: "fine", 1: "wrong", -signal.SIGSEGV: "fault", -signal.SIGBUS: "fault"}
    if status not in kinds:
        raise RuntimeError(f"{function.__qualname__}{tuple(case)} ended with {status}: {report}")
    return {"kind": kinds[status], "report": report}


def _status(function: Callable[..., None], case: Sequence[Any]) -> int:
    try:
        function(*case)
    except BaseException as error:
        traceback.print_exc()
        return 1 if isinstance(error, AssertionError) else 2
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _function(module: str, name: str) -> Callable[..., None]:
    return getattr(importlib.import_module(module), name)


def main() -> None:
    begin, named = json.load(sys.stdin)
    calls = [(_function(module, name), case) for module, name, case in named]
    if torch := sys.modules.get("torch"):
        with guarded_allocations():
            torch.empty(1)  # the first operator of a dispatch mode imports torch._dynamo: once, before the forks
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the outcomes
        for module, name in begin:
            _function(module, name)()
    print(json.dumps([_forked(function, case) for function, case in calls]))


if __name__ == "__main__":
    main()
