"""Run functions under Triton's interpreter, each call in its own process, and tell how each call ended.

The interpreter (TRITON_INTERPRET=1) runs kernels on CPU tensors. It reads past the end of an ordinary tensor without an
error. Tensors that end at a guard page turn such a read into a fault.
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
    """The end of one call.

    kind: "fine"; "wrong" if an assertion failed; "fault" if the call touched forbidden memory.
    report: The text that the call printed.
    """

    kind: Literal["fine", "wrong", "fault"]
    report: str


def interpreted(*calls: tuple[Any, ...], first: Callable[[], None] | None = None) -> list[Outcome]:
    """Run each call under Triton's interpreter, in its own process, and return how each one ended.

    One process imports the modules, which takes 5 seconds for torch and triton. It calls `first` and then forks for
    each call, which takes 0.1 seconds. The first launch of a kernel costs each call 0.2 seconds more, unless `first`
    has launched that kernel.

    Args:
        *calls: Each call: a function of a module and then its arguments, as JSON can hold them.
        first: A function of a module to call once before the forks.

    Raises:
        RuntimeError: If `first` fails, or a call ends in a way that is no Outcome.
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
            "CUDA_VISIBLE_DEVICES": "",  # torch's autograd has a thread for each GPU, and no thread survives a fork
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"neither fine nor wrong nor a fault:\n{done.stdout}{done.stderr}")
    return [Outcome(**outcome) for outcome in json.loads(done.stdout)]


def _forked(function: Callable[..., None], case: Sequence[Any]) -> dict[str, str]:
    """Run one call in a child process and return its Outcome as a dict. The child's signal or exit status decides the
    kind.
    """
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
            torch.empty(1)  # a dispatch mode's first operator imports torch._dynamo: once, before the forks
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the outcomes only
        for module, name in begin:
            _function(module, name)()
    print(json.dumps([_forked(function, case) for function, case in calls]))


if __name__ == "__main__":
    main()
