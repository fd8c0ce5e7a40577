"""Statements that raise and that no case reaches, by the reason: whole modules, and single ones."""

from __future__ import annotations

_TENSORS = "tensors alone: a command hands over its own, of the shapes and types that are expected"

# By the start of their paths.
MODULES: dict[str, str] = {
    "_checks.py": _TENSORS,
    "_coefficients.py": _TENSORS,
    "game.py": _TENSORS,
    "nn.py": _TENSORS,
    "ops/detours.py": _TENSORS,
    "ops/devices.py": _TENSORS,
    "ops/ranks.py": "tensors of several processes, which are alike where torchrun has started them alike",
    "metrics/classifier_scores.py": _TENSORS,
    "metrics/frechet.py": _TENSORS,
    "metrics/kid.py": _TENSORS,
    "metrics/two_sets.py": _TENSORS,
}

# By reason: file, function, and the first words of the message.
UNREACHED: dict[str, tuple[tuple[str, str, str], ...]] = {
    "callers of the library alone can cause it: a command hands over what is whole, or has checked it before": (
        ("data/image_set.py", "TensorImages.__init__", "got images of {}, expected a uint8 tensor"),
        ("data/image_set.py", "TensorImages.__init__", "got images of shape {}, expected [M, C, H, W]"),
        ("data/image_set.py", "pad_to_square", "got images of shape {}, expected [M, H, W]"),
        ("data/image_set.py", "pad_to_square", "got image_size {}, expected at least {}"),
        ("data/packed.py", "_read_index", "{}: got no such file, expected a folder that ebgan"),
        ("data/sources/opening.py", "open_source", "kind: got {}, expected one of {}"),
        ("data/stream.py", "ImageStream.__init__", "got batch_size {}, expected a multiple of the numb"),
        ("data/stream.py", "ImageStream.__init__", "got rank {}, expected 0 to {}"),
        ("data/stream.py", "ImageStream.__init__", "got prefetch {}, expected at least 0"),
        ("metrics/classifier.py", "_as_28x28", "got {} images, expected floating point in [-1, 1]"),
        ("metrics/classifier.py", "_as_28x28", "got images of shape {}, expected [N, 28, 28], [N, "),
        ("metrics/features.py", "colours", "got {} images, expected uint8; ebgan_fast.data.to_"),
        ("metrics/features.py", "colours", "got images of shape {}, expected [N, C, H, W] with"),
        ("metrics/features.py", "check_features", "{}: got {}, expected a tensor of features [n, d]"),
        ("metrics/features.py", "check_features", "{}: got {}, expected floating-point features [n, d"),
        ("metrics/features.py", "check_features", "{}: got shape {}, expected [n, d], a row of featur"),
        ("metrics/features.py", "check_features", "{}: got features that aren't finite in {} of {} ro"),
        ("metrics/image_scorer.py", "ImageScorer.__init__", "kid_subset_size: got {}, expected at least 2, a pa"),
        ("metrics/neighbours.py", "nearest", "count: got {}, expected 1 to {}, the number of rea"),
        ("metrics/neighbours.py", "nearest", "at_once: got {}, expected at least 1"),
        ("models/families.py", "Conv.discriminator", "decoder_layers: got {}, expected a last layer of {"),
        ("models/interpolation.py", "spherical_interpolation", "steps: got {}, expected at least 2"),
        ("models/ladder.py", "LadderNetwork.__init__", "sizes: got {}, expected at least two of at least 1"),
        ("models/ladder.py", "LadderNetwork.__init__", "noise_std: got {}, expected 0 or more"),
        ("models/mlp.py", "_check_at_least", "{}: got {}, expected at least {}"),
        ("models/mlp.py", "_pixels", "image_shape: got {}, expected (channels, height, w"),
        ("studies/ladder_training.py", "labelled_subset", "labels: got {}, expected a multiple of {}, as many"),
        ("studies/results.py", "read", "{}: got something else than a study's results ({})"),
        ("training/config.py", "read_json", "{}: {}"),
        ("training/pictures.py", "save_grid", "columns: got {}, expected at least 1"),
        ("training/pictures.py", "save_grid", "ValueError(_NO_IMAGES)"),
        ("training/pictures.py", "save_folder", "ValueError(_NO_IMAGES)"),
        ("training/pictures.py", "_to_bytes", "images: got shape {}, expected [n, C, H, W] with n"),
        ("training/presets.py", "preset", "preset: got {}, expected one of {}"),
        ("training/sampling.py", "sample_images", "{}: got {}, expected at least 1"),
    ),
    "several processes or a GPU are needed: tests/training/test_processes.py and the tests on a device look at it": (
        ("ops/backends/__init__.py", "choose", "got backend {}, which cannot run on this GPU: {}; "),
        ("training/parallel.py", "_check_own_gpus", "device: got one GPU of {} for the processes {} and"),
        ("training/parallel.py", "own_device", "LOCAL_RANK: got {}, expected less than {}, the GPU"),
        ("training/graph.py", "recorder_of", "cuda_graph: got True for {} processes, expected on"),
        ("training/sampling.py", "load_run", "{}: got too little memory on {} for the generator "),
    ),
    "a file changes, or a disk fails, while it is read: tests/data cause it": (
        ("data/idx.py", "read_idx", "{}: got {}, expected a readable IDX file"),
        ("data/mapped.py", "_map", "OSError(number, os.strerror(number), str(path))"),
        ("data/sources/arrays.py", "open_array", "unreadable(path, error, expected)"),
        ("data/sources/cifar.py", "CifarSource.read", "{}: got another batch than when it was opened, exp"),
        ("data/sources/hdf5.py", "DatasetRows._open", "{}: got {} changed since it was opened, expected i"),
        ("data/sources/npy.py", "MemberRows.read", "{}: got {} bytes of image {}, expected {}"),
    ),
    "a file is made to harm: tests/data/test_cifar.py causes it, as of a pickle that would run something": (
        ("data/sources/cifar.py", "_StandIn.__setstate__", "it changes {}"),
        ("data/sources/cifar.py", "_Encode.__call__", "it encodes other than Latin-1"),
        ("data/sources/cifar.py", "_Encode.__setstate__", "it changes _codecs.encode"),
    ),
    "a checkpoint is made by hand: the state of its images has no name that a flag could mend": (
        ("data/stream.py", "ImageStream.load_state_dict", "got state keys {}, expected {}"),
        ("data/stream.py", "ImageStream.load_state_dict", "got a state with {} {}, expected {} as in this run"),
        ("data/stream.py", "ImageStream.load_state_dict", "state.position: got {}, expected 0 to {}"),
    ),
    "a checkpoint is made to harm in yet another way: tests/training/test_foreign_checkpoints.py causes it": (
        ("training/run/checkpoint.py", "read", "{}: got a file that torch can't load ({}), expecte"),
        ("training/run/inspection.py", "check_archive", "got parts that overlap, expected each at its own p"),
        ("training/run/inspection.py", "_check_structure", "an instruction {}"),
        ("training/run/inspection.py", "check_archive", "got something before its parts, expected a checkpo"),
        ("training/run/inspection.py", "_Listing.persistent_load", "a storage of {} numbers in {}"),
        ("training/run/inspection.py", "_Listing._tensor", "a tensor of {} dimensions"),
        ("training/run/inspection.py", "_check_structure", "got tensors of {} bytes in a file of {}, expected "),
        ("training/run/inspection.py", "_Listing._tensor", "a tensor of shape {}, strides {} at {}"),
        ("training/run/inspection.py", "_Listing._tensor", "a tensor of shape {} in a storage of {} numbers"),
    ),
    "a study's results are read by the library alone: tests/studies/test_foreign_files.py causes it": (
        ("studies/results.py", "_check", "got {}{}, expected an object"),
        ("studies/results.py", "_check", "got {}{}, expected fields {} alone"),
        ("studies/results.py", "_check", "{}: got {}{}, expected {}"),
    ),
    "a package or the machine is broken before a command begins: tests/test_environment.py causes it": (
        ("_plotting.py", "_load_matplotlib", "matplotlib can't be imported ({}); MPLCONFIGDIR na"),
    ),
    "it makes a cache file be made anew, of which a warning tells": (
        ("metrics/cache.py", "read", "another digest"),
        ("metrics/cache.py", "check_folder", "_unusable(folder, error)"),
    ),
    "a package is damaged in a way that its checksum tells before": (
        ("data/mnist.py", "_load_package", "{}: got {} class counts {}, expected {}"),
        ("data/mnist.py", "ArrayUnpickler.find_class", "got a pickle that names {}.{}, expected numpy arra"),
    ),
    "it is no mistake: an interrupt, another process's lock, or the end of the work on another thread": (
        ("_command_line.py", "Program.run", "interrupted"),
        ("_lock.py", "_take", "BlockingIOError(*error.args)"),
        ("data/prefetch.py", "Prefetcher.next", "item"),
        ("data/reader.py", "Reader._started", "the reading of images has ended"),
    ),
    "it ends a score, a trial or a process, which is told in another sentence": (
        ("metrics/image_scorer.py", "ImageScorer.score", "training images: got {}, expected at least 2"),
        ("metrics/image_scorer.py", "ImageScorer.score", "samples: got {}, expected at least 2"),
        ("metrics/image_scorer.py", "_check_finite", "got {} whose features aren't finite, expected fini"),
        (
            "studies/ladder_training.py",
            "LadderTrainer.test_error",
            "step {}: got an infinite or NaN output of the clas",
        ),
        ("studies/plain_gan.py", "GanTrainer.check_finite", "got an infinite or NaN weight in the {}"),
        ("studies/running.py", "_watch", "{}: a process ended with an error; what it said is"),
        ("training/step.py", "Trainer.check_finite", "step {}: got an infinite or NaN value in the {}, e"),
    ),
    "a file system writes a part of a line: tests/training/test_full_disk.py causes it": (
        ("training/run/lines.py", "LinesFile.append", "OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), s"),
    ),
    "an environment variable or another thread has a say in the backend, which is set before the program runs": (
        ("ops/backends/__init__.py", "_checked", "{}: got backend {}, expected one of 'auto', {}"),
        ("ops/backends/__init__.py", "_enter", "use_backend: got {} while a block of another threa"),
        ("ops/backends/__init__.py", "choose", "backend {}: got a tensor on {}, expected one on {}"),
        ("ops/backends/__init__.py", "_automatic", "ValueError(_CPU_MISTAKE)"),
    ),
}
