"""The calls that the ops refuse. Each message says what came, what was expected and the way out."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

import ebgan_fast

GOOD = torch.ones(4, 3)
ENERGY = torch.ones(4)

CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "shapes differ": (
        lambda: ebgan_fast.reconstruction_energy(GOOD, torch.ones(3, 4), norm="mse"),
        ValueError,
        r"recon and target: got shapes \(4, 3\) and \(3, 4\), expected the same",
    ),
    "broadcastable shapes": (
        lambda: ebgan_fast.reconstruction_energy(GOOD, torch.ones(1, 3), norm="mse"),
        ValueError,
        "nothing is broadcast",
    ),
    "norm": (
        lambda: ebgan_fast.reconstruction_energy(GOOD, GOOD, norm="l3"),  # type: ignore[arg-type]
        ValueError,
        r"norm: got 'l3', expected one of 'mse', 'sse', 'l2'",
    ),
    "integers": (
        lambda: ebgan_fast.reconstruction_energy(GOOD.int(), GOOD, norm="mse"),
        TypeError,
        r"recon: got torch.int32, expected float64.*\.to\(\)",
    ),
    "complex": (lambda: ebgan_fast.pulling_away_term(GOOD.to(torch.cfloat)), TypeError, "code: got torch.complex64"),
    "sparse": (
        lambda: ebgan_fast.pulling_away_term(GOOD.to_sparse()),
        TypeError,
        r"got layout torch.sparse_coo.*to_dense",
    ),
    "a number as a batch": (
        lambda: ebgan_fast.pulling_away_term(3.0),
        TypeError,
        "code: got float, expected a torch.Tensor",
    ),  # type: ignore[arg-type]
    "0-d": (
        lambda: ebgan_fast.pulling_away_term(torch.tensor(1.0)),
        ValueError,
        r"code: got a 0-d tensor, expected \[N",
    ),
    "empty samples": (lambda: ebgan_fast.pulling_away_term(torch.ones(4, 0)), ValueError, r"shape \(4, 0\)"),
    "devices": (
        lambda: ebgan_fast.reconstruction_energy(GOOD, GOOD.to("meta"), norm="mse"),
        ValueError,
        "got tensors on cpu and meta, expected one device",
    ),
    "energies of another shape": (
        lambda: ebgan_fast.hinge_margin_loss(GOOD, ENERGY, 1.0),
        ValueError,
        r"energy_real: got shape \(4, 3\), expected \[N\]",
    ),
    "negative margin": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, -1.0),
        ValueError,
        "margin: got -1.0, expected a finite number >= 0",
    ),
    "margin of nan": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, float("nan")),
        ValueError,
        "margin: got nan",
    ),
    "margin per sample": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, ENERGY),
        ValueError,
        r"margin: got a tensor of shape \(4,\), expected a number or a 0-d tensor",
    ),
    "margin as text": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, "10"),  # type: ignore[arg-type]
        TypeError,
        "margin: got str",
    ),
    "margin of integers": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, torch.tensor(1)),
        TypeError,
        "margin: got a tensor of torch.int64",
    ),
    "negative weight": (
        lambda: ebgan_fast.generator_loss(GOOD, GOOD, GOOD, pt_weight=-0.1, norm="mse"),
        ValueError,
        "pt_weight: got -0.1",
    ),
    "codes of another batch": (
        lambda: ebgan_fast.generator_loss(GOOD, GOOD, torch.ones(5, 2), norm="mse"),
        ValueError,
        "recon_fake and code: got batches of 4 and 5 samples",
    ),
    "real and fake swapped shapes": (
        lambda: ebgan_fast.discriminator_loss(GOOD, torch.ones(4, 2), GOOD, GOOD, 1.0, norm="mse"),
        ValueError,
        "recon_real and real: got shapes",
    ),
    "a weight without a code": (
        lambda: ebgan_fast.generator_loss(GOOD, GOOD, pt_weight=0.5),
        ValueError,
        r"pt_weight: got 0.5 without a code, expected a code too \(code=.*or no pt_weight: left out, it is 0.1",
    ),
    "a weight in memory without a code": (
        lambda: ebgan_fast.generator_loss(GOOD, GOOD, pt_weight=torch.tensor(0.0)),
        ValueError,
        "pt_weight: got a tensor without a code",
    ),
    "a margin of true": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, True),
        TypeError,
        "margin: got bool, expected a number",
    ),
    "a margin of NumPy's true": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, np.True_),
        TypeError,
        "margin: got bool",
    ),
    "margins in an array": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, np.ones(4)),
        TypeError,
        "margin: got ndarray, expected a number",
    ),
    "a margin past every float": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, 10**400),
        ValueError,
        "margin: got 1000.*, expected a finite number >= 0",
    ),
    "a fraction past every float": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, Fraction(10**400, 3)),  # type: ignore[arg-type]
        ValueError,
        "margin: got inf",
    ),
    "reduction": (
        lambda: ebgan_fast.reconstruction_energy(GOOD, GOOD, reduction="average"),  # type: ignore[arg-type]
        ValueError,
        "reduction: got 'average', expected one of 'none', 'mean', 'sum'",
    ),
    "shapes of a mean": (
        lambda: ebgan_fast.reconstruction_energy(GOOD, torch.ones(3, 4), reduction="mean"),
        ValueError,
        "recon and target: got shapes",
    ),
    "weights in an array": (
        lambda: ebgan_fast.generator_loss(GOOD, GOOD, pt_weight=np.ones(2)),  # type: ignore[arg-type]
        TypeError,
        "pt_weight: got ndarray",
    ),
    "module reduction": (
        lambda: ebgan_fast.nn.ReconstructionEnergy(reduction="max"),  # type: ignore[arg-type]
        ValueError,
        "reduction: got 'max'",
    ),
    "a number for a process group": (
        lambda: ebgan_fast.pulling_away_term(GOOD, process_group=0.1),  # type: ignore[arg-type]
        TypeError,
        r"process_group: got float, expected a torch.distributed.ProcessGroup .*new_group\(\).*get_group\(\)",
    ),
    "a name for a loss's process group": (
        lambda: ebgan_fast.generator_loss(GOOD, GOOD, GOOD, process_group="gloo"),  # type: ignore[arg-type]
        TypeError,
        "process_group: got str, expected a torch.distributed.ProcessGroup",
    ),
    "energies of generated samples left out": (
        lambda: ebgan_fast.hinge_margin_loss(ENERGY, None, 1.0),  # type: ignore[arg-type]
        TypeError,
        "energy_fake: got NoneType, expected a torch.Tensor",
    ),
    "module norm": (lambda: ebgan_fast.nn.DiscriminatorLoss(1.0, norm="L2"), ValueError, "norm: got 'L2'"),  # type: ignore[arg-type]
    "module margin": (lambda: ebgan_fast.nn.HingeMarginLoss(-2), ValueError, "margin: got -2"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str) -> None:
    call, error, message = CASES[name]
    with pytest.raises(error, match=message):
        call()


def test_a_dtensor_is_told_the_way_out(tmp_path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        code = distribute_tensor(GOOD, init_device_mesh("cpu", (1,)))
        with pytest.raises(TypeError, match=r"code: got a DTensor.*to_local\(\).*process_group.*full_tensor\(\)"):
            ebgan_fast.pulling_away_term(code)
    finally:
        dist.destroy_process_group()
