"""A sample of more than 2^31 elements: its last chunk, in a build that checks integers for overflow."""

from __future__ import annotations

import torch

from tests.simulators.sparse import sparse

from .stand_ins import recorded  # isort: skip  (skips the module where there is no Triton)

import ebgan_fast.ops.triton as ops
from tests.simulators.compiled import compile_launch
from tests.simulators.ptx import simulate


def test_the_last_chunk_of_a_sample() -> None:
    recon, target = (sparse((1, 2**31 + 8192 + 77), torch.float32, fill=0.0) for _ in range(2))
    recon[0, -5:] = torch.arange(1.0, 6.0)
    with recorded() as launches:
        ops.reconstruction_energy(recon, target, "sse")
    (launch,) = launches
    artefact = compile_launch(launch, "sm_80", debug=True)
    partials = launch.arguments["p_partials_real"].zero_()
    last = launch.grid[0] - 1
    simulate(
        artefact.ptx,
        grid=launch.grid,
        threads=32 * artefact.num_warps,
        arguments=[launch.arguments[name] for name in artefact.runtime_arguments],
        shared_bytes=artefact.shared,
        ctas=[(last, 0, 0)],
    )
    assert partials[last].item() == 1 + 4 + 9 + 16 + 25
    assert partials.count_nonzero().item() == 1
