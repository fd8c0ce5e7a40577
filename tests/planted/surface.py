"""Bugs in public functions beside the ops: the game, the Modules' coefficients, options, the choice of a backend."""

from __future__ import annotations

from .plant import OWN_WORDS, Planted

_GAME, _COEFFICIENTS = "ebgan_fast/game.py", "ebgan_fast/_coefficients.py"
_FUNCTIONAL, _BACKENDS = "ebgan_fast/functional.py", "ebgan_fast/ops/backends/__init__.py"
_RANKS = "ebgan_fast/ops/ranks.py"

PLANTS = (
    Planted(
        name="the generated batch's own gradient is lost",
        kind="surface",
        file=_GAME,
        text="    return result, through + to_target\n",
        instead="    return result, through\n",
        test="tests/test_game.py::test_one_pass_gives_the_gradients_of_two",
    ),
    Planted(
        name="the losses of a step run under the caller's autocast",
        kind="surface",
        file=_GAME,
        text="    of_real = discriminator(real)\n    with without_autocast(generated.device):\n",
        instead="    of_real = discriminator(real)\n    if True:\n",
        test="tests/test_game.py::test_passes_run_under_the_callers_autocast_and_losses_outside",
    ),
    Planted(
        name="the scale of a step is not applied to the discriminator's loss",
        kind="surface",
        file=_GAME,
        text="        torch.autograd.backward(loss, _for(loss, upstream), inputs=inputs)\n",
        instead="        torch.autograd.backward(loss, None, inputs=inputs)\n",
        test="tests/test_game.py::test_gradients_are_added_and_scaled",
    ),
    Planted(
        name="a margin is cast with the networks",
        kind="surface",
        file=_COEFFICIENTS,
        text="            if after.dtype == tensor.dtype:\n",
        instead="            if True:\n",
        test="tests/test_nn.py::test_no_change_of_dtype_rounds_a_coefficient",
    ),
    Planted(
        name="an assigned margin is not checked",
        kind="surface",
        file=_COEFFICIENTS,
        text="            value = _checks.coefficient(name, value)\n            if name in self._parameters:\n",
        instead="            if name in self._parameters:\n",
        test="tests/test_nn.py::test_what_is_assigned_is_checked",
    ),
    Planted(
        name="a margin without a value is accepted beside real batches",
        kind="surface",
        file="ebgan_fast/_checks.py",
        text="        if value.is_meta and isinstance(beside, Tensor) and not beside.is_meta:\n",
        instead="        if False:\n",
        test="tests/ops/test_odd_tensors.py::test_a_coefficient_is_refused[margin-hinge-meta-reference]",
        errors=(*OWN_WORDS, "RuntimeError"),  # raised by torch, further in
    ),
    Planted(
        name="a weight without a code is ignored",
        kind="surface",
        file=_FUNCTIONAL,
        text="        _checks.check_weighs_nothing(pt_weight)\n",
        instead="        pass\n",
        test="tests/ops/test_errors.py::test_refused[a weight without a code]",
    ),
    Planted(
        name="ranks with different batches go on computing",
        kind="surface",
        file=_RANKS,
        text="        _check_alike(everyone, group)\n",
        instead="        pass\n",
        test="tests/test_distributed.py::test_ranks_whose_codes_differ_raise_one_error",
    ),
    Planted(
        name="one group's comparison counts for all groups",
        kind="surface",
        file=_RANKS,
        text="        if group in _AGREED:\n",
        instead="        if _AGREED:\n",
        test="tests/test_distributed.py::test_where_sizes_come_late_a_group_compares_them_once",
    ),
    Planted(
        name="a weight in float64 widens the loss",
        kind="surface",
        file="ebgan_fast/ops/reference.py",
        text="        pt_weight = pt_weight.to(pulling_away.dtype)\n",
        instead="        pass\n",
        test="tests/ops/test_options.py::test_numbers_of_every_kind_are_the_number",
    ),
    Planted(
        name="the end of a nested use_backend block restores the environment's choice",
        kind="surface",
        file=_BACKENDS,
        text="        _requested = _blocks[-1].name if _blocks else _ENVIRONMENT\n",
        instead="        _requested = _ENVIRONMENT\n",
        test="tests/ops/test_use_backend.py::test_blocks_nest",
    ),
    Planted(
        name="two threads choose two backends",
        kind="surface",
        file=_BACKENDS,
        text="        if others:\n",
        instead="        if False:\n",
        test="tests/ops/test_use_backend.py::test_two_threads_may_ask_for_one_backend_and_not_for_two",
    ),
)
