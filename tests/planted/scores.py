"""Bugs in scores, studies and the command line."""

from __future__ import annotations

from .plant import Planted

PLANTS = (
    Planted(
        name="the covariance is divided by n",
        kind="metrics",
        file="ebgan_fast/metrics/frechet.py",
        text="        return Gaussian(self.origin + self.mean, self.factor / (self.count - 1) ** 0.5)\n",
        instead="        return Gaussian(self.origin + self.mean, self.factor / self.count**0.5)\n",
        test="tests/metrics/test_frechet.py::test_the_distance_of_uncorrelated_features",
    ),
    Planted(
        name="the inception score's divergence is swapped",
        kind="metrics",
        file="ebgan_fast/metrics/classifier_scores.py",
        text="    parts = torch.stack([_mean_kl(part, _log_marginal(part)).exp()",
        instead="    parts = torch.stack([_mean_kl(_log_marginal(part), part).exp()",
        test="tests/metrics/test_inception_score.py::test_two_soft_classes",
    ),
    Planted(
        name="every split has the marginal of all samples",
        kind="metrics",
        file="ebgan_fast/metrics/classifier_scores.py",
        text="_mean_kl(part, _log_marginal(part)).exp()",
        instead="_mean_kl(part, log_marginal).exp()",
        test="tests/metrics/test_inception_score.py::test_each_split_has_its_own_marginal",
    ),
    Planted(
        name="the kernel distance counts each sample with itself",
        kind="metrics",
        file="ebgan_fast/metrics/kid.py",
        text="    within = (_kernel(x, x, True) + _kernel(y, y, True)) / (n * (n - 1))\n",
        instead="    within = (_kernel(x, x, False) + _kernel(y, y, False)) / (n * n)\n",
        test="tests/metrics/test_kernel_distance.py::test_whole_sets_need_no_subsets",
    ),
    Planted(
        name="a finished trial's result is not kept",
        kind="studies",
        file="ebgan_fast/studies/framework/queue.py",
        text="        self.note(trial_id, _RESULT, measured.result)\n",
        instead="",
        test="tests/studies/test_running.py::test_all_trials_run_and_are_told_of",
    ),
    Planted(
        name="the trial of a killed process is lost",
        kind="studies",
        file="ebgan_fast/studies/framework/queue.py",
        text="                    if died < _MOST_DEATHS:\n",
        instead="                    if died > _MOST_DEATHS:\n",
        test="tests/studies/test_queue.py::test_a_dead_owner_of_this_machine_loses_it",
    ),
    Planted(
        name="a mistake of several lines is printed as it is",
        kind="command line",
        file="ebgan_fast/_command_line.py",
        text="{' '.join(message.split())}",
        instead="{message}",
        test="tests/test_command_line.py::test_a_message_of_several_lines_becomes_one",
    ),
    Planted(
        name="a value that cannot be ends in a traceback",
        kind="command line",
        file="ebgan_fast/cli.py",
        text="        (ValueError, BackendUnavailableError, NonFiniteError),\n",
        instead="        (BackendUnavailableError, NonFiniteError),\n",
        test="tests/test_cli.py::test_a_mistake_is_one_line_and_a_status[impossible value]",
        errors=("ValueError",),
    ),
)
