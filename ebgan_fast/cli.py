"""The command line: `ebgan-fast prepare | train | sample | evaluate | report | doctor`, and the paper's studies.

A user's mistake ends in one line on standard error and a non-zero exit status: 1 for a value or file that cannot be
used, 2 for a command that cannot be read, 128 + the signal's number for a run that was asked to stop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

try:
    import tyro
except ImportError:
    sys.exit("ebgan-fast: the program needs more than the library: pip install 'ebgan_fast[train]'")

import torch

from . import doctor as diagnosis
from ._command_line import Program, chosen, describe, fail
from .data.mnist import load_mnist
from .data.prepare import prepare_images
from .metrics.classifier import load_classifier
from .metrics.classifier_scores import DigitScore, score_images
from .models.families import AnyGenerator
from .ops.backends import BackendUnavailableError
from .report import write_report
from .training.config import PresetName, TrainConfig
from .training.evaluation import Evaluator
from .training.images import load_images
from .training.logs import paced
from .training.loop import train as run_training
from .training.memory import keep_freed_memory
from .training.pictures import draw_interpolation, draw_neighbours
from .training.presets import preset
from .training.samples import load_generator, sample_images, save_folder, save_grid
from .training.trainer import NonFiniteError
from .training.validation import usable_device

_NAME = "ebgan-fast"

# Loaded when they are asked for: optuna takes half a second, and is an extra.
STUDIES = {
    "grid": "The paper's grid search on MNIST: EBGAN against the plain GAN by score (table 1, figures 2 to 4).",
    "margin-sweep": "The effect of the margin on MNIST (figure 9).",
    "pt-study": "EBGAN without and with the pulling-away term, and with what other code computes for it.",
    "semi-supervised": "Digits from few labels: a ladder network alone, and inside an EBGAN (table 2).",
    "theory": "The paper's theorems at work: players on a discrete space reach V = m, U = gamma and q = p.",
}

# Flags of the networks' and the run's settings side by side, without prefixes or subcommands.
_FlatConfig = Annotated[TrainConfig, tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands]


def _train_command(defaults: TrainConfig) -> Callable[..., int]:
    """The command with one preset's settings as the defaults of its flags."""

    def train(config: _FlatConfig = defaults, resume: bool = False) -> int:
        """Train an EBGAN: on digits, or on your own images by one of the paper's presets.

        Args:
            config: What to train and how.
            resume: Go on from the run folder's checkpoint, bit for bit. With no checkpoint there, start.
        """
        keep_freed_memory()
        result = run_training(config, resume=resume)
        return 0 if result.stopped_by is None else 128 + result.stopped_by

    return train


def prepare(
    source: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    size: int,
    workers: int | None = None,
    strict: bool = False,
) -> int:
    """Resize images once, so that training reads them without decoding. Interrupted, it goes on where it stood.

    Args:
        source: A folder of images at any depth, a zip, Hugging Face parquet, webdataset tars or an LSUN LMDB.
        out: Folder to write: packed pixels, an index and checksums.
        size: Side of the images in pixels. The shorter side is scaled to it and the middle kept (the ADM crop).
        workers: Processes. None: one for each processor.
        strict: End at an image that can't be read. Otherwise it is named, counted and left out.
    """
    with _progress("images") as progress:
        prepared = prepare_images(
            source,
            out,
            size,
            workers=workers,
            strict=strict,
            progress=lambda done, total: progress(done / total, f"{done} of {total}"),
        )
    left_out = f", {len(prepared.skipped)} that couldn't be read left out" if prepared.skipped else ""
    print(f"{prepared.images} images of {size} x {size}{left_out}: {out}")
    return 0


