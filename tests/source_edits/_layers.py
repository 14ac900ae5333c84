"""Faults of layers and loops."""

from source_edits._edit import edits, original

LAYERS = "contracts/test_layers.py"

EDITS = (
    *edits(
        "layers/_recurrent.py",
        (
            "hooks edit what passes by at masked steps",
            "Hook(side.aux, side.mask)",
            "Hook(side.aux, None)",
            "contracts/test_unrolls.py::test_on_d_carry[detach-True]",
        ),
        (
            "gradients of inputs in the dtype of the arithmetic",
            "d_xs = trees.cast_like(xs, without_side(cell, side, d_inputs))",
            "d_xs = without_side(cell, side, d_inputs)",
            "contracts/test_cells.py::test_bfloat16_computation_keeps_float32_gradients",
        ),
        (
            "an output that is said wrongly",
            "if _kinds(said) != _kinds(y):",
            "if _kinds(said) is None:",
            "test_small_print.py::test_an_output_that_is_not_what_the_cell_says_is_refused",
        ),
        (
            "a carry of another dtype than a step returns",
            "if (c.shape, c.dtype) != (a.shape, a.dtype):",
            "if c.shape != a.shape:",
            "contracts/test_unrolls.py::test_error",
        ),
        (
            "a watch does not see what comes from the output",
            "d_states = add_output(known, d_laters, d_ys)",
            "d_states = d_laters",
            "diagnose/test_gradient_flow.py::test_is_the_gradient_of_a_zero_added_to_each_state"
            "[elman-True]",
        ),
        (
            "a carry that is not spread as a step returns it",
            "carry = _check_step(cell, params, carry, given)",
            "_check_step(cell, params, carry, given)",
            "contracts/test_sharded.py::test_only_sums_are_exchanged_and_each_device_does_its_share",
        ),
    ),
    *edits(
        "layers/_again.py",
        (
            "residuals of a stretch that runs again",
            "        carry, ys, _ = layer.fwd(params, carry, xs, side)\n"
            "        return carry, ys, ()",
            "        return layer.fwd(params, carry, xs, side)",
            f"{LAYERS}::test_remat_keeps_nothing",
        ),
    ),
    *edits(
        "layers/_remat.py",
        (
            "a model made with other options keeps residuals again",
            "else lambda f: remat(inner(f))",
            "else lambda f: inner(f)",
            "contracts/test_layers.py::test_made_with_other_options_it_still_runs_again",
        ),
    ),
    *edits(
        "layers/_residual.py",
        (
            "a gradient at masked steps",
            "return d_params, d_carry, trees.add(d_xs, _clean(d_ys, side)), d_targets",
            "return d_params, d_carry, trees.add(d_xs, d_ys), d_targets",
            "contracts/test_gradients.py::test_equals_jax_grad"
            "[residual, parts by names: T=7 batch=(2, 2) side=both chunk=3]\n"
            "contracts/test_layers.py::test_bwd_is_the_transpose_of_the_derivative_of_fwd"
            "[residual, parts by names]",
        ),
        (
            "the padding read",
            "return carry, trees.add(ys, _clean(xs, side)), (ys, kept)",
            "return carry, trees.add(ys, xs), (ys, kept)",
            "test_small_print.py::test_the_padding_is_not_read[residual]",
        ),
    ),
    *edits(
        "layers/_inputs.py",
        (
            "layers side by side draw from one key",
            "layer.fwd(params[name], carry[name], xs[name], of_part(side, i))",
            "layer.fwd(params[name], carry[name], xs[name], side)",
            "test_names.py::test_dropouts_side_by_side_draw_from_keys_of_their_own",
        ),
        (
            "inputs in the order of the alphabet",
            "names, layers = tuple(named), lifted(named)",
            "names = tuple(sorted(named))\n    layers = lifted({n: named[n] for n in names})",
            "test_names.py::test_inputs_by_names_are_joined_in_the_order_of_the_call",
        ),
    ),
    *edits(
        "layers/_context.py",
        (
            "the first part alone has the context",
            "return isinstance(node, InContext)",
            "return isinstance(node, InContext) and isinstance(node.params, dict)",
            "contracts/test_context.py::test_several_parts_that_see_it",
        ),
    ),
    *edits(
        "layers/_stack.py",
        (
            "parts run in the order of the alphabet",
            "names = tuple(named) or None",
            "names = tuple(sorted(named)) or None",
            "test_names.py::test_it_is_the_stack_without_names",
        ),
        (
            "all layers draw from one key",
            "    if side.keys is None:\n        return side\n",
            "    if side is not None:\n        return side\n",
            f"{LAYERS}::test_layers_of_a_stack_draw_from_keys_of_their_own",
        ),
        (
            "targets of one layer alone have a gradient",
            "d_targets = d_t if d_targets is None else trees.sum_of(d_targets, d_t)",
            "d_targets = d_t if d_targets is None else d_targets",
            "test_small_print.py::test_every_layer_that_reads_targets_has_their_gradient",
        ),
        (
            "all layers drawn from one key",
            "names, [layer.init(k) for layer, k in zip(layers, keys, strict=True)]",
            "names, [layer.init(key) for layer in layers]",
            "test_small_print.py::test_a_key_is_that_of_all_that_is_drawn",
        ),
        (
            "later layers are not asked what they refuse",
            "if all(later.refuse is None for later in layers[i + 1 :]):",
            "if layer.refuse is None:",
            "models/test_out_of_range.py::test_a_target_that_is_known_is_refused_and_named",
        ),
    ),
    *edits(
        "layers/_judged.py",
        (
            "outputs in the padding are read",
            "ys, targets, weights = _read(counts, (ys, targets, weights))",
            "ys, targets, weights = ys, targets, weights",
            "models/test_objectives.py::test_padding_is_not_read[squared_error-True]",
        ),
        (
            "targets that the layer within reads",
            "return *ds, trees.sum_of(d_targets, inner)",
            "return *ds, d_targets",
            "test_small_print.py::test_every_layer_that_reads_targets_has_their_gradient",
        ),
        (
            "negative weights count as none",
            "counts = weights != 0",
            "counts = weights > 0",
            "test_small_print.py::test_negative_weights_count",
        ),
        (
            "losses of examples without their weights",
            "losses = losses * trees.along(losses, weights)",
            "losses = losses * 1.0",
            "contracts/test_losses.py::test_losses_and_gradients_are_those_of_a_plain_loop"
            "[bptt-1-batch1]",
        ),
        (
            "losses of a batch, times flags of examples",
            "if counts is not None and counts.ndim > losses.ndim:",
            "if counts is not None and counts.ndim < 0:",
            "contracts/test_losses.py::test_losses_of_a_batch_beside_flags_of_examples_are_refused",
        ),
        (
            "no losses of examples in the parts of a model",
            "lambda f: again(inner(f), objective)",
            "lambda f: inner(f)",
            "contracts/test_losses.py::test_a_recurrent_layer_made_with_other_options_still_gives_losses",
        ),
    ),
    *edits(
        "layers/_with_losses.py",
        (
            "losses of examples in bfloat16",
            "objective, trees.widened, with_losses",
            "objective, lambda losses: losses, with_losses",
            "contracts/test_losses.py::test_losses_of_half_precision_are_float32",
        ),
    ),
    *edits(
        "layers/_with_loss.py",
        (
            "a batch summed in bfloat16",
            "        tuple(range(1, losses.ndim)), dtype=trees.at_least_float32(losses.dtype)\n",
            "        tuple(range(1, losses.ndim))\n",
            "test_small_print.py::test_sums_over_steps_are_in_float32",
        ),
    ),
    *edits(
        "layers/_hooks.py",
        (
            "no derivative where nothing comes back",
            "max_norm / jnp.maximum(norm, max_norm)",
            "jnp.minimum(1.0, max_norm / norm)",
            "diagnose/test_gradient_flow.py::test_clip_d_carry_of_a_zero_has_a_derivative",
        ),
        (
            "each hook reads the other's half",
            "of_first, of_second = (None, None)",
            "of_second, of_first = (None, None)",
            "contracts/test_randomly_truncated.py::"
            "test_with_h_detach_each_hook_reads_its_own_half",
        ),
        (
            "detached where it was not told",
            "h=trees.only(~aux, d_carry.h)",
            "h=trees.only(aux, d_carry.h)",
            "diagnose/test_gradient_flow.py::test_h_detach_blocks_the_way_through_h[False]",
        ),
    ),
    *edits(
        "layers/_dropout.py",
        (
            "what is kept is not scaled",
            "a / (1 - rate), 0).astype(a.dtype)",
            "a, 0).astype(a.dtype)",
            "models/test_models.py::test_dropout_follows_each_recurrent_layer",
        ),
        (
            "another mask in each stretch",
            'return jnp.where(carry["drawn"], carry["keep"], keep)',
            "return keep",
            "test_small_print.py::test_one_mask_of_variational_dropout_for_all_stretches",
        ),
        (
            "a rate of one",
            "if not 0 <= rate < 1:",
            "if not 0 <= rate <= 1:",
            f"{LAYERS}::test_errors_name_what_does_not_fit",
        ),
    ),
    *edits(
        "layers/_time_distributed.py",
        (
            "inputs in the padding are read",
            "return tree if side.mask is None else trees.only(side.mask, tree)",
            "return tree",
            "test_small_print.py::test_the_padding_is_not_read[dense]",
        ),
        (
            "the symbol -1 is the last one",
            "outside = (tokens < 0) | (tokens >= n_symbols)",
            "outside = tokens >= n_symbols",
            "models/test_out_of_range.py::test_a_traced_symbol_is_nan_and_touches_no_row",
        ),
        (
            "statistics in bfloat16",
            "x = xs.astype(trees.at_least_float32(xs.dtype))",
            "x = xs",
            "test_small_print.py::test_sums_over_steps_are_in_float32",
        ),
    ),
    *edits(
        "layers/_save.py",
        (
            "states kept twice",
            "there = {id(a) for a in jax.tree.leaves((u, after))}",
            "there = set()",
            "test_small_print.py::test_what_is_kept_is_what_was_asked_for",
        ),
        (
            "gates kept where states were asked for",
            "    del cell, params, carry, u, gates, after\n    return ()",
            "    return gates",
            "test_small_print.py::test_what_is_kept_is_what_was_asked_for",
        ),
        (
            "gates kept whatever they weigh",
            "    if _numbers(every) > room:  # (2)\n",
            "    if False:\n",
            "contracts/test_save.py::test_where_not_all_gates_have_room_those_are_kept_that_spare_most",
        ),
        (
            "gates kept whatever they spare",
            "return save if spared[save] >= worth * sizes[save] else STATES  # (1)",
            "return save",
            "contracts/test_save.py::test_gates_are_kept_where_each_number_spares_so_many_multiply_adds",
        ),
        (
            "the first gates that have room",
            "save = max(choices, key=spared.__getitem__)",
            "save = next(iter(choices))",
            "contracts/test_save.py::test_where_not_all_gates_have_room_those_are_kept_that_spare_most",
        ),
        (
            "all that a cell keeps beside its gates, too",
            "return Gates(named, jax.tree.map(lambda _: None, node.rest))",
            "return Gates(named, node.rest)",
            "contracts/test_save.py::test_a_gru_that_keeps_r_and_z_does_a_third_of_its_products_again",
        ),
    ),
    *edits(
        "layers/_columns.py",
        (
            "of two ranges the first",
            "Range(a.axis, min(a.start, b.start), max(a.stop, b.stop))",
            "a",
            "contracts/test_save.py::test_a_gru_that_keeps_r_and_z_does_a_third_of_its_products_again",
        ),
        (
            "ranges of two axes taken for those of one",
            "if a is None or b is None or a.axis != b.axis:",
            "if a is None or b is None:",
            "contracts/test_save.py::test_ranges_along_two_axes_are_all_of_it",
        ),
        (
            "a part of what is a part, from its beginning",
            "start = there.start if there else 0",
            "start = 0",
            "contracts/test_save.py::test_a_range_between_two_that_are_asked_for_is_computed_too",
        ),
        (
            "what is kept is made again",
            "held |= {v: a for v, a in each if a is not None and not _is_literal(v)}",
            "pass",
            "contracts/test_save.py::test_a_gru_that_keeps_r_and_z_does_a_third_of_its_products_again",
        ),
        (
            "all columns, whatever is asked for",
            '    if name == "dot_general" and',
            '    if name == "never" and',
            "contracts/test_save.py::test_a_gru_that_keeps_r_and_z_does_a_third_of_its_products_again",
        ),
        (
            "a slice of a slice from the first one's beginning",
            "return Range(cut.axis, cut.start + part.start, cut.start + part.stop)",
            "return part",
            "contracts/test_save.py::test_a_range_goes_through_a_bias_a_cast_and_slices_of_slices",
        ),
        (
            "a number along an axis taken for all of them",
            "return [part._replace(axis=axis) if wide else None]",
            "return [part._replace(axis=axis)]",
            "contracts/test_save.py::test_a_number_for_all_columns_is_there_for_each_range",
        ),
    ),
    *edits(
        "layers/_parts.py",
        (
            "parts come in the order of their names",
            "return tuple(sorted(found, key=lambda each: each[0]))",
            "return tuple(found)",
            "test_names.py::test_parts_come_in_the_order_of_running",
        ),
        (
            "a part does not keep what it says",
            "made(part._replace(save=part.save or save))",
            "made(part._replace(save=save))",
            f"{LAYERS}::test_settled_is_what_does_not_say_what_it_keeps",
        ),
        (
            "a second hook takes the place of the first",
            "hook = in_turn(part.on_d_carry, hook)",
            "hook = on_d_carry",
            "test_small_print.py::test_two_hooks_are_both_there",
        ),
    ),
    *edits(
        "loops/_step_by_step.py",
        (
            "steps pulled back from the beginning",
            "scan(step, d_carry, (coeffs, d_ys), reverse=True)",
            "scan(step, d_carry, (coeffs, d_ys))",
            original("elman, in a loop"),
        ),
        (
            "what is kept is of the state before the step",
            "keep(params, carry, u, gates, after)",
            "keep(params, carry, u, gates, carry)",
            "test_small_print.py::test_what_is_kept_is_what_was_asked_for",
        ),
    ),
    *edits(
        "loops/_unrolled.py",
        (
            "where steps are unrolled time runs the other way",
            "lax.scan(step, carry, xs, length, reverse, unroll=n)",
            "lax.scan(step, carry, xs, length, not reverse, unroll=n)",
            "contracts/test_unrolled.py::test_the_steps_are_those_of_the_scan",
        ),
        (
            "a batch of loops is not unrolled",
            "return _run(traced, list(args), made), found[-1]",
            "return jaxpr_as_fun(traced)(*args), found[-1]",
            "contracts/test_unrolled.py::test_elsewhere_only_loops_over_stretches_are_left",
        ),
        (
            "a state is computed anew along the chain",
            "carry if reverse else lax.optimization_barrier(carry)",
            "carry",
            "contracts/test_unrolled.py::test_states_are_held_between_steps_and_on_the_way_back_the_deltas_of_all",
        ),
        (
            "steps are unrolled on a CPU, too",
            '("cuda", "rocm", "tpu")',
            '("cpu", "cuda", "rocm", "tpu")',
            "contracts/test_unrolled.py::test_on_a_cpu_the_program_is_that_of_a_scan"
            "[24-lstm-value]",
        ),
        (
            "a body is as long as its stretch",
            "even = -(-length // -(-length // longest))",
            "return length",
            "contracts/test_unrolled.py::test_a_body_is_of_few_steps",
        ),
    ),
    *edits(
        "loops/_first.py",
        (
            "a loop that cannot run is another in silence",
            "raise ValueError(f\"loop: {'; '.join(reasons)}\")",
            "return step_by_step",
            "test_small_print.py::test_a_loop_that_cannot_run_is_no_other_one",
        ),
    ),
)
