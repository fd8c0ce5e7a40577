"""A config as JSON, and which configs a checkpoint may go on under."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..models.families import Conv, Mlp
from .config import TrainConfig
from .validation import validate

# Fields that a resumed run may change: they say where things lie, how often they are written, or which
# processor resources do the arithmetic, but not what is computed. `data` is held to the same images by a
# fingerprint. The device isn't among them, because each kind draws other random numbers; nor is log_every,
# because the statistics of a half-done interval could not be continued.
FREE_ON_RESUME = frozenset(
    {
        "out",
        "data",
        "sample_every",
        "checkpoint_every",
        "evaluate_every",
        "evaluate_samples",
        "features",
        "tensorboard",
        "compile",
        "cudnn_benchmark",
        "backend",
        "threads",
    }
)


# Fields that came later, with what runs from before did.
_LATER: dict[str, Any] = {"cudnn_benchmark": False}

_FAMILIES: dict[str, type[Mlp] | type[Conv]] = {"mlp": Mlp, "conv": Conv}


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The fields as JSON values; the networks' as an object with their family."""
    fields = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    (family,) = (name for name, kind in _FAMILIES.items() if isinstance(config.networks, kind))
    fields["networks"] = {"family": family, **dataclasses.asdict(config.networks)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def from_dict(fields: dict[str, Any]) -> TrainConfig:
    """The reverse of `to_dict`, also of what an earlier version wrote.

    Raises:
        ValueError: unknown or missing fields, or a value that `validate` refuses.
    """
    fields = {**_LATER, **fields}
    _check_names("a config", set(fields), TrainConfig)
    networks = fields["networks"]
    if not isinstance(networks, dict) or networks.get("family") not in _FAMILIES:
        raise ValueError(f"networks: got {networks!r}, expected an object with a family of {', '.join(_FAMILIES)}")
    kind = _FAMILIES[networks["family"]]
    sizes = {name: value for name, value in networks.items() if name != "family"}
    _check_names("networks", set(sizes), kind)
    paths = {name: Path(fields[name]) for name in ("out", "data") if isinstance(fields[name], str)}
    config = TrainConfig(**{**fields, **paths, "networks": kind(**sizes)})
    # Not the device: a run made on another machine's can still be read here.
    validate(dataclasses.replace(config, device="cpu"))
    return config


def _check_names(what: str, got: set[str], kind: type[Any]) -> None:
    known = {item.name for item in dataclasses.fields(kind)}
    if got != known:
        raise ValueError(f"got {what} whose fields differ from this version's in: {', '.join(sorted(got ^ known))}")


def write_json(config: TrainConfig, path: Path) -> None:
    path.write_text(json.dumps(to_dict(config), indent=2) + "\n")


def read_json(path: Path) -> TrainConfig:
    """The reverse of `write_json`.

    Raises:
        ValueError: not a config of this version; the message names the file.
        OSError: the file can't be read.
    """
    try:
        fields = json.loads(path.read_text())
        if not isinstance(fields, dict):
            raise ValueError(f"got a JSON {type(fields).__name__}, expected an object")
        return from_dict(fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_resumable(config: TrainConfig, saved: TrainConfig) -> None:
    """A run may go on under another config only where that changes nothing that was or will be computed.

    `steps` may change as long as no schedule is stretched over the run by it.

    Raises:
        ValueError: names each field that differs, with both values.
    """
    stretched = config.lr_decay != "none" or (config.margin_schedule != "constant" and config.margin_steps is None)
    free = FREE_ON_RESUME if stretched else FREE_ON_RESUME | {"steps"}
    now, before = _flat(config), _flat(saved)
    differing = [name for name in {**now, **before} if name not in free and now.get(name) != before.get(name)]
    if differing:
        pairs = ", ".join(f"{name} (got {now.get(name)!r}, expected {before.get(name)!r})" for name in differing)
        raise ValueError(f"the run to resume was made with another config: {pairs}")


def _flat(config: TrainConfig) -> dict[str, Any]:
    """The fields with the networks' among them."""
    fields = to_dict(config)
    return {**fields.pop("networks"), **fields}
