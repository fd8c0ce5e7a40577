"""Try a freshly built wheel where only the wheel is installed: `[tool.cibuildwheel]` runs this."""

from __future__ import annotations

import torch

import ebgan_fast

recon, target = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3)
with ebgan_fast.use_backend("cpu"):
    energy = ebgan_fast.reconstruction_energy(recon, target, norm="sse")
(gradient,) = torch.autograd.grad(energy.sum(), recon)
if energy.tolist() != [3, 3] or not torch.equal(gradient, torch.full((2, 3), 2.0)):
    raise SystemExit(f"ebgan_fast: got energies {energy.tolist()}, gradient {gradient.tolist()}; expected 3 and 2")
print(f"{ebgan_fast.__file__}: {ebgan_fast.backends()['cpu'].reason}")
