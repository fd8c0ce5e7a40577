"""Bugs in the way of images from a file to a batch."""

from __future__ import annotations

from .plant import Planted

_STREAM = "ebgan_fast/data/stream.py"
_STREAMED = "tests/data/test_stream.py"
_PREPARE = "ebgan_fast/data/prepare.py"
_PROCESSES = "tests/data/test_prepare_processes.py"
_BEGUN = "tests/data/test_begun_sets.py"

PLANTS = (
    Planted(
        name="the first image of a shard is looked up in the shard before",
        kind="data",
        file="ebgan_fast/data/packed.py",
        text="        shards = torch.bucketize(indices, self._ends, right=True).tolist()\n",
        instead="        shards = torch.bucketize(indices, self._ends).tolist()\n",
        test="tests/data/test_packed.py::test_every_image_comes_back",
        errors=("AssertionError", "IndexError"),
    ),
    Planted(
        name="a shard that was changed on the disk goes unnoticed",
        kind="data",
        file="ebgan_fast/data/packed.py",
        text="            if digest_of(path, report) != shard.digest:\n",
        instead="            if len(digest_of(path, report)) != len(shard.digest):\n",
        test="tests/data/test_packed.py::test_a_flipped_bit_is_named",
    ),
    Planted(
        name="a packed set counts as memory that may be written",
        kind="data",
        file="ebgan_fast/data/mapped.py",
        text="mmap.PROT_READ, mmap.MAP_PRIVATE",
        instead="mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE",
        test="tests/data/test_packed.py::test_a_set_may_be_larger_than_the_memory_that_is_allowed",
    ),
    Planted(
        name="every epoch has the first one's order",
        kind="data",
        file=_STREAM,
        text='            order = torch.randperm(count, generator=self._rng(f"{self.seed}/{epoch}")).to(self.home)\n',
        instead='            order = torch.randperm(count, generator=self._rng(f"{self.seed}/0")).to(self.home)\n',
        test=f"{_STREAMED}::test_an_epoch_is_a_permutation_less_the_short_batch",
    ),
    Planted(
        name="a resumed epoch begins with its first batch",
        kind="data",
        file=_STREAM,
        text="            for start in range(position * self.batch_size, count",
        instead="            for start in range(0, count",
        test=f"{_STREAMED}::test_resuming_gives_the_same_batches",
    ),
    Planted(
        name="images are mirrored upside down",
        kind="data",
        file=_STREAM,
        text="pixels.flip(3), pixels))\n",
        instead="pixels.flip(2), pixels))\n",
        test=f"{_STREAMED}::test_every_image_is_mirrored_whole",
    ),
    Planted(
        name="bytes are divided by 128",
        kind="data",
        file="ebgan_fast/data/pixels.py",
        text="    return images.to(torch.float32).div_(127.5).sub_(1).to(dtype)\n",
        instead="    return images.to(torch.float32).div_(128).sub_(1).to(dtype)\n",
        test="tests/data/test_image_set.py::test_bytes_map_onto_the_signed_unit",
    ),
    Planted(
        name="pixels are cut off instead of rounded",
        kind="data",
        file="ebgan_fast/data/pixels.py",
        text="* 127.5).round_().clamp_(0, 255)",
        instead="* 127.5).clamp_(0, 255)",
        test="tests/data/test_image_set.py::test_pixels_are_the_nearest_bytes",
    ),
    Planted(
        name="the crop is a pixel off the middle",
        kind="data",
        file="ebgan_fast/data/crop.py",
        text="(width - size) // 2, (height - size) // 2\n",
        instead="(width - size + 1) // 2, (height - size + 1) // 2\n",
        test="tests/data/test_crop.py::test_the_middle_of_an_image_of_the_right_height_is_cut_out",
    ),
    Planted(
        name="a reader that was killed between two shards raises a pipe's error",
        kind="data",
        file="ebgan_fast/data/reader.py",
        text="        except (EOFError, OSError, pickle.UnpicklingError) as error:\n",
        instead="        except (EOFError, pickle.UnpicklingError) as error:\n",
        test=f"{_PROCESSES}::test_workers_that_are_killed_between_two_shards_are_told",
        errors=("BrokenPipeError",),
    ),
    Planted(
        name="a reader stays alive after its parent has ended",
        kind="data",
        file="ebgan_fast/data/worker.py",
        text="        os._exit(0)\n",
        instead='        __import__("time").sleep(99)\n',
        test=f"{_PROCESSES}::test_workers_end_with_their_parent",
    ),
    Planted(
        name="Ctrl-C reaches readers that have hardly begun",
        kind="data",
        file="ebgan_fast/data/reader.py",
        text="signal.SIG_BLOCK, {signal.SIGINT}",
        instead="signal.SIG_BLOCK, ()",
        test=f"{_PROCESSES}::test_ctrl_c_at_the_start_of_the_workers_is_told_once",
    ),
    Planted(
        name="two processes prepare one folder",
        kind="data",
        file=_PREPARE,
        text="        if (reason := lock.acquire()) is not None:\n",
        instead="        if (reason := None) is not None:\n",
        test=f"{_PROCESSES}::test_a_second_process_is_refused_and_the_first_unharmed",
    ),
    Planted(
        name="records of a finished set are not deleted",
        kind="data",
        file=_PREPARE,
        text="        for record in out.glob(",
        instead="        for record in () if packed else out.glob(",
        test=f"{_BEGUN}::test_records_of_a_finished_set_go",
    ),
    Planted(
        name="a folder with a half-written plan counts as a foreign one",
        kind="data",
        file=_PREPARE,
        text="    beginnings = _LOCK, temporary_name(path).name, ",
        instead="    beginnings = _LOCK, ",
        test="tests/data/kills/test_kills.py::test_a_killed_prepare_goes_on",
    ),
    Planted(
        name="images that change while they are packed go unnoticed",
        kind="data",
        file=_PREPARE,
        text="            if stamp(opened, source) != before:\n",
        instead="            if stamp(opened, source) != stamp(opened, source):\n",
        test=f"{_BEGUN}::test_an_image_that_changes_while_they_are_packed_ends_it",
    ),
)
