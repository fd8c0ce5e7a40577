"""The backends that can run on this machine, each with the reason why it can or can't."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..._console import first_line

if TYPE_CHECKING:
    from ..._C import BuildInfo

OLDEST_TRITON = (3, 5)
"""The oldest Triton that compiles the kernels: 3.4 has no `constexpr_function`. `make test-versions` tests it."""

_OLDEST_GPU = (7, 0)  # the compute capability of the oldest NVIDIA GPU that Triton compiles for


class BackendStatus(NamedTuple):
    """The status of a backend: if it can run here, and the reason in one line.

    Example:
        >>> import ebgan_fast
        >>> status = ebgan_fast.backends()["reference"]
        >>> status.available
        True
        >>> status.reason
        'plain torch on any device'
    """

    available: bool
    """True if the backend can run on this machine."""
    reason: str
    """The kernels that run, or the missing part."""


NO_TRITON = BackendStatus(False, "triton is not installed (torch's wheels for GPUs bring it; else pip install triton)")


def cpu_status() -> tuple[BackendStatus, str | None]:
    """Return the status of the CPU kernels and, separately, an error in the environment, or None.

    A wrong EBGAN_FAST_CPU_ISA is a user's mistake: the first op raises an error. A missing extension is only reported.
    """
    try:
        extension = importlib.import_module("ebgan_fast._C")
    except ImportError as error:
        return BackendStatus(False, f"the extension ebgan_fast._C is missing or does not load ({error})"), None
    try:
        info = extension.build_info()
    except ValueError as error:
        return BackendStatus(False, str(error)), str(error)
    return BackendStatus(True, f"compiled kernels, instruction set {info['isa']} ({_why(info)})"), None


def _why(info: BuildInfo) -> str:
    """Return the reason for the instruction set in use."""
    if os.environ.get("EBGAN_FAST_CPU_ISA"):
        return "EBGAN_FAST_CPU_ISA asks for it"
    lacking = [isa for isa in info["isas_compiled"] if isa not in info["isas_supported"]]
    best = "the fastest of those compiled in"
    return f"{best} that this processor has: it lacks {', '.join(lacking)}" if lacking else best


def interprets() -> bool:
    """Return True if Triton's own environment variable makes it run kernels in an interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


@functools.cache
def triton_status() -> BackendStatus:
    """Return Triton's status. Called at the first use, because importing the package must not search for devices."""
    version = triton_version()
    if version is None:
        return NO_TRITON
    if _numbers(version) < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        return BackendStatus(
            False, f"triton {version} is older than {oldest}, which the kernels need; torch 2.9 and later bring one"
        )
    if interprets():
        return BackendStatus(True, f"triton {version} in its interpreter, on CPU tensors: slow, for tests")
    if not torch.cuda.is_available():
        return BackendStatus(False, f"triton {version} is installed, but torch sees no GPU")
    lacking = [lack for index in range(torch.cuda.device_count()) if (lack := triton_lacks(index))]
    if len(lacking) == torch.cuda.device_count():
        return BackendStatus(False, f"triton {version}: {'; '.join(lacking)}")
    if problem := _launch_problem():
        return BackendStatus(False, f"triton {version} can't launch kernels: {problem}")
    return BackendStatus(True, "; ".join([f"triton {version}", *lacking]))


def triton_version() -> str | None:
    """Return the version of the Triton that Python would import, from any distribution, or None if there is none.

    Distributions for ROCm, XPU and Windows have other names, so the version comes from the module itself. The function
    reads the module's source, as an import takes half a second.
    """
    try:
        spec = importlib.util.find_spec("triton")
    except ValueError:  # a stub module without a spec
        return None
    if spec is None or spec.origin is None:  # only a folder of that name
        return None
    source = Path(spec.origin)
    text = source.read_text(encoding="utf-8", errors="replace") if source.suffix == ".py" else ""
    if found := re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE):
        return found[1]
    try:
        return str(getattr(importlib.import_module("triton"), "__version__", "of unknown version"))
    except Exception as error:  # a broken package may raise anything
        return f"of unknown version ({first_line(error)})"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers at the start of a version: 3.4.0+git0 gives (3, 4, 0). Without any it counts as new enough."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else OLDEST_TRITON


