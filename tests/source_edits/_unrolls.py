"""Faults of the unrolls."""

from source_edits._edit import edits, original

CHECKPOINTED = "contracts/test_checkpointed.py"
TRUNCATED = "contracts/test_truncated.py"
BOTH = "contracts/test_both_modes.py"

EDITS = (
    *edits(
        "_chunks.py",
        (
            "half of time is one stretch",
            "min(round(T / 20), CACHED",
            "min(round(T / 2), CACHED",
            "contracts/test_unrolls.py::test_a_stretch_is_a_small_part_of_time",
        ),
    ),
    *edits(
        "unrolls/_bptt.py",
        (
            "the shorter stretch put last",
            "pieces.insert(0, along)",
            "pieces.append(along)",
            original("elman in stretches"),
        ),
        (
            "stretches pulled back from the beginning",
            "lax.scan(stretch, acc, (*at, stored.pop()), reverse=True)",
            "lax.scan(stretch, acc, (*at, stored.pop()))",
            original("elman in stretches"),
        ),
        (
            "a chunk of no steps",
            "(not is_whole(chunk) or chunk < 1)",
            "not is_whole(chunk)",
            "contracts/test_unrolls.py::test_error",
        ),
    ),
    *edits(
        "unrolls/_schedule.py",
        (
            "cut without a thought of what follows",
            "jnp.minimum(betas[slots, r - 1], t - betas[slots - 1, r - 1])",
            "jnp.minimum(betas[slots, r - 1], t - 1)",
            f"{CHECKPOINTED}::test_splits_give_the_least",
        ),
        (
            "runs counted without the first",
            "return (r + 1) * t - math.comb(slots + r, r - 1) if r else t",
            "return r * t - math.comb(slots + r, r - 1) if r else t",
            f"{CHECKPOINTED}::test_the_closed_form_is_that_of_dynamic_programming",
        ),
    ),
    *edits(
        "unrolls/_revolve.py",
        (
            "a slot given back too early",
            "done_with = slots.begins[slots.top] > i",
            "done_with = slots.begins[slots.top] >= i",
            "verify/test_mutants.py::test_the_original_passes[checkpointed]\n"
            "contracts/test_checkpointed.py::test_steps_run_as_often_as_the_closed_form_says[7-2]",
        ),
        (
            "nothing stored on the way",
            "return carry, _offer(betas, slots, carry, j + 1, i + 1, offload)",
            "return carry, slots",
            f"{CHECKPOINTED}::test_stretches_run_as_often[5-2]",
        ),
        (
            "twice the slots",
            "rows = jax.tree.map(lambda a: jnp.broadcast_to(a, (m + 1, *a.shape)), carry)",
            "rows = jax.tree.map(lambda a: jnp.broadcast_to(a, (2 * m + 1, *a.shape)), carry)",
            f"{CHECKPOINTED}::test_no_more_is_stored_than_the_slots",
        ),
        (
            "what was kept pulled back from the beginning",
            "lax.scan(pull_kept, acc, (indices, whole), reverse=True)",
            "lax.scan(pull_kept, acc, (indices, whole))",
            original("checkpointed"),
        ),
        (
            "a second reverse is not refused in words",
            "return forward_only((total.done(params), d_carry, *along), TWICE)",
            "return total.done(params), d_carry, *along",
            f"{CHECKPOINTED}::test_reverse_over_reverse_is_refused",
        ),
        (
            "outputs that are not spread as they will be",
            "return shardings.like(shapes, zeros)",
            "return zeros",
            "contracts/test_sharded.py::test_only_sums_are_exchanged_and_each_device_does_its_share",
        ),
        (
            "too few slots by themselves",
            "math.comb(slots + 2, 2) < stretches",
            "math.comb(slots + 4, 4) < stretches",
            f"{CHECKPOINTED}::test_default_slots_let_no_stretch_run_more_than_three_times",
        ),
    ),
    *edits(
        "unrolls/_checkpointed.py",
        (
            "gates kept where the plan says states",
            "layer = layers.settled(lift(layer), found.save)",
            "layer = lift(layer)",
            "contracts/test_plan.py::"
            "test_states_alone_are_kept_where_there_is_no_room_for_gates",
        ),
        (
            "slots beside a number of bytes",
            "if slots is not None or kept:",
            "if kept:",
            "contracts/test_plan.py::test_checkpointed_takes_a_number_of_bytes\n"
            f"{CHECKPOINTED}::test_senseless_options_are_named",
        ),
    ),
    *edits(
        "unrolls/_truncated.py",
        (
            "the oldest block comes back as the newest",
            "jnp.concatenate([jnp.zeros_like(d[:1]), d[:-1]])",
            "jnp.roll(d, 1, 0)",
            f"{TRUNCATED}::test_equals_stop_gradient[lstm-7-6-6-4-plain]",
        ),
        (
            "blocks counted from the beginning",
            "(i < n - 1) & ((n - 1 - i) % (stride // K) == 0)",
            "(i < n - 1) & (i % (stride // K) == 0)",
            f"{TRUNCATED}::test_equals_stop_gradient[elman-8-4-4-2-both]",
        ),
        (
            "no block ends at the shorter stretch",
            "acc = next_block(acc[0], ends), acc[1]",
            "acc = acc[0], acc[1]",
            f"{TRUNCATED}::test_equals_stop_gradient[lstm-7-6-6-4-plain]",
        ),
        (
            "a block too few where the stride does not divide time",
            "min(window // stride, -(-T // stride))",
            "min(window // stride, max(1, T // stride))",
            "contracts/test_truncated.py::test_a_window_of_the_whole_is_exact\n"
            "contracts/test_truncated.py::test_equals_stop_gradient[elman-3-8-2-1-both]",
        ),
        (
            "a window that is no multiple of its stride",
            "if window % stride:",
            "if window < stride:",
            f"{TRUNCATED}::test_senseless_options_are_named",
        ),
    ),
    *edits(
        "unrolls/_randomly_truncated.py",
        (
            "without the compensation",
            "jnp.where(cut, 0.0, 1 / (1 - c))",
            "jnp.where(cut, 0.0, 1.0)",
            "contracts/test_randomly_truncated.py::test_the_mean_over_all_patterns_is_the_exact_gradient",
        ),
        (
            "a cut does not begin a segment",
            "jnp.where(cut, 1.0, since + 1)",
            "since + 1",
            "contracts/test_randomly_truncated.py::test_segments_have_the_mean_length",
        ),
        (
            "cuts drawn from the key that layers draw from",
            "key = jax.random.fold_in(side.keys[0], STREAM)",
            "key = side.keys[0]",
            "contracts/test_randomly_truncated.py::test_any_model_and_keys_of_the_side",
        ),
        (
            "alpha of infinite variance",
            "if not alpha > 2:",
            "if not alpha > 1:",
            "contracts/test_randomly_truncated.py::test_what_does_not_fit_is_named",
        ),
    ),
    *edits(
        "unrolls/_both_modes.py",
        (
            "residuals of the forward pass kept for its derivative",
            "out, residuals = forward(_run_again(layer), *spec.merge",
            "out, residuals = forward(layer, *spec.merge",
            f"{BOTH}::test_a_gradient_of_a_jvp_takes_little",
        ),
        (
            "tangents of the shorter stretch a step late",
            "d_at = trees.cut(d_along, 0, rest)",
            "d_at = trees.cut(d_along, T - rest, T)",
            f"{BOTH}::test_any_chunk",
        ),
    ),
    *edits(
        "unrolls/_linear.py",
        (
            "twice transposed is the transpose",
            "map=Map(map.transpose, map.apply)",
            "map=Map(map.transpose, map.transpose)",
            f"{BOTH}::test_linear_twice_transposed_is_itself",
        ),
        (
            "no derivative along residuals",
            "if all(isinstance(t, ad.Zero) for t in tangents[:n]):",
            "if tangents[:n] is not None:",
            f"{BOTH}::test_linear_has_a_derivative_along_residuals",
        ),
    ),
    *edits(
        "unrolls/_reverse.py",
        (
            "outputs in the order of the run",
            "return carry, _flip(ys)",
            "return carry, ys",
            "contracts/test_unrolls.py::test_reverse_runs_each_segment_from_its_own_end",
        ),
        (
            "resets a step late",
            "return jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])",
            "return resets",
            "contracts/test_unrolls.py::test_reverse_runs_each_segment_from_its_own_end",
        ),
    ),
    *edits(
        "unrolls/_scan.py",
        (
            "the plain loop without its resets",
            "cell, xs = with_side(cell, xs, side)",
            "cell, xs = with_side(cell, xs, side._replace(resets=None))",
            "test_small_print.py::test_the_plain_loop_resets_too",
        ),
        (
            "shapes of a layer told as one step has them",
            "return in_given_shapes(lambda: lax.scan(step, carry, (xs, side)), layer, *given)",
            "return lax.scan(step, carry, (xs, side))",
            "contracts/test_doors.py::test_shapes_are_told_as_they_were_given",
        ),
    ),
    *edits(
        "unrolls/_door.py",
        (
            "symbols that do not exist are let in",
            "        refuse(layer, *arguments)\n        return entry(",
            "        return entry(",
            "models/test_out_of_range.py::test_an_unroll_refuses_a_symbol_that_is_known_and_names_the_first"
            "[bptt]",
        ),
        (
            "a derivative along aux is zero and nobody is told",
            "side = side._replace(aux=jax.tree.map(_constant, side.aux))",
            "side = side._replace(aux=side.aux)",
            "contracts/test_targets.py::test_a_constant_that_is_differentiated_is_refused",
        ),
        (
            "arguments that vary over other axes of a mesh",
            "params, carry, xs, side = _same_axes((params, carry, xs, side))",
            "params, carry, xs, side = (params, carry, xs, side)",
            "contracts/test_transforms.py::test_shard_map_with_default_settings",
        ),
        (
            "parameters of another model",
            "    _check_params(layer, params)\n    _check_carry",
            "    _check_carry",
            "contracts/test_unrolls.py::test_error",
        ),
        (
            "keys with a batch",
            "not (trees.is_key(a) and a.ndim == 1)",
            "not trees.is_key(a)",
            "contracts/test_unrolls.py::test_error",
        ),
        (
            "a symbol for the number of steps",
            "    if export.is_symbolic_dim(T):\n        raise ValueError(",
            "    if T is None:\n        raise ValueError(",
            "contracts/test_export_elsewhere.py::test_a_length_that_is_a_symbol_is_refused_in_words"
            "[checkpointed]",
        ),
        (
            "each call is traced anew",
            "    @functools.partial(jax.jit, static_argnums=(0, 1))\n    def entry(",
            "    def entry(",
            "test_traces.py::test_an_unroll_compiles_once[bptt, remat-lstm]",
        ),
    ),
    *edits(
        "unrolls/_plan.py",
        (
            "more than the memory there is",
            "found = [way for way in ways if way.bytes <= memory]",
            "found = ways",
            "contracts/test_plan.py::"
            "test_the_least_budget_works_and_one_byte_less_does_not",
        ),
        (
            "outputs counted once",
            "without = outputs + max(outputs, of.stretch)",
            "without = max(outputs, of.stretch)",
            "contracts/test_plan.py::test_predicted_bytes_are_those_of_xla[shape0-1.05]",
        ),
        (
            "the slowest way",
            "return min(found, key=functools.partial(_time,",
            "return max(found, key=functools.partial(_time,",
            "contracts/test_plan.py::test_bptt_itself_runs_where_it_fits",
        ),
    ),
    *edits(
        "unrolls/_pullback.py",
        (
            "symbols that do not exist are let in when watched",
            "    check(layer, *at)\n    refuse(layer, *at)\n",
            "    check(layer, *at)\n",
            "models/test_out_of_range.py::test_every_way_to_a_model_refuses_it",
        ),
        (
            "a carry that is not spread as a step returns it, when watched",
            "at = (at[0], spread(layer, *at), *at[2:])",
            "at = (at[0], at[1], *at[2:])",
            "contracts/test_sharded.py::test_only_sums_are_exchanged_and_each_device_does_its_share",
        ),
        (
            "parts named in the other order",
            "[part.path for part in seen]",
            "[part.path for part in seen[::-1]]",
            "diagnose/test_gradient_flow.py::test_paths_name_the_parts",
        ),
    ),
    *edits(
        "unrolls/_mask.py",
        (
            "a step too many",
            "return steps < seq_lengths[None]",
            "return steps <= seq_lengths[None]",
            "contracts/test_unrolls.py::test_reverse_with_padding_begins_at_the_last_real_step",
        ),
    ),
)
