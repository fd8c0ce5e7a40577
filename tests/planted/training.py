"""Bugs in training: the step, its schedules, the average, and what a resumed run goes on from."""

from __future__ import annotations

from .plant import Planted

_TRAINER = "ebgan_fast/training/step.py"
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
        text="        self.precision.step(*optimizers)\n        if self.average is not None:\n"
        "            self.average.update(self.step_count)\n",
        instead="        if self.average is not None:\n            self.average.update(self.step_count)\n"
        "        self.precision.step(*optimizers)\n",
        test=f"{_STEP}::test_the_average_follows_its_formula",
    ),
    Planted(
        name="the average's ramp is left out",
        kind="training",
        file="ebgan_fast/training/average.py",
        text="        decay = min(self.decay, (1 + t) / (10 + t))\n",
        instead="        decay = self.decay\n",
        test=f"{_STEP}::test_the_average_follows_its_formula",
    ),
    Planted(
        name="the noise of a resumed run begins anew",
        kind="training",
        file=_TRAINER,
        text='        self.noise_rng.set_state(state["noise_rng"])\n',
        instead="",
        test=f"{_RESUMED}[9]",
    ),
    Planted(
        name="the dropout of a resumed run begins anew",
        kind="training",
        file=_TRAINER,
        text='        torch.set_rng_state(state["torch_rng"])\n',
        instead="",
        test=f"{_RESUMED}[9]",
    ),
    Planted(
        name="the average is not in the checkpoint's way back",
        kind="training",
        file=_TRAINER,
        text="                mine.copy_(saved)\n",
        instead="                mine.clone().copy_(saved)\n",
        test=f"{_RESUMED}[9]",
    ),
    Planted(
        name="the old checkpoint goes before the new one is in its place",
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
        text="            os.fsync(file.fileno())\n        os.replace(partial, path)\n",
        instead="            os.replace(partial, path)\n            os.fsync(file.fileno())\n",
        test=f"{_CHECKPOINT}::test_the_data_is_on_disk_before_the_name_changes",
    ),
)
