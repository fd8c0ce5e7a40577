"""The ops as a backend launches them, without autograd and torch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ebgan_fast.ops import energy as energy  # the instances
from ebgan_fast.ops import op


class Launches:
    """The ops of one backend as methods: `Launches("cpu").reconstruction_energy(recon, target, "l2")`."""

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return op.kernel(name, self._backend)
