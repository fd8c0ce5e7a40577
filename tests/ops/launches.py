"""The ops as a backend launches them, past autograd and the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ebgan_fast.ops import energy as energy  # the instances
from ebgan_fast.ops import op


class Launches:
    """A backend's ops by their names: `Launches("cpu").reconstruction_energy(recon, target, "l2")`."""

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return op.kernel(name, self._backend)
