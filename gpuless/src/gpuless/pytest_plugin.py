"""The pytest fixture `gpu`, which runs kernels under several orders of their blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .arrays import ArrayLike
    from .ptx import Argument, Report


class Gpu:
    """A replacement for a GPU in tests.

    A kernel runs once for each seed, each time on the arrays as they were given. The arrays hold the last results
    afterward. A race or an access out of bounds raises an error of `gpuless.ptx`. Results that differ from seed to seed
    raise AssertionError, unless `deterministic` is False.
    """

    seeds: Sequence[int] = range(4)

    def triton(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        arguments: Mapping[str, Any],
        *,
        target: str = "sm_80",
        debug: bool = False,
        deterministic: bool = True,
        **options: Any,
    ) -> list[Report]:
        """Run a Triton kernel once for each seed, as `gpuless.triton.run` does. Skip the test if triton or torch is
        missing.

        Args:
            kernel: The @triton.jit function.
            grid: The number of programs, in up to three dimensions.
            arguments: The kernel's arguments by name.
            target: The NVIDIA architecture to compile for.
            debug: If True, compile `tl.device_assert` and the checks for integer overflow in.
            deterministic: If False, results may differ from seed to seed.
            **options: Options of the launch, like num_warps.

        Returns:
            The report of each run, in the order of the seeds.
        """
        for package in ("torch", "triton"):
            pytest.importorskip(package, reason=f"{package} is not installed: pip install 'gpuless[triton]'")
        from . import triton

        artifact = triton.compile(kernel, arguments, target, debug=debug, **options)
        return self._under_every_seed(
            lambda seed: artifact.run(grid, arguments, seed=seed), arguments, deterministic=deterministic
        )

    def cuda(
        self,
        source: Path | str,
        entry: str,
        *,
        grid: int | tuple[int, ...],
        threads: int | tuple[int, ...],
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
        target: str = "sm_80",
        options: Sequence[str] = (),
        headers: Sequence[Path] = (),
        deterministic: bool = True,
    ) -> list[Report]:
        """Run a kernel of a .cu file once for each seed, as `gpuless.cuda.run` does. Skip the test if nvcc is missing.

        Args:
            source: The .cu file.
            entry: The kernel's name in the source, or in the PTX.
            grid: The number of blocks, in up to three dimensions.
            threads: The number of threads of a block, in up to three dimensions.
            arguments: The kernel's arguments, as `gpuless.ptx.simulate` takes them.
            shared_bytes: The bytes of dynamic shared memory of a block.
            target: The GPU architecture to compile for.
            options: More options for nvcc.
            headers: Folders for -I.
            deterministic: If False, results may differ from seed to seed.

        Returns:
            The report of each run, in the order of the seeds.
        """
        from . import cuda, ptx

        if reason := cuda.missing():
            pytest.skip(reason)
        text = cuda.ptx(source, target, options=options, headers=headers)
        name = cuda.name_in(text, entry)

        def run(seed: int) -> Report:
            return ptx.simulate(
                text,
                entry=name,
                grid=grid,
                threads=threads,
                arguments=arguments,
                shared_bytes=shared_bytes,
                seed=seed,
            )

        named = {f"argument {number}": argument for number, argument in enumerate(arguments)}
        return self._under_every_seed(run, named, deterministic=deterministic)

    def _under_every_seed(
        self, run: Callable[[int], Report], arguments: Mapping[str, Any], *, deterministic: bool
    ) -> list[Report]:
        from .arrays import copy, fill_from, is_array, same_bytes

        arrays: dict[str, ArrayLike] = {name: value for name, value in arguments.items() if is_array(value)}
        given = {name: copy(array) for name, array in arrays.items()}
        reports: list[Report] = []
        first: dict[str, ArrayLike] = {}
        for seed in self.seeds:
            for name, array in arrays.items():
                fill_from(array, given[name])
            reports.append(run(seed))
            first = first or {name: copy(array) for name, array in arrays.items()}
            differing = [name for name, array in arrays.items() if not same_bytes(array, first[name])]
            if deterministic and differing:
                raise AssertionError(
                    f"{', '.join(differing)}: seed {seed} gives other results than seed {self.seeds[0]}; if the order "
                    "of the blocks may show in them, pass deterministic=False"
                )
        return reports


@pytest.fixture
def gpu() -> Gpu:
    """Return an object that runs kernels without a GPU, under several orders of their blocks: gpu.triton(…),
    gpu.cuda(…).
    """
    return Gpu()
