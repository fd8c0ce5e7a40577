"""Arrays of more than 2^31 elements: the last elements are right, in a build that checks integers for overflow."""

from __future__ import annotations

import pytest
import torch

from gpuless.sparse import sparse

from .stand_ins import recorded  # isort: skip  (skips the module where there is no Triton)

from ebgan_fast.ops.backends.triton import scaling
from ebgan_fast.ops.backends.triton.launch import Launch

from ..launches import Launches
from .compiling import compile_launch

ops = Launches("triton")


def _run_last(launch: Launch) -> int:
    """Run only the last program of a launch, and return its number."""
    artifact = compile_launch(launch, "sm_80", debug=True)
    last = launch.grid[0] - 1
    artifact.run(launch.grid, launch.arguments, ctas=[(last, 0, 0)])
    return last


def test_the_last_chunk_of_a_sample() -> None:
    recon, target = (sparse((1, 2**31 + 8192 + 77), torch.float32, fill=0.0) for _ in range(2))
    recon[0, -5:] = torch.arange(1.0, 6.0)
    with recorded() as launches:
        ops.reconstruction_energy(recon, target, "sse")
    (launch,) = launches
    partials = launch.arguments["p_partials_real"].zero_()
    last = _run_last(launch)
    assert partials[last].item() == 1 + 4 + 9 + 16 + 25
    assert partials.count_nonzero().item() == 1


@pytest.mark.parametrize("count", [2**31 - 16, 2**31 + 2**29])
def test_the_last_elements_of_a_gradient(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last program scales the last elements, in its fourth or fifth step.

    A count below 2^31 fits in 32 bits, but the indices of the last step go beyond it.
    """
    monkeypatch.setattr(scaling, "MOST_PROGRAMS", 1 << 17)
    gradient = sparse((count,), torch.float32, fill=0.0)
    gradient[-5:] = torch.arange(1.0, 6.0)
    with recorded() as launches:
        ops.scale_gradients_([gradient], torch.tensor(3.0), 1.0)
    (launch,) = launches
    _run_last(launch)
    assert gradient[-5:].tolist() == [3.0, 6.0, 9.0, 12.0, 15.0]
