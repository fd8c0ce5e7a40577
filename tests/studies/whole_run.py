"""A whole run of a study by its command, and a small set of digits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from ebgan_fast import cli
from ebgan_fast.studies.framework.results import Results, read


def check(name: str, out: Path, flags: Sequence[str], trials: int, pictures: set[str]) -> Results:
    """Run a study on the CPU in this process, compare its files with its results, and return the results."""
    assert cli.main([name, "--out", str(out), "--workers", "1", *flags]) == 0
    results = read(out / "results.json")
    assert results.study == name
    assert len(results.measured()) == trials, [trial.reason for trial in results.trials]
    assert results.settings["budget"] == "minutes"
    assert {"ebgan_fast", "torch", "python", "optuna"} <= set(results.versions)
    for picture in pictures:
        with Image.open(out / picture) as image:
            assert min(image.size) > 100
    lines = (out / "results.json").read_text().splitlines()
    assert sum(line.startswith('{"params"') for line in lines) == len(results.trials)
    assert len(lines) == 11 + len(results.trials) + max(1, len(results.pictures))
    return results


def few_digits(folder: Path) -> Path:
    """Write a thousand training images and two hundred test images, in ten classes, as IDX files. Return their
    folder."""
    chance = torch.Generator().manual_seed(0)
    for part, count in (("train", 1000), ("t10k", 200)):
        sizes = {"images-idx3": (count, 28, 28), "labels-idx1": (count,)}
        images = torch.randint(0, 256, sizes["images-idx3"], generator=chance, dtype=torch.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", torch.arange(count) % 10)):
            head = bytes([0, 0, 8, len(sizes[name])]) + b"".join(size.to_bytes(4, "big") for size in sizes[name])
            (folder / f"{part}-{name}-ubyte").write_bytes(head + values.to(torch.uint8).numpy().tobytes())
    return folder
