"""Bugs between the user and the kernels: autograd, the registered ops, layouts, dtypes, the reference, the Modules."""

from __future__ import annotations

from .plant import OWN_WORDS, Planted

_AUTOGRAD, _DETOURS = "ebgan_fast/ops/op.py", "ebgan_fast/ops/detours.py"
_FUNCTIONAL = "ebgan_fast/functional.py"
_REFERENCE = "ebgan_fast/ops/reference.py"
_VALUES = "tests/ops/test_values.py"
_TRANSFORMS = "tests/ops/test_transforms.py"
_WAYS = "tests/ops/test_ways_to_differentiate.py::test_it_gives_the_formula_s_numbers"

PLANTS = (
    Planted(
        name="the upstream argument of a loss is ignored in backward",
        kind="autograd",
        file=_AUTOGRAD,
        text="                expected = options[-1] if op.takes_upstream else 1.0\n",
        instead="                expected = 1.0\n",
        test="tests/ops/test_upstream.py::test_another_upstream_than_the_one_that_was_told",
    ),
    Planted(
        name="a kept graph returns its own gradients",
        kind="autograd",
        file=_AUTOGRAD,
        text="    if is_known and not is_kept and upstream.item() == number(expected):\n",
        instead="    if is_known and upstream.item() == number(expected):\n",
        test="tests/ops/test_eager_path.py::test_gradients_of_a_kept_graph_are_nobody_elses",
        errors=(*OWN_WORDS, "RuntimeError"),  # raised by torch, which finds a saved tensor changed
    ),
    Planted(
        name="a tensor that a hook returned is multiplied in place",
        kind="autograd",
        file=_AUTOGRAD,
        text="    is_readable = ctx.is_hooked is False and _is_plain(upstream)\n",
        instead="    is_readable = _is_plain(upstream)\n",
        test="tests/ops/test_scaling.py::test_what_a_hook_gives_back_is_the_hooks",
    ),
    Planted(
        name="the graph of a gradient is dropped",
        kind="autograd",
        file=_DETOURS,
        text="        create_graph = torch.is_grad_enabled()\n",
        instead="        create_graph = False\n",
        test=f"{_TRANSFORMS}::test_the_graph_of_a_gradient_is_not_dropped[pulling_away_term-primal-cpu]",
    ),
    Planted(
        name="a dual upstream gradient loses its tangent",
        kind="autograd",
        file=_AUTOGRAD,
        text="in_transform() or forward_ad._current_level >= 0 or _is_legacy_batch(upstream))\n",
        instead="in_transform() or _is_legacy_batch(upstream))\n",
        test=f"{_WAYS}[a dual upstream-discriminator_loss-l2-cpu]",
    ),
    Planted(
        name="an upstream gradient with the expected value counts as constant",
        kind="autograd",
        file=_DETOURS,
        text="        if not (in_transform() or forward_ad._current_level >= 0):\n",
        instead="        if True:\n",
        test=f"{_WAYS}[jvp over an upstream-discriminator_loss-told-cpu]",
    ),
    Planted(
        name="a tensor that a hook returned is read in its old dtype",
        kind="autograd",
        file=_DETOURS,
        text="_laid_out(readable(tensor.to(device, dtype)), strides)\n",
        instead="_laid_out(readable(tensor.to(device)), strides)\n",
        test="tests/ops/test_ways_to_differentiate.py::test_a_hook_may_give_back_the_same_numbers_as_other_memory",
    ),
    Planted(
        name="a code that a hook returned is read in another order",
        kind="autograd",
        file=_DETOURS,
        text="    if tensor.stride() == strides:\n        return tensor\n",
        instead="    return tensor\n",
        test="tests/ops/test_ways_to_differentiate.py::test_a_code_keeps_the_order_of_its_elements",
    ),
    Planted(
        name="one tensor in two places gets its gradient twice",
        kind="autograd",
        file=_DETOURS,
        text="            views = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]\n",
        instead="            views = list(tensors)\n",
        test=f"{_TRANSFORMS}::test_one_tensor_in_every_place[hinge_margin_loss-cpu]",
    ),
    Planted(
        name="the gradient is not multiplied by the upstream gradient",
        kind="autograd",
        file=_AUTOGRAD,
        text="not is_kept and upstream.item() == number(expected):\n        return tuple(wanted)\n",
        instead="not is_kept:\n        return tuple(wanted)\n",
        test="tests/ops/test_eager_path.py::test_gradients_take_their_upstream",
    ),
    Planted(
        name="the target gets a gradient if the reconstruction needs one",
        kind="autograd",
        file=_AUTOGRAD,
        text="*saved, *options, need)\n",
        instead="*saved, *options, [need[0]] * n)\n",
        test="tests/ops/test_contract.py::test_only_the_gradients_that_are_asked_for[cpu]",
    ),
    Planted(
        name="tracing gives the dual Gram matrix another shape",
        kind="autograd",
        file="ebgan_fast/ops/pulling_away.py",
        text="    side = torch.sym_min(n, d)\n",
        instead="    side = n\n",
        test="tests/ops/test_library.py::test_opcheck_pulling_away_and_hinge",
        errors=("OpCheckError", "AssertionError"),
    ),
    Planted(
        name="a pair in two layouts is read as if in one",
        kind="autograd",
        file="ebgan_fast/ops/tensors.py",
        text="        if order is None or order != order_of(target):\n",
        instead="        if order is None or order_of(target) is None:\n",
        test="tests/ops/test_layout.py::test_both_ways_read_and_fill_alike",
    ),
    Planted(
        name="float16 gradients underflow before a GradScaler's factor",
        kind="modules",
        file=_FUNCTIONAL,
        text="        if recon_real.dtype == torch.float16:\n",
        instead="        if recon_real.dtype == torch.float16 and not torch.is_grad_enabled():\n",
        test=f"{_VALUES}::test_float16_gradients_survive_a_grad_scaler[cpu]",
    ),
    Planted(
        name="a pair of two dtypes is narrowed to the first",
        kind="modules",
        file=_FUNCTIONAL,
        text="    dtype = torch.promote_types(batch.dtype, other.dtype)\n",
        instead="    dtype = batch.dtype\n",
        test=f"{_VALUES}::test_mixed_dtypes_are_promoted[cpu]",
    ),
    Planted(
        name="the weight of a Module is not passed on",
        kind="modules",
        file="ebgan_fast/nn.py",
        text="            pt_weight=self._weight_for(code),\n",
        instead="",
        test="tests/test_nn.py::test_modules_equal_functions",
    ),
    Planted(
        name="the pulling-away term is divided by N squared",
        kind="reference",
        file=_REFERENCE,
        text="    return cosines.masked_fill(itself, 0.0).square().sum() / max(n * (n - 1), 1)\n",
        instead="    return cosines.masked_fill(itself, 0.0).square().sum() / max(n * n, 1)\n",
        test=f"{_VALUES}::test_pulling_away_term_is_equation_14_written_out[reference]",
    ),
    Planted(
        name="the hinge is taken of the mean",
        kind="reference",
        file=_REFERENCE,
        text="    return batch_mean(real) + batch_mean(torch.relu(margin - fake))\n",
        instead="    return batch_mean(real) + torch.relu(margin - batch_mean(fake))\n",
        test=f"{_VALUES}::test_the_hinge_is_not_that_of_the_mean[reference]",
    ),
    Planted(
        name="the energies are summed instead of averaged",
        kind="reference",
        file=_REFERENCE,
        text="    return per_sample.sum() / max(per_sample.shape[0], 1)\n",
        instead="    return per_sample.sum()\n",
        test=f"{_VALUES}::test_discriminator_loss_is_equation_1_written_out[reference]",
    ),
    Planted(
        name="codes are squared without a scale",
        kind="reference",
        file=_REFERENCE,
        text="    rows = rows * row_scales(rows)\n",
        instead="",
        test="tests/ops/test_row_scale.py::test_of_rows_times_a_power_of_two_each[(6, 40)-float32-reference]",
    ),
    Planted(
        name="a kernel reads memory that torch means to negate",
        kind="autograd",
        file="ebgan_fast/ops/tensors.py",
        text="    if recon.is_neg() or target.is_neg():\n        return False\n",
        instead="",
        test="tests/ops/test_lazy_tensors.py::test_inputs_and_upstream_gradients",
    ),
    Planted(
        name="a second derivative divides by fourth powers that overflow",
        kind="reference",
        file="ebgan_fast/ops/tensors.py",
        text="torch.float32: ((2.0**24, 2.0**-44), ",
        instead="torch.float32: ((2.0**50, 2.0**-44), ",
        test="tests/ops/test_row_scale.py::test_second_derivatives[primal-torch.float32]",
    ),
)
