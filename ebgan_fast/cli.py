"""The command line: `ebgan-fast prepare | train | sample | evaluate | report | doctor`, and the paper's studies.

A user's mistake ends in one line on standard error and a non-zero exit status:

* 1 for a value or file that cannot be used,
* 2 for a command line that cannot be read,
* 128 + the signal's number for a training run that a signal stopped,
* 130 for any other command that was interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, get_args

try:
    import filelock  # noqa: F401  the modules below need these packages
    import rich  # noqa: F401
    import tyro

    from . import _plotting  # noqa: F401
except ImportError as error:
    _missing = "; the program needs more than the library: pip install 'ebgan_fast[train]'"
    sys.exit(f"ebgan-fast: {error}{_missing if isinstance(error, ModuleNotFoundError) else ''}")

from torch import Tensor

from . import doctor as diagnosis
from ._command_line import Program, chosen, describe, fail, note
from ._console import Tolerant, answer, say
from ._files import replacing
from ._settings import SEED
from .data.errors import DataError
from .data.image_set import ImageSet
from .data.mnist import Mnist
from .data.prepare import prepare_images
from .data.sources import Kind
from .data.training_set import kind_of, open_digits, open_images
from .memory import keep_freed_memory
from .metrics.classifier import load_classifier
from .metrics.features import is_program
from .models.families import AnyGenerator
from .ops.backends import BackendUnavailableError
from .report import write_report
from .studies import all_studies
from .studies.framework.command import NEEDS_MORE, command_of
from .training.config import PresetName, TrainConfig
from .training.display import paced
from .training.loop import train as run_training
from .training.parallel import usable_device
from .training.pictures import draw_interpolation, draw_neighbors, save_folder, save_grid
from .training.presets import preset
from .training.run.folder import RunFolder
from .training.sampling import batches_of_images, load_generator, load_run, noise_of
from .training.scoring import Evaluator, digits_text, images_text, score_digits
from .training.statistics import NonFiniteError

_NAME = "ebgan-fast"

# The flags of the networks' settings and of the run's settings are on one level, without prefixes or subcommands.
_FlatConfig = Annotated[TrainConfig, tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands]


def _train_command(defaults: TrainConfig) -> Callable[..., int]:
    """Return the command `train`, with one preset's settings as the defaults of its flags."""

    def train(config: _FlatConfig = defaults, resume: bool = False) -> int:
        """Train an EBGAN: on digits, or on your own images with one of the paper's presets.

        Args:
            config: What to train and how.
            resume: Continue from the run folder's checkpoint, on the CPU bit for bit.
                Without a checkpoint there, start a new run.
        """
        keep_freed_memory()
        result = run_training(config, resume=resume)
        return 0 if result.stopped_by is None else 128 + result.stopped_by

    return train


