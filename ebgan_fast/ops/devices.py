"""The check of the devices of a raw op's tensors.

A graph may be made on one device and run on another, whose memory the graph's kernels cannot read.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .backends import KNOWN, BackendUnavailableError

__all__ = ["check"]

_WAY_OUT = (
    "Export or trace the model again where the graph is to run, or inside `with use_backend('reference'):`, "
    "whose graph runs anywhere"
)


def check(name: str, backend: str, arguments: Sequence[object]) -> None:
    """Raise an error if the backend's kernels cannot read the memory of the tensors.

    A 0-d tensor is a margin, a weight or an upstream gradient. Its value is read if it is on the CPU, or if the batches
    are. But the upstream of a list of gradients is read in its own memory, as the gradients are.

    Raises:
        ValueError: if a tensor is on another type of device than the backend takes, the tensors are on several devices,
            or the backend's name is unknown.
        BackendUnavailableError: if the backend cannot run on this machine.
    """
    known = KNOWN.get(backend)
    if known is None or backend == "reference":
        names = ", ".join(repr(each) for each in KNOWN if each != "reference")
        raise ValueError(f"{name}: got backend {backend!r}, expected one of {names}")
    wanted = known.takes()
    gradients, rest = (arguments[0], arguments[1:]) if isinstance(arguments[0], list) else ((), arguments)
    tensors = [argument for argument in (*gradients, *rest) if isinstance(argument, Tensor)]
    places = {tensor.device for tensor in tensors}
    if len(places) > 1:
        places = {it.device for it in tensors if it.dim() > 0 or "cpu" not in (it.device.type, wanted)}
        if gradients:
            places.add(tensors[len(gradients)].device)
    for place in places:
        if wanted not in ("", place.type):
            raise ValueError(
                f"{name}: got a tensor on '{place}', expected one on {wanted!r}, where the backend {backend!r} of this "
                f"graph runs. {_WAY_OUT}"
            )
    if len(places) > 1:
        raise ValueError(f"{name}: got tensors on {' and '.join(sorted(map(str, places)))}, expected all on one device")
    status = known.status()
    if not status.available:
        raise BackendUnavailableError(
            f"{name}: got a graph for the backend {backend!r}, which cannot run here: {status.reason}. {_WAY_OUT}"
        )
