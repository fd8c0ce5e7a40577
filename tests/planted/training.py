"""Bugs in training: the step, its schedules, the average, and the state of a resumed run."""

from __future__ import annotations

from .plant import Planted

_TRAINER = "ebgan_fast/training/step.py"
_SESSION = "ebgan_fast/training/session.py"
_FILES = "ebgan_fast/_files.py"
_STEP = "tests/training/test_trainer.py"
_RESUMED = "tests/training/test_resume.py::test_resumed_equals_uninterrupted"
_CHECKPOINT = "tests/training/test_checkpoint.py"

PLANTS = (
    Planted(
        name="the generator's gradient misses the target's half",
        kind="training",
        file=_TRAINER,
        text="            fakes,\n            code if config.pt_weight > 0 else None,\n",
        instead="            fakes.detach(),\n            code if config.pt_weight > 0 else None,\n",
        test=f"{_STEP}::test_gradients_equal_those_of_separate_passes",
    ),
    Planted(
        name="the discriminator's backward goes on to the generated images",
        kind="training",
        file="ebgan_fast/game.py",
        text="        torch.autograd.backward(loss, _for(loss, upstream), inputs=inputs)\n",
        instead="        torch.autograd.backward(loss, _for(loss, upstream))\n",
        test=f"{_STEP}::test_a_step_computes_no_gradient_that_it_does_not_use",
    ),
    Planted(
        name="the generated images are not detached for the discriminator",
        kind="training",
        file="ebgan_fast/game.py",
        text="        result_d = discriminator_loss(of_real, real, of_fake, fake.detach(), upstream)\n",
        instead="        inputs = None\n"
        "        result_d = discriminator_loss(of_real, real, of_fake, generated, upstream)\n",
        test=f"{_STEP}::test_the_discriminator_gets_no_gradient_from_the_generators_loss",
        errors=("AssertionError", "RuntimeError"),
    ),
    Planted(
        name="the margin's schedule is a step ahead",
        kind="training",
        file="ebgan_fast/training/optim.py",
        text="    return end + (start - end) * _remaining(step / over, shape)\n",
        instead="    return end + (start - end) * _remaining((step + 1) / over, shape)\n",
        test="tests/training/test_schedule.py::test_a_linear_margin",
    ),
    Planted(
        name="the learning rate falls from the start",
        kind="training",
        file="ebgan_fast/training/optim.py",
        text="    return _remaining((step - begin) / (steps - begin), decay)\n",
        instead="    return _remaining(step / steps, decay)\n",
        test="tests/training/test_schedule.py::test_linear_decay",
    ),
    Planted(
        name="the average takes the weights from before the update",
        kind="training",
        file=_TRAINER,
        text="        if not self.precision.is_scaled and self._statistics.is_logged(self.step_count + 1):\n"
        "            self._measure_gradients()\n        if self.average is not None:\n"
        "            self.average.update(self.step_count)\n",
        instead="        if self.average is not None and self.step_count:\n"
        "            self.average.update(self.step_count - 1)\n",
        test=f"{_STEP}::test_the_average_follows_its_formula",
    ),
    Planted(
        name="the average's ramp is left out",
        kind="training",
        file="ebgan_fast/training/optim.py",
        text="        decay = min(self.decay, (1 + t) / (10 + t))\n",
        instead="        decay = self.decay\n",
        test=f"{_STEP}::test_the_average_follows_its_formula",
    ),
    Planted(
        name="the noise of a resumed run starts again",
        kind="training",
        file=_TRAINER,
        text='        self.noise_rng.set_state(state["noise_rng"])\n',
        instead="",
        test=f"{_RESUMED}[9]",
    ),
    Planted(
        name="the dropout of a resumed run starts again",
        kind="training",
        file=_TRAINER,
        text='        torch.set_rng_state(state["torch_rng"])\n',
        instead="",
        test=f"{_RESUMED}[9]",
    ),
    Planted(
        name="the average is not loaded from the checkpoint",
        kind="training",
        file=_TRAINER,
        text="                mine.copy_(saved)\n",
        instead="                mine.clone().copy_(saved)\n",
        test=f"{_RESUMED}[9]",
    ),
    Planted(
        name="a step is shown and drawn before it is saved",
        kind="training",
        file=_SESSION,
        text="        if saves:\n            self._save()\n        self.display.advance(step)\n"
        "        if line is not None:\n            self.display.metrics(line)\n            self.board.scalars(line)\n"
        "            self._hint(**line)\n        if self.writes and self._is_drawn(step):\n            self._draw()\n",
        instead="        self.display.advance(step)\n        if line is not None:\n"
        "            self.display.metrics(line)\n            self.board.scalars(line)\n"
        "            self._hint(**line)\n        if self.writes and self._is_drawn(step):\n            self._draw()\n"
        "        if saves:\n            self._save()\n",
        test="tests/training/test_saves_first.py::test_the_order_of_a_steps_duties",
    ),
    Planted(
        name="a resumed run does not draw the picture that its last step lacks",
        kind="training",
        file=_SESSION,
        text="not self.folder.grid(step).exists():\n                self._draw()\n",
        instead="not self.folder.grid(step).exists():\n                pass\n",
        test="tests/training/test_saves_first.py::test_a_picture_that_fails_costs_no_step",
    ),
    Planted(
        name="the search for a margin ignores signals",
        kind="training",
        file=_SESSION,
        text="            if (number := vote(self.stop.received)) is not None:\n",
        instead="            if (number := None) is not None:\n",
        test="tests/training/test_stops.py::test_a_signal_ends_the_search_for_a_margin",
    ),
    Planted(
        name="a hangup ends a run that nohup started",
        kind="training",
        file="ebgan_fast/training/parallel.py",
        text="                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:\n",
        instead="                if number:\n",
        test="tests/training/test_stops.py::test_a_hangup_that_is_ignored_stays_ignored",
    ),
    Planted(
        name="two runs write one folder",
        kind="training",
        file="ebgan_fast/_lock.py",
        text="        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        return\n",
        instead="        return\n",
        test="tests/training/test_lock.py::test_a_folder_that_another_run_writes_is_refused",
    ),
    Planted(
        name="the worst score's checkpoint is kept as the best",
        kind="training",
        file="ebgan_fast/training/run/folder.py",
        text='all(own["fd"] <= line["fd"] for line in lines if compares(line, own))',
        instead='all(own["fd"] >= line["fd"] for line in lines if compares(line, own))',
        test="tests/training/test_kept_checkpoints.py::test_the_best_has_the_lowest_distance",
    ),
    Planted(
        name="a checkpoint too many is dropped",
        kind="training",
        file="ebgan_fast/training/run/folder.py",
        text="        for path in earlier[:-count]:\n",
        instead="        for path in earlier[: 1 - count or None]:\n",
        test="tests/training/test_kept_checkpoints.py::test_the_latest_before_the_last_are_kept",
    ),
    Planted(
        name="the old checkpoint is deleted before the new one is in its place",
        kind="training",
        file=_FILES,
        text="        os.replace(partial, path)\n",
        instead="        path.unlink(missing_ok=True)\n        os.replace(partial, path)\n",
        test=f"{_CHECKPOINT}::test_a_write_that_fails_leaves_the_old_file[replace]",
        errors=("FileNotFoundError", "AssertionError"),
    ),
    Planted(
        name="a checkpoint gets its name before its bytes are on the disk",
        kind="training",
        file=_FILES,
        text="            _sync(file.fileno())\n        os.replace(partial, path)\n",
        instead="            os.replace(partial, path)\n            _sync(file.fileno())\n",
        test=f"{_CHECKPOINT}::test_the_data_is_on_disk_before_the_name_changes",
    ),
)
