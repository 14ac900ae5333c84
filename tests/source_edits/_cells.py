"""Faults of cells and of what wraps them."""

from source_edits._edit import edits, original

UNROLLS = "contracts/test_unrolls.py"
CUTS = "contracts/test_cuts.py"

EDITS = (
    *edits(
        "cells/_elman.py",
        (
            "elman: the slope misses the output",
            "delta = (d_h + d_y) * slope_t",
            "delta = d_h * slope_t + d_y",
            original("elman"),
        ),
    ),
    *edits(
        "cells/_indrnn.py",
        (
            "indrnn: weights without their states",
            "w_h=Sum(hs * deltas)",
            "w_h=Sum(deltas)",
            original("indrnn"),
        ),
    ),
    *edits(
        "cells/_gru.py",
        (
            "gru: the bias within the reset outside of it",
            "b_n=Sum(d_q_n)",
            "b_n=Sum(a_n * ds)",
            original("gru"),
        ),
        (
            "gru: the reset is not in the weights' gradient",
            "Outer(r * hs, d_n)",
            "Outer(hs, d_n)",
            original("gru, reset before"),
        ),
        (
            "gru: chrono at the reset gate",
            "b = b.at[1].set(_init.chrono_bias(",
            "b = b.at[0].set(_init.chrono_bias(",
            "test_small_print.py::test_chrono_biases_are_at_the_gates_that_keep",
        ),
    ),
    *edits(
        "cells/_lstm.py",
        (
            "lstm: c does not see the output",
            "d_c = d_carry.c + d_h * c_from_h",
            "d_c = d_carry.c + d_carry.h * c_from_h",
            original("lstm"),
        ),
        (
            "lstm: the forget bias at g",
            ".at[1].add(forget_bias)",
            ".at[2].add(forget_bias)",
            "test_small_print.py::test_forget_biases_are_at_the_gate_that_forgets",
        ),
        (
            "lstm: chrono of one sign",
            "b = b.at[1].set(b_f).at[0].set(-b_f)",
            "b = b.at[1].set(b_f).at[0].set(b_f)",
            "test_small_print.py::test_chrono_biases_are_at_the_gates_that_keep",
        ),
        (
            "lstm: axes of gates where they cannot be",
            "if gate_axis and not plain:",
            "if gate_axis and layer_norm:",
            "test_small_print.py::test_what_is_refused",
        ),
    ),
    *edits(
        "cells/_lstm_variants.py",
        (
            "lstm: no peephole of f on the way back",
            "keep = f + p_i * i_from_c + p_f * f_from_c",
            "keep = f + p_i * i_from_c",
            original("lstm, peepholes"),
        ),
        (
            "lstm: a mean taken for a constant",
            "rho * (d - d.mean(-1, keepdims=True) - hat * along)",
            "rho * (d - hat * along)",
            original("lstm, layer norm"),
        ),
        (
            "lstm: the projection of the step before",
            'of_p["w_r"] = Outer(k.m, deltas.h)',
            'of_p["w_r"] = Outer(carries.c, deltas.h)',
            original("lstm, projection"),
        ),
    ),
    *edits(
        "cells/_mgu.py",
        (
            "mgu: the gate in the candidate has no gradient",
            "a_f = (hs - n + a_n * q_n) * f * (1 - f)",
            "a_f = (hs - n) * f * (1 - f)",
            original("mgu"),
        ),
        (
            "mgu: as published it begins to forget",
            "to_keep = -forget_bias if as_published else forget_bias",
            "to_keep = forget_bias",
            "test_small_print.py::test_forget_biases_are_at_the_gate_that_forgets",
        ),
    ),
    *edits(
        "cells/_ctrnn.py",
        (
            "ctrnn: the slope of alpha",
            "Sum(ds * moves * (1 - alpha(p, ds)))",
            "Sum(ds * moves)",
            original("ctrnn"),
        ),
        (
            "ctrnn: the slope before is that after",
            "before * held_dot_t(d_z",
            "after * held_dot_t(d_z",
            original("ctrnn, currents"),
        ),
        (
            "ctrnn: a learned time constant at its limit",
            "if learn_tau and dt == tau:",
            "if learn_tau and dt > tau:",
            "test_small_print.py::test_what_is_refused",
        ),
    ),
    *edits(
        "cells/_masked.py",
        (
            "masked: a held output has no gradient",
            "held = add_output(cell, d_carry, d_y)",
            "held = d_carry",
            original("masked"),
        ),
        (
            "masked: inputs of the padding reach the cell",
            "return trees.only(real, x), real",
            "return x, real",
            original("masked"),
        ),
        (
            "masked: the output of no state shows in the padding",
            "trees.only(real, y)  # (2)",
            "y  # (2)",
            "test_small_print.py::test_an_output_that_is_no_state_is_zero_in_the_padding",
        ),
    ),
    *edits(
        "cells/_resets.py",
        (
            "resets: a gradient passes further back",
            "return trees.only(~reset, d_begun), (delta, d_begun)",
            "return d_begun, (delta, d_begun)",
            original("resets"),
        ),
        (
            "resets: the learned state they begin with has no gradient",
            "Terms((factor, of_initial))",
            "factor",
            original("resets of a learned carry"),
        ),
    ),
    *edits(
        "cells/_zoneout.py",
        (
            "zoneout: all leaves draw one noise",
            "key = jax.random.fold_in(key, 1 + i)",
            "key = jax.random.fold_in(key, 1)",
            "contracts/test_gradients.py::test_equals_numpy"
            "[zoneout, lstm: T=7 batch=(2, 2) side=both chunk=3]",
        ),
        (
            "zoneout: the key of the cell within",
            "key = jax.random.fold_in(key, 1 + i)",
            "key = jax.random.fold_in(key, i)",
            "contracts/test_gradients.py::test_equals_numpy"
            "[zoneout, lstm: T=7 batch=(2, 2) side=both chunk=3]",
        ),
        (
            "zoneout: an output counts twice",
            "d_y = jax.tree.map(jnp.zeros_like, d_y)",
            "pass",
            original("zoneout"),
        ),
        (
            "zoneout: a rate above one",
            "if not number or not 0 <= r <= 1:",
            "if not number or not 0 <= r:",
            "test_small_print.py::test_what_is_refused",
        ),
    ),
    *edits(
        "cells/_learned_carry.py",
        (
            "learned_carry: the same numbers for the cell of another key",
            "return LearnedCarryParams(params, cell.init_carry(params, ()))",
            "return LearnedCarryParams(cell.init(jax.random.key(0)), "
            "cell.init_carry(params, ()))",
            "test_small_print.py::test_a_key_is_that_of_all_that_is_drawn",
        ),
    ),
    *edits(
        "cells/_in_dtype.py",
        (
            "in_dtype: a fresh carry in the parameters' dtype",
            "cast(cell.init_carry(p, batch_shape))",
            "cell.init_carry(p, batch_shape)",
            "contracts/test_cells.py::test_bfloat16_computation_keeps_float32_gradients",
        ),
        (
            "in_dtype: products of the gradient in the inputs' dtype",
            "factors(p, cast(xs), *rest)",
            "factors(p, xs, *rest)",
            "contracts/test_cells.py::test_bfloat16_computation_keeps_float32_gradients",
        ),
    ),
    *edits(
        "cells/_hooked.py",
        (
            "hooked: a hook edits at masked steps",
            "edited = edited if real is None else trees.where(real, edited, d_carry)",
            "pass",
            f"{UNROLLS}::test_on_d_carry[detach-True]",
        ),
        (
            "watching: the cotangent of the state before",
            "return d_before, (delta, d_carry)",
            "return d_before, (delta, d_before)",
            "diagnose/test_gradient_flow.py::test_is_the_gradient_of_a_zero_added_to_each_state"
            "[elman-True]",
        ),
    ),
    *edits(
        "cells/_with_params.py",
        (
            "with_params: the gradient is given all parameters",
            "factors=lambda p, *at: v.factors(take(p), *at)",
            "factors=lambda p, *at: v.factors(p, *at)",
            "contracts/test_cells.py::test_bfloat16_computation_keeps_float32_gradients",
        ),
    ),
    *edits(
        "cells/_from_step.py",
        (
            "from_step: arrays within a partial are let in",
            "for part in (f.func, *f.args, *f.keywords.values()):",
            "for part in (f.func, *f.args):",
            "test_small_print.py::test_arrays_that_a_step_holds_are_refused_wherever_they_are",
        ),
        (
            "from_step: arrays in gates are let in",
            "refuse_arrays(step=step, init=init, init_carry=init_carry, gates=gates)",
            "refuse_arrays(step=step, init=init, init_carry=init_carry)",
            "test_small_print.py::test_arrays_that_a_step_holds_are_refused_wherever_they_are",
        ),
        (
            "from_step: the output has no gradient",
            "(d_before,) = back((d_carry, d_y))",
            "(d_before,) = back((d_carry, jax.tree.map(lambda d: 0 * d, d_y)))",
            original("from_step"),
        ),
    ),
    *edits(
        "cells/_from_parts.py",
        (
            "from_parts: what is said of the state is lost",
            "init, init_carry, step, vjp, output, keyed, name, pointwise, affine, couplings",
            "init, init_carry, step, vjp, output, keyed, name",
            "contracts/test_cuts.py::test_affine_is_what_has_no_second_difference",
        ),
    ),
    *edits(
        "cells/_products.py",
        (
            "the gradient of a weight in a loop over steps",
            "    dtype = trees.at_least_float32(jnp.result_type(a, d))\n",
            "    if a.ndim > 2:\n"
            "        return lax.map(lambda at: outer_sum(*at), (a, d)).sum(0)\n"
            "    dtype = trees.at_least_float32(jnp.result_type(a, d))\n",
            "contracts/test_structure.py::test_no_weight_gradient_in_a_loop_over_steps[ctrnn]",
        ),
        (
            "sums of products in bfloat16",
            "dtype = trees.at_least_float32(jnp.result_type(a, d))",
            "dtype = jnp.result_type(a, d)",
            "test_small_print.py::test_sums_over_steps_are_in_float32",
        ),
        (
            "sums in bfloat16",
            "return d.sum(axes, dtype=trees.at_least_float32(d.dtype))",
            "return d.sum(axes)",
            "test_small_print.py::test_sums_over_steps_are_in_float32",
        ),
        (
            "steps and examples are one axis: the batch is gathered",
            "    axes = tuple(range(a.ndim - 1))\n    # Contracting",
            "    d = d.reshape(-1, *d.shape[a.ndim - 1 :])\n"
            "    a = a.reshape(-1, a.shape[-1])\n"
            "    axes = tuple(range(a.ndim - 1))\n    # Contracting",
            "contracts/test_sharded.py::test_only_sums_are_exchanged_and_each_device_does_its_share",
        ),
        (
            "a product of spread arrays that says not how it is",
            "out_sharding=shardings.of_product(a, d)",
            "out_sharding=None",
            "contracts/test_sharded.py::test_only_sums_are_exchanged_and_each_device_does_its_share",
        ),
        (
            "inputs of another width are no fault of xs",
            "if xs.shape[-1:] != w.shape[:1]:",
            "if xs.ndim < 1:",
            f"{UNROLLS}::test_error",
        ),
    ),
    *edits(
        "cells/_hold.py",
        (
            "nothing is held",
            "lambda *args: lax.optimization_barrier(args)",
            "lambda *args: args",
            "contracts/test_compilers.py::test_barriers_on_gates_are_for_the_cpu_alone[mgu]",
        ),
    ),
    *edits(
        "cells/_activations.py",
        (
            "a rule of its own is not looked at",
            "return None if by_rule and not _has_slope(activation, name) else name",
            "return name",
            "contracts/test_compilers.py::test_a_rule_of_its_own_is_what_counts",
        ),
        (
            "relu has a slope at zero",
            '"relu": lambda h: (h > 0)',
            '"relu": lambda h: (h >= 0)',
            "contracts/test_compilers.py::"
            "test_a_slope_is_read_off_the_output_where_that_is_the_functions_own",
        ),
    ),
    *edits(
        "cells/_output.py",
        (
            "outputs that are no leaves of the carry",
            "if any(not isinstance(i, int) for i in found):",
            "if any(i is None for i in found):",
            "test_small_print.py::test_an_output_that_is_not_what_the_cell_says_is_refused",
        ),
        (
            "two calls of one program are one",
            "if within is None or handed_on else (i, *within)",
            "if within is None or handed_on else within",
            "diagnose/test_own_cells.py::test_two_calls_of_one_program_are_told_apart",
        ),
        (
            "an output is that part of the state that comes first",
            "states.index(place) for place in outputs",
            "0 for place in outputs",
            "diagnose/test_own_cells.py::"
            "test_the_part_that_is_the_output_is_found_wherever_it_is",
        ),
    ),
    *edits(
        "cells/_parts.py",
        (
            "only the first matrix couples units",
            "{name: f(params[name]) for name in names}",
            "{name: f(params[name]) for name in names[:1]}",
            f"{CUTS}::test_couplings_are_all_through_which_units_see_others",
        ),
        (
            "only the first term is summed",
            "first = trees.add(first, other)",
            "first = trees.add(first, 0 * other)",
            original("resets of a learned carry"),
        ),
    ),
    *edits(
        "cells/_init.py",
        (
            "one orthogonal matrix for all gates",
            "return jnp.concatenate([init(k, (n_in, n_hidden), dtype) for k in keys], -1)",
            "return init(keys[0], (n_in, gates * n_hidden), dtype)",
            "test_small_print.py::test_recurrent_weights_are_an_orthogonal_matrix_for_each_gate",
        ),
        (
            "chrono reaches too far",
            "dtype, 1.0, t_max - 1.0)",
            "dtype, 1.0, 10.0 * t_max)",
            "test_small_print.py::test_chrono_biases_are_at_the_gates_that_keep",
        ),
        (
            "configurations are initialised by a batch of QR",
            "    @jax.custom_batching.sequential_vmap\n    def draw",
            "    def draw",
            "contracts/test_transforms.py::"
            "test_configs_are_initialised_without_a_batch_of_qr[elman]",
        ),
    ),
    *edits(
        "cells/_layout.py",
        (
            "gates beside each other, not one after another",
            "return jnp.stack(gates, -2) if self.axis",
            "return jnp.stack(gates, -1).reshape(*gates[0].shape[:-1], "
            "len(gates), -1) if self.axis",
            "test_small_print.py::test_gates_along_an_axis_have_the_gradient_of_gates_side_by_side"
            "[gru-3]",
        ),
    ),
)
