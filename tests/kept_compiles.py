"""A launcher for CMake: an object that the same compile gave before is copied from gpuless's cache folder.

CMake puts it before a compiler's command where the variables of `launched` are set: in the tests, and in `make setup`,
which begins before there is an environment with gpuless in it. An object's name is the hash of all that the compile
reads: the sources, the headers of its include folders, the compilers' versions, flags and definitions.
Kept are compiles, and no verdicts: a compile that failed or that printed a warning is made again.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "gpuless" / "src"))

from gpuless import cache, compiling

SOURCES = "csrc"  # the folder of which a file's folders may be read; a compile of other files is not kept
_PATHS = ("-o", "-c", "-MF", "-MT", "-MQ")  # each is followed by a path, which changes no code
_INCLUDES = ("-isystem", "-I")
# Options that read more than what is hashed, or mean the processor of this machine.
_READS_MORE = re.compile(
    r"-(B|include|imacros|iquote|idirafter|specs|fplugin|ccbin)|--(compiler-bindir|options-file)|@|-.*=native$"
)


def launched() -> dict[str, str]:
    """Environment variables under which CMake (3.17 or later) starts every compiler through this file.

    Under -IS Python starts without the packages of its environment, which pip hides from a build anyhow.
    """
    launcher = f"{sys.executable};-IS;{Path(__file__).resolve()}"
    return {f"CMAKE_{language}_COMPILER_LAUNCHER": launcher for language in ("CXX", "CUDA")}


def _sources(source: Path) -> Path | None:
    return next((parent for parent in source.resolve().parents if parent.name == SOURCES), None)


def _files(top: Path) -> Iterator[bytes]:
    """The name and the bytes of every file below a folder."""
    for path in sorted(path for path in top.rglob("*") if path.is_file()):
        yield path.relative_to(top).as_posix().encode()
        yield path.read_bytes()


def _version(compiler: str) -> bytes:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True).stdout
    except FileNotFoundError:  # there need be no c++ beside the compiler that CXX names
        return b""


def name_of(command: Sequence[str]) -> str | None:
    """Return what the object of a compile is kept under, or None where it is not kept."""
    if "-c" not in command or "-o" not in command or any(map(_READS_MORE.match, command)):
        return None
    source = Path(command[list(command).index("-c") + 1])
    top = _sources(source)
    if top is None:
        return None
    parts: list[bytes] = [source.resolve().relative_to(top).as_posix().encode(), *_files(top)]
    words = iter(command[1:])
    for word in words:
        if word in _PATHS:
            next(words)
        elif word.startswith(_INCLUDES):
            attached = word.removeprefix("-isystem").removeprefix("-I").removeprefix("=")
            parts += [b"include", *_files(Path(attached or next(words)))]
        else:
            parts.append(word.encode())
    # Of nvcc's host compiler too, and of the C library, whose headers come with neither.
    parts += [_version(command[0]), _version("c++"), "".join(platform.libc_ver()).encode()]
    parts += [variable.encode() for variable in compiling.variables()]
    return cache.key(*parts)


def main(command: Sequence[str]) -> int:
    """Run a compiler's command, or copy the object that it made before; give its status."""
    name = name_of(command)
    if name is None:
        return subprocess.run(command).returncode
    made, kept = Path(command[list(command).index("-o") + 1]), cache.read(name)
    if kept is not None:
        made.write_bytes(kept)
        if "-MF" in command:  # which headers it read; make and ninja want the file
            Path(command[list(command).index("-MF") + 1]).write_text(f"{made}:\n")
        return 0
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    sys.stdout.buffer.write(done.stdout)
    if done.returncode == 0 and not done.stdout:
        cache.write(name, made.read_bytes())
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