def prepare(
    source: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    size: int,
    kind: Kind | None = None,
    split: str | None = None,
    column: str | None = None,
    workers: int | None = None,
    strict: bool = False,
) -> int:
    """Resize images once, so that training reads them without decoding. After an interruption, the same command
    continues.

    Args:
        source: A folder of images at any depth, a file of many images, or a folder of such files.
            They may be zip, Hugging Face parquet, tar, LSUN's LMDB, and arrays (.npy, .npz, HDF5, CIFAR's batches).
        out: Folder to write: packed pixels, an index and checksums.
        size: Side of the images in pixels. The shorter side is scaled to it and the middle is kept (the ADM crop).
        kind: The kind of source to take from a folder that holds several kinds. None: the kind with the most images.
        split: The split to take from a set that has several, such as train. all: all splits as one set.
        column: The column of a parquet file, array of an .npz or HDF5 file, or part of webdataset samples to take.
            None: the one named image, or the only one that holds images; of a webdataset sample, one image.
        workers: Number of processes. None: as many as this process's share of processors and memory allows.
        strict: Stop at an image that can't be decoded. Otherwise the image is named, counted and left out.
    """
    with _progress("images") as progress:
        prepared = prepare_images(
            source,
            out,
            size,
            kind=kind,
            split=split,
            column=column,
            workers=workers,
            strict=strict,
            progress=lambda done, total: progress(done / total, f"{done} of {total}"),
        )
    for what, tally in (("left aside", prepared.left_aside), ("left out", prepared.left_out)):
        for text in tally.texts():
            say(f"{what}: {text}")
    left_out = f", {len(prepared.skipped)} that can't be decoded left out" if prepared.skipped else ""
    images = "1 image" if prepared.images == 1 else f"{prepared.images} images"
    say(f"{images} of {size} x {size}{left_out}: {out}")
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
        out: A name ending in .png for one grid, any other name for a folder with one PNG per image.
        count: Number of images.
        seed: Seed of the noise.
        columns: Images in a row of the grid.
        interpolate: Let each row go from one point of the noise to another. Needs a grid.
        device: Torch device that draws, such as cpu or cuda:0. auto: the GPU if there is one.
    """
    _check_positive("count", count)
    _check_positive("columns", columns)
    _check_seed(seed)
    generator = load_generator(RunFolder.checkpoint_of(checkpoint), usable_device(device)).generator
    if interpolate:
        if out.suffix.lower() != ".png":
            raise ValueError(f"out: got {out}, expected a name ending in .png with --interpolate")
        draw_interpolation(generator, out, rows=-(-count // columns), columns=columns, seed=seed)
        say(f"interpolations: {out}")
        return 0
    with _progress("images") as progress:
        batches = _counted(batches_of_images(generator, noise_of(generator, count, seed)), count, progress)
        if out.suffix.lower() == ".png":
            save_grid(batches, out, columns)
        else:
            save_folder(batches, out)
    say(f"{count} images: {out}")
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

    Prints the scores and writes score.json into the run's folder. The classifier is trained once and cached. Its
    training takes about a minute of one CPU core, whatever the device is, so that the classifier is always the same.
    The training images' features are cached too.

    Args:
        checkpoint: A checkpoint, or the run folder that holds one.
        samples: Number of generated images to score.
        seed: Seed of the noise.
        data: Where the training images are now. None: where they were.
        features: Net whose features are compared: efficientnet-lite0, or a TorchScript file, which is a program that
            runs here. With it, digits are compared by features too. None: the run's net, unless that is a file.
        device: Torch device that draws and scores, such as cpu or cuda:0. auto: the GPU if there is one.
    """
    _check_seed(seed)
    path, place = RunFolder.checkpoint_of(checkpoint), usable_device(device)
    (generator, run, steps), fingerprint = load_run(path, place)
    run = dataclasses.replace(run, data=data or run.data)
    if samples < 10:
        raise ValueError(f"samples: got {samples}, expected at least 10, one for each of 10 splits")
    opened = run.data, run.image_size, generator.image_shape[0]
    digits: Mnist | None = None
    images: ImageSet
    with _moved_data(run, data):
        if kind_of(run.data, run.image_size) == "digits":
            digits, images = open_digits(*opened)
        else:
            images = open_images(*opened)
    if images.fingerprint != fingerprint:
        note(_NAME, f"{run.data}: other images than those that the run was trained on")
    if features is None and digits is not None:
        with _progress("digit classifier") as progress:
            classifier = load_classifier(digits, progress=progress, device=place)
        scored = score_digits(classifier, generator, samples, seed, place)
        text = digits_text(scored, samples)
    else:
        with _progress("scores") as progress:
            evaluator = Evaluator(_net_to_load(run, features), images, place)
            scored = evaluator.score(generator, samples, seed, progress)
        text = images_text(scored, evaluator.features)
    say(text)
    written = RunFolder.of(path).evaluation
    report = {"checkpoint": path.name, "steps": steps, "samples": samples, "seed": seed, **scored}
    with replacing(written) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())
    say(f"written to {written}")
    return 0


def report(
    run: tyro.conf.Positional[Path],
    neighbors: bool = True,
    data: Path | None = None,
    features: str | None = None,
    device: str = "auto",
) -> int:
    """Write report.html into a run's folder: curves, grids, scores, interpolations and nearest training images.

    Args:
        run: The run folder, or one of its checkpoints, whose generator then draws the interpolations.
        neighbors: Find the training images nearest to samples. Needs the images and the feature net. Digits have none.
        data: Where the training images are now. None: where they were.
        features: Net whose features decide which images are near: efficientnet-lite0, or a TorchScript file, which is a
            program that runs here. None: the run's net, unless that is a file.
        device: Torch device that draws and compares, such as cpu or cuda:0. auto: the GPU if there is one.
    """
    place, folder = usable_device(device), RunFolder.of(run)
    (generator, config, _), fingerprint = load_run(RunFolder.checkpoint_of(run), place)
    config = dataclasses.replace(config, data=data or config.data)
    folder.contents()  # raises here, before the pictures are drawn, if no page can be made of the folder
    draw_interpolation(generator, folder.interpolation, rows=8, columns=10, seed=config.seed)
    folder.neighbors.unlink(missing_ok=True)  # may show another generator's samples
    if neighbors and (found := _images_and_net(config, generator, fingerprint, data, features)):
        images, net = found
        with _progress("nearest images") as progress:
            scorer = Evaluator(net, images, place).scorer
            draw_neighbors(scorer, generator, folder.neighbors, seed=config.seed, progress=progress)
    say(f"report: {write_report(folder.path)}")
    return 0


def doctor() -> int:
    """Say what this machine can run: versions, processor, threads, and each backend with why it can or cannot run."""
    answer(diagnosis.report())
    return 0


