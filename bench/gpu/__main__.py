"""The command `bench/gpu.sh [STAGE...]`, once the wheels are unpacked. It reads the variables and handles signals."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from .driver import Driver, Settings
from .machine import ROOT
from .processes import ThisMachine
from .stages import DEFAULT_MINUTES, STAGES

_VARIABLES = f"""\
PYTHON       interpreter of an environment with torch (python3)
GPU_MINUTES  time for all of it ({DEFAULT_MINUTES:g})
GPU_OUT      folder of results, else OUT, else build/gpu
GPU_IMAGES   folder or zip of images for the real run, else images or images.zip of the repository
GPU_WHEELS   folder of wheels that the environment lacks, else wheels of the repository"""


def settings(arguments: Sequence[str], variables: Mapping[str, str]) -> Settings:
    """Return the settings that the arguments and the variables give.

    Args:
        arguments: The names of stages, or --help.
        variables: The environment's variables.

    Raises:
        ValueError: A variable cannot be used.
        SystemExit: The arguments are --help, or name an unknown stage.
    """
    names = [stage.name for stage in STAGES]
    reader = argparse.ArgumentParser(
        "bench/gpu.sh",
        description="Run all that awaits a GPU: stages in order of value, those with a result left out.",
        epilog=_VARIABLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reader.add_argument("stage", nargs="*", help=f"run these alone, whatever was found before: {' '.join(names)}")
    named = reader.parse_args(arguments).stage
    if unknown := [name for name in named if name not in names]:
        reader.error(f"got stage {unknown[0]}, expected some of: {' '.join(names)}")
    try:
        minutes = float(variables.get("GPU_MINUTES") or DEFAULT_MINUTES)
        if not 0 < minutes < 24 * 60:
            raise ValueError
    except ValueError:
        raise ValueError(f"GPU_MINUTES: got {variables['GPU_MINUTES']}, expected a number of minutes above 0") from None
    out = Path(variables.get("GPU_OUT") or variables.get("OUT") or ROOT / "build" / "gpu").absolute()
    return Settings(out, ROOT / "build" / "gpu-work", _images(variables), minutes, tuple(named))


def _images(variables: Mapping[str, str]) -> Path | None:
    if given := variables.get("GPU_IMAGES"):
        if not Path(given).exists():
            raise ValueError(f"GPU_IMAGES: got {given}, expected a folder or a zip that exists")
        return Path(given).absolute()
    return next((path for path in (ROOT / "images", ROOT / "images.zip") if path.exists()), None)


def _stopped(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str]) -> int:
    """Run the stages, and return the exit status."""
    # A background job of a shell ignores interrupts, and so do all programs that it starts.
    signal.signal(signal.SIGINT, _stopped)
    signal.signal(signal.SIGTERM, _stopped)
    try:
        chosen = settings(arguments, os.environ)
    except ValueError as error:
        print(f"gpu.sh: {error}", file=sys.stderr)
        return 2
    driver = Driver(ThisMachine(ROOT), chosen, STAGES, lambda line: print(line, flush=True))
    return driver.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