def sample(
    checkpoint: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    count: int = 100,
    seed: int = 0,
    columns: int = 10,
    interpolate: bool = False,
    device: str = "auto",
) -> int:
    """Draw images from a trained generator.

    Args:
        checkpoint: A checkpoint, or the run folder that holds one.
        out: A name ending in .png for one grid, any other for a folder of one PNG per image.
        count: How many images.
        seed: Seed of the noise.
        columns: Images in a row of the grid.
        interpolate: Let each row go from one point of the noise to another. Needs a grid.
        device: Torch device that draws, such as cpu or cuda:0. auto: the GPU if there is one.
    """
    _check_positive("count", count)
    _check_positive("columns", columns)
    generator = load_generator(_checkpoint_file(checkpoint), usable_device(device)).generator
    if interpolate:
        if out.suffix.lower() != ".png":
            raise ValueError(f"out: got {out}, expected a name ending in .png with --interpolate")
        draw_interpolation(generator, out, rows=-(-count // columns), columns=columns, seed=seed)
        print(f"interpolations: {out}")
        return 0
    images = sample_images(generator, count, seed)
    if out.suffix.lower() == ".png":
        save_grid(images, out, columns)
    else:
        save_folder(images, out)
    print(f"{count} images: {out}")
    return 0


def evaluate(
    checkpoint: tyro.conf.Positional[Path],
    samples: int = 10_000,
    seed: int = 0,
    data: Path | None = None,
    features: str | None = None,
    device: str = "auto",
) -> int:
    """Score a trained generator: digits by a classifier, other images by Frechet distance and KID.

    Writes score.json beside the checkpoint. The classifier is trained once (about a minute of one core, whatever the
    device, so that it is always the same one) and cached, as the training images' features are.

    Args:
        checkpoint: A checkpoint, or the run folder that holds one.
        samples: Generated images to score.
        seed: Seed of the noise.
        data: Where the training images are now. None: where they were.
        features: Net whose features are compared, efficientnet-lite0 or a TorchScript file. None: the run's.
        device: Torch device that draws and scores, such as cpu or cuda:0. auto: the GPU if there is one.
    """
    path, place = _checkpoint_file(checkpoint), usable_device(device)
    generator, run, steps = load_generator(path, place)
    run = dataclasses.replace(run, data=data or run.data, features=features or run.features)
    if samples < 10:
        raise ValueError(f"samples: got {samples}, expected at least 10, one for each of 10 splits")
    scored, text = (_digit_score if run.preset == "mnist" else _image_score)(run, generator, samples, seed, place)
    written = path.with_name("score.json")
    report = {"checkpoint": path.name, "steps": steps, "samples": samples, "seed": seed, **scored}
    written.write_text(json.dumps(report, indent=2) + "\n")
    print(text)
    print(f"written to {written}")
    return 0


def report(run: tyro.conf.Positional[Path], neighbours: bool = True, device: str = "auto") -> int:
    """Write report.html into a run's folder: curves, grids, scores, interpolations and nearest training images.

    Args:
        run: The run folder.
        neighbours: Look for the training images nearest to samples, which needs the images and the feature net.
        device: Torch device that draws and compares, such as cpu or cuda:0. auto: the GPU if there is one.
    """
    place = usable_device(device)
    loaded = load_generator(_checkpoint_file(run), place)
    generator, config = loaded.generator, loaded.config
    draw_interpolation(generator, run / "interpolation.png", rows=8, columns=10, seed=config.seed)
    if neighbours and config.preset != "mnist":
        with _progress("nearest images") as progress:
            evaluator = Evaluator(config.features, load_images(config), place)
            draw_neighbours(evaluator, generator, run / "neighbours.png", seed=config.seed, progress=progress)
    print(f"report: {write_report(run)}")
    return 0


def doctor() -> int:
    """Say what this machine can run: versions, processor, threads, each backend and why it can or cannot."""
    print(diagnosis.report())
    return 0


def _digit_score(
    run: TrainConfig, generator: AnyGenerator, samples: int, seed: int, device: torch.device
) -> tuple[dict[str, Any], str]:
    with _progress("digit classifier") as progress:
        classifier = load_classifier(load_mnist(run.data), progress=progress, device=device)
    result = score_images(classifier, sample_images(generator, samples, seed, device=device)[:, 0])
    return (
        {"classifier_test_accuracy": classifier.test_accuracy, **dataclasses.asdict(result)},
        _score_text(result, classifier.test_accuracy, samples),
    )


def _image_score(
    run: TrainConfig, generator: AnyGenerator, samples: int, seed: int, device: torch.device
) -> tuple[dict[str, Any], str]:
    with _progress("scores") as progress:
        scored = Evaluator(run.features, load_images(run), device).score(generator, samples, seed, progress)
    return scored, "\n".join(
        (
            f"{samples} generated images against {scored['real_images']} training images",
            f"  {scored['features']}   {scored['fd']:.4g}",
            f"  KID   {scored['kid']:.4g} ± {scored['kid_std']:.2g}   (subsets of {scored['kid_subset_size']})",
        )
    )


def _score_text(result: DigitScore, accuracy: float, samples: int) -> str:
    shares = "  ".join(f"{digit}: {share:.1%}" for digit, share in enumerate(result.class_share))
    return "\n".join(
        (
            f"{samples} generated digits, judged by a classifier of {accuracy:.2%} test accuracy",
            f"  exp E KL(p(y|x) || p(y))   {result.exp_score:.2f} ± {result.exp_score_std:.2f}   (1 worst, 10 best)",
            f"  E KL(p(y|x) || p(y))       {result.kl_conditional_marginal:.3f} nats",
            f"  E KL(p(y) || p(y|x))       {result.kl_marginal_conditional:.3f} nats   (the paper's I')",
            f"  classes   {shares}",
        )
    )


def _checkpoint_file(path: Path) -> Path:
    return path / "checkpoint.pt" if path.is_dir() else path


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: got {value}, expected at least 1")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[float, str], None]]:
    """A callback (share done, text) that draws a bar on a terminal and prints a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield paced(lambda text: print(f"{what}: {text}", file=sys.stderr, flush=True))
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=f"{what}: {text}")


def _study(given: Sequence[str]) -> tuple[list[str], Callable[..., int]]:
    """A study's command, and the arguments with those of its --file.

    Raises:
        ValueError: a file that can't be used, or a package is missing.
        OSError: the file can't be read.
    """
    try:
        from .studies.argument_file import with_file
        from .studies.commands import study_command
    except ImportError as error:
        raise ValueError(f"{error}; the studies need more: pip install 'ebgan_fast[train,studies]'") from error
    arguments = with_file(given)
    return arguments, study_command(arguments[0], arguments[1:])


def _listed(summary: str) -> Callable[..., int]:
    """A study's place in the list of commands."""

    def command() -> int:
        raise AssertionError("only listed")

    command.__doc__ = summary
    return command


def program(arguments: Sequence[str]) -> tuple[Program, Sequence[str]]:
    """The program, with the defaults that a command line asks for, and the command line with the flags of its file.

    Raises:
        ValueError, OSError: a study's --file can't be used.
    """
    given: Sequence[str] = list(arguments)
    commands: dict[str, Callable[..., int]] = {
        "prepare": prepare,
        "train": _train_command(preset(chosen(given, "--preset", get_args(PresetName), "mnist"), tyro.MISSING)),
        "sample": sample,
        "evaluate": evaluate,
        "report": report,
        "doctor": doctor,
        **{name: _listed(summary) for name, summary in STUDIES.items()},
    }
    if given and given[0] in STUDIES:
        given, commands[given[0]] = _study(given)
    found = Program(
        _NAME,
        "Energy-Based GANs: prepare images, train, draw, score, report, and the paper's studies.",
        commands,
        (ValueError, BackendUnavailableError, NonFiniteError),
    )
    return found, given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. `arguments` default to the process's own; returns the exit status."""
    try:
        found, given = program(sys.argv[1:] if arguments is None else arguments)
    except OSError as error:
        return fail(_NAME, describe(error), 1)
    except ValueError as error:
        return fail(_NAME, str(error), 1)
    return found.run(given)


if __name__ == "__main__":
    sys.exit(main())