def triton_lacks(index: int) -> str | None:
    """Return why Triton can't run on the GPU of that number, or None if it can."""
    try:
        if torch.version.hip or torch.cuda.get_device_capability(index) >= _OLDEST_GPU:
            return None
    except RuntimeError as error:
        return _unusable(index, error)
    oldest = "".join(map(str, _OLDEST_GPU))
    return f"{_gpu(index)} is older than sm_{oldest}, the oldest that Triton compiles for"


def _launch_problem() -> str | None:
    """Return why Triton can't launch a kernel here, or None if it can.

    Before its first kernel, Triton builds a module that launches all kernels, with the machine's C compiler and into
    its cache. This function does the same.
    """
    try:
        from triton import knobs
        from triton.runtime import driver
    except Exception as error:  # a broken package may raise anything
        return f"it can't be imported ({first_line(error)})"
    if not os.environ.get("TRITON_CACHE_MANAGER"):  # a manager stores the code elsewhere
        folder = Path(knobs.cache.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            return f"{folder} can't be written ({error.strerror}); TRITON_CACHE_DIR names another folder"
    try:
        _ = driver.active.utils
    except Exception as error:  # Triton, its backends and the compiler may raise anything
        return f"{first_line(error)}; it needs a C compiler, which CC may name, and Python's headers"
    return None


def _unusable(index: int, error: RuntimeError) -> str:
    """Return the text for a GPU that torch can't query, for example because another process uses it exclusively."""
    return f"GPU {index} can't be used ({first_line(error)})"


def _gpu(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    return f"GPU {index} ({torch.cuda.get_device_name(index)}, sm_{major}{minor})"


@functools.cache
def cuda_status() -> BackendStatus:
    """Return the status of the CUDA kernels. Called at the first use, as `triton_status` is."""
    try:
        from ... import _C
    except ImportError:
        return BackendStatus(False, "the extension ebgan_fast._C, which would hold its kernels, is missing")
    cuda = getattr(_C, "cuda", None)
    if cuda is None:
        return BackendStatus(False, "the extension was built without it (EBGAN_FAST_CUDA=1 pip install . needs nvcc)")
    built = f"built for {_span(cuda.architectures.split())} ({cuda.compiler})"
    if error := cuda.device_error():
        missing = "no driver" if error == "cudaErrorInsufficientDriver" else f"no GPU ({error})"
        return BackendStatus(False, f"{built}, {missing}")
    if not torch.cuda.is_available():
        return BackendStatus(False, f"{built}, but torch {torch.__version__} sees no GPU")
    lacking = [lack for index in range(torch.cuda.device_count()) if (lack := cuda_lacks(index))]
    return BackendStatus(len(lacking) < torch.cuda.device_count(), "; ".join([built, *lacking]))


def cuda_lacks(index: int) -> str | None:
    """Return why the CUDA kernels can't run on the GPU of that number, or None if they can.

    Machine code runs on GPUs of the generation that it was built for, if the GPU's number is not lower than that of the
    code. PTX, if it was built in, is compiled for later generations.
    """
    from ... import _C

    try:
        major, minor = torch.cuda.get_device_capability(index)
    except RuntimeError as error:
        return _unusable(index, error)
    numbers = [int(number) for number in _C.cuda.architectures.split()]
    has_code = any(number // 10 == major and number % 10 <= minor for number in numbers)
    if has_code or (_C.cuda.has_ptx and 10 * major + minor >= numbers[-1]):
        return None
    way_out = f" (EBGAN_FAST_CUDA={major}{minor} pip install . builds for it)" if major >= 8 or minor >= 5 else ""
    return f"{_gpu(index)} is none of these{way_out}"


def _span(architectures: list[str]) -> str:
    """Return the range of architectures as text: "sm_90", or "sm_75…120"."""
    first, last = architectures[0], architectures[-1]
    return f"sm_{first}" if first == last else f"sm_{first}…{last}"