def _net_to_load(run: TrainConfig, given: str | None) -> str:
    """Return the feature net that the command line names, or else the run's. A file must be named on the command line.

    Raises:
        ValueError: if the command line names no net and the run's is a file, which would run as a program.
    """
    if given is not None:
        return given
    if is_program(run.features):
        raise ValueError(
            f"features: got a run scored by the file {run.features}, which would run here as a program, expected the "
            "net to be named: --features with that file if you trust it, or --features efficientnet-lite0"
        )
    return run.features


def _images_and_net(
    run: TrainConfig, generator: AnyGenerator, fingerprint: str | None, given: Path | None, features: str | None
) -> tuple[ImageSet, str] | None:
    """Return the training images for nearest neighbors, and the name of the net whose features are compared.

    Returns None for digits. Also returns None, after a note, if the images are no longer where they were or the net
    would be a file that the command line does not name.

    Raises:
        DataError: if the images that the command line names can't be read, or the run was trained on other images.
    """
    try:
        if kind_of(run.data, run.image_size) == "digits":
            return None
        images = open_images(run.data, run.image_size, generator.image_shape[0])
    except DataError as error:
        if given is not None:
            raise
        note(_NAME, f"nearest training images are left out ({error}); --data names where they are now")
        return None
    try:
        net = _net_to_load(run, features)
    except ValueError as error:
        note(_NAME, f"nearest training images are left out ({error})")
        return None
    if images.fingerprint != fingerprint:
        raise DataError(f"{run.data}: got other images, expected those that the run was trained on")
    return images, net


@contextlib.contextmanager
def _moved_data(run: TrainConfig, given: Path | None) -> Iterator[None]:
    """Add to an error of the run's own data folder how to name another folder."""
    try:
        yield
    except DataError as error:
        if given is None and run.data is not None:
            raise DataError(f"{error}; --data names where the run's images are now") from error
        raise


def _counted(batches: Iterable[Tensor], count: int, progress: Callable[[float, str], None]) -> Iterator[Tensor]:
    """Yield the batches, and report to `progress` how many images of `count` are done."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress(done / count, f"{done} of {count}")


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: got {value}, expected at least 1")


def _check_seed(value: int) -> None:
    if not SEED.holds(value):
        raise ValueError(f"seed: got {value}, expected {SEED.expected}")


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[float, str], None]]:
    """Give a callback (share done, text) that draws a bar on a terminal, and elsewhere prints a line now and then."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield paced(lambda text: say(f"{what}: {text}", Tolerant(sys.stderr)))
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=f"{what}: {text}")


def _with_file(given: Sequence[str]) -> list[str]:
    """Return a study's command line with the arguments of its --file.

    Raises:
        ValueError: if the file can't be used, or a package is missing.
        OSError: if the file can't be read.
    """
    try:
        from .studies.framework.flags_file import with_file
    except ImportError as error:
        raise ValueError(f"{error}; {NEEDS_MORE}") from error
    return with_file(given)


def _listed(summary: str) -> Callable[..., int]:
    """Return a command that stands for a study in the list of commands and can't be run."""

    def command() -> int:
        raise AssertionError("only listed")

    command.__doc__ = summary
    return command


def program(arguments: Sequence[str]) -> tuple[Program, Sequence[str]]:
    """Return the program with the defaults that the command line selects, and the command line with its file's flags.

    Raises:
        ValueError, OSError: if a study's --file can't be used.
    """
    given: Sequence[str] = list(arguments)
    studies = all_studies()
    if given and given[0] in studies and any(one.startswith("--file") for one in given):
        given = _with_file(given)
    commands: dict[str, Callable[..., int]] = {
        "prepare": prepare,
        "train": _train_command(preset(chosen(given, "--preset", get_args(PresetName), "mnist"), tyro.MISSING)),
        "sample": sample,
        "evaluate": evaluate,
        "report": report,
        "doctor": doctor,
        # Only the chosen study gets its flags, or tyro would propose another study's flags for an unknown one.
        **{
            name: command_of(study, given) if given[:1] == [name] else _listed(study.summary)
            for name, study in studies.items()
        },
    }
    found = Program(
        _NAME,
        "Energy-Based GANs: prepare images, train, draw, score, report, and the paper's studies.",
        commands,
        (ValueError, BackendUnavailableError, NonFiniteError),
        _place_of if given[:1] == ["train"] else lambda flag: None,
    )
    return found, given


def _place_of(flag: str) -> str | None:
    """Return "expected with --preset ... alone" for a flag of other presets of `train`; None if no preset has it."""
    name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
    families = {each: dataclasses.fields(preset(each, Path()).networks) for each in get_args(PresetName)}
    having = [each for each, fields in families.items() if any(field.name == name for field in fields)]
    return f"expected with --preset {' or '.join(having)} alone" if having else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. `arguments` default to the process's own."""
    try:
        found, given = program(sys.argv[1:] if arguments is None else arguments)
    except OSError as error:
        return fail(_NAME, describe(error), 1)
    except ValueError as error:
        return fail(_NAME, str(error), 1)
    return found.run(given)


if __name__ == "__main__":
    sys.exit(main())
