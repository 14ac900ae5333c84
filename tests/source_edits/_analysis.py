"""Faults of diagnoses, objectives, sequences, models and of weights in and out."""

from source_edits._edit import edits

FLOW = "diagnose/test_gradient_flow.py"
DYNAMICS = "diagnose/test_dynamics.py"
LAGS = "diagnose/test_by_lag.py"

EDITS = (
    *edits(
        "diagnose/_activity.py",
        (
            "means over the padding, too",
            "return trees.only(real, wide).sum((0, 1)) / count.astype(wide.dtype)",
            "return wide.sum((0, 1)) / count.astype(wide.dtype)",
            "diagnose/test_activity.py::test_gates_are_those_of_the_equations",
        ),
        (
            "candidates taken for gates",
            "unit = (a + 1) / 2 if name in CANDIDATES else a",
            "unit = a",
            "diagnose/test_activity.py::test_forced_gates_and_dead_units",
        ),
    ),
    *edits(
        "diagnose/_flows.py",
        (
            "the flow of the first example alone",
            "[a.reshape(len(a), -1) for a in d]",
            "[a[:, 0] for a in d]",
            "diagnose/test_flows.py::test_they_are_the_norms_of_gradient_flow[from_step]",
        ),
        (
            "a part that nothing passes by is zero",
            "alone.defvjp(refuse, refuse)\n    return alone",
            "return fwd",
            "diagnose/test_flows.py::test_an_unroll_that_nothing_passes_by_is_refused",
        ),
    ),
    *edits(
        "diagnose/_gates.py",
        (
            "gates of masked steps count",
            "jnp.broadcast_to(real[..., None], a.shape)",
            "jnp.ones(a.shape)",
            "diagnose/test_gates.py::test_of_every_cell[mgu, as published]",
        ),
        (
            "candidates in the range of gates",
            "least = -1.0 if name in CANDIDATES else 0.0",
            "least = 0.0",
            "diagnose/test_gates.py::test_of_every_cell[mgu, as published]",
        ),
    ),
    *edits(
        "diagnose/_adaptive.py",
        (
            "a batch of which nothing was measured chooses the window",
            "return jnp.where(found.losses > 0, index, state.index)",
            "return index",
            f"{LAGS}::test_a_batch_of_padding_chooses_nothing",
        ),
        (
            "it never chooses anew",
            "T, due = trees.length(batch.inputs), state.age >= every",
            "T, due = trees.length(batch.inputs), state.age > 2 * every",
            f"{LAGS}::test_adaptive_chooses_anew_and_hands_the_carry_on",
        ),
    ),
    *edits(
        "diagnose/_bias.py",
        (
            "relative to what was found",
            "return Bias(cosine, apart / sizes[1], sizes[0] / sizes[1])",
            "return Bias(cosine, apart / sizes[0], sizes[0] / sizes[1])",
            "diagnose/test_bias.py::test_figures_are_those_of_numpy",
        ),
    ),
    *edits(
        "diagnose/_by_lag.py",
        (
            "lags from the oldest on",
            "lambda a: a.sum(0)[::-1] / count.astype(a.dtype), sums",
            "lambda a: a.sum(0) / count.astype(a.dtype), sums",
            "diagnose/test_by_lag.py::test_norms_are_those_of_a_loop[True]",
        ),
        (
            "losses in the padding count",
            "return counted if side.mask is None else counted & side.mask[-1]",
            "return counted",
            "diagnose/test_by_lag.py::test_norms_are_those_of_a_loop[True]",
        ),
    ),
    *edits(
        "diagnose/_decay.py",
        (
            "what is left out without the geometric tail",
            "beyond = norms[start] / (1 - rate)",
            "beyond = norms[start]",
            "diagnose/test_by_lag.py::test_linear_network_decays_at_its_radius",
        ),
        (
            "a bound where nothing decays",
            "jnp.where((rate < 1) | nothing,",
            "jnp.where((rate < 2) | nothing,",
            f"{LAGS}::test_without_decay_nothing_is_bounded",
        ),
    ),
    *edits(
        "diagnose/_gradient_flow.py",
        (
            "norms in units of the states alone",
            "jnp.sqrt(jnp.maximum(total.real, 0)) * of_a * of_d",
            "jnp.sqrt(jnp.maximum(total.real, 0)) * of_a",
            f"{FLOW}::test_norms_of_contributions",
        ),
        (
            "norms of examples by themselves",
            "examples = tuple(range(1, d.ndim - jnp.ndim(param)))",
            "examples = ()",
            f"{FLOW}::test_norms_of_contributions",
        ),
        (
            "a cell of which it is not known what it gives",
            "if isinstance(seen.cell.output, Unsaid):",
            "if seen.cell is None:",
            "diagnose/test_own_cells.py::test_what_is_neither_seen_nor_said_is_asked_for[omega]",
        ),
    ),
    *edits(
        "diagnose/_jacobians.py",
        (
            "products in the other order",
            "return at @ product, None",
            "return product @ at, None",
            f"{DYNAMICS}::test_products_are_those_of_a_window",
        ),
        (
            "rows of a complex state without their conjugate",
            "d_state = trees.conjugate(unravel(unit))",
            "d_state = unravel(unit)",
            f"{DYNAMICS}::"
            "test_jacobians_of_a_complex_state_are_those_of_its_real_and_imaginary_parts",
        ),
    ),
    *edits(
        "diagnose/_lyapunov.py",
        (
            "the transient is in the mean",
            "logs = logs[discard // every :]",
            "logs = logs[0:]",
            f"{DYNAMICS}::test_sum_is_the_mean_log_determinant",
        ),
        (
            "a rate of each orthogonalisation, not of each step",
            "counts = every * jnp.arange(1, logs.shape[0] + 1, dtype=logs.dtype)",
            "counts = jnp.arange(1, logs.shape[0] + 1, dtype=logs.dtype)",
            "diagnose/test_dynamics.py::test_logistic_map",
        ),
    ),
    *edits(
        "diagnose/_omega.py",
        (
            "what a reset cuts off by intent counts",
            "kept = kept & ~seen.side.resets",
            "pass",
            "diagnose/test_dynamics.py::test_omega_does_not_see_the_padding",
        ),
        (
            "the gradient of a constant",
            "lambda g, d: g + (alpha * d).astype(g.dtype), found.grads, found.d_params",
            "lambda g, d: g, found.grads, found.d_params",
            f"{DYNAMICS}::test_regularised_adds_omega_at_the_recurrent_weights",
        ),
    ),
    *edits(
        "objectives.py",
        (
            "a class that does not exist is the first one",
            "return losses * _nan_outside(inside, losses.dtype)",
            "return losses",
            "models/test_out_of_range.py::test_a_traced_target_makes_its_loss_and_the_gradient_nan",
        ),
        (
            "the step before the last real one where the padding is within",
            "return (mask & (left == 1)).astype(jnp.float32)",
            "return (left == 1).astype(jnp.float32)",
            "models/test_objectives.py::test_the_last_real_step",
        ),
        (
            "losses of half precision in half precision",
            "optax.softmax_cross_entropy_with_integer_labels(\n        _at_least_float32(logits),",
            "optax.softmax_cross_entropy_with_integer_labels(\n        logits,",
            "models/test_objectives.py::test_at_least_float32",
        ),
    ),
    *edits(
        "sequences.py",
        (
            "a stored state has a gradient",
            "return unroll(layer, params, lax.stop_gradient(carry), *after)",
            "return unroll(layer, params, carry, *after)",
            "research/test_sequences.py::test_no_gradient_flows_into_the_burn_in",
        ),
        (
            "an episode starts where it is done",
            "return jnp.concatenate([before[None], dones[:-1]])",
            "return dones",
            "research/test_sequences.py::test_an_episode_that_starts_in_a_rollout_is_run_as_if_it_were_alone"
            "[elman with a learned carry]",
        ),
        (
            "packed sequences go on from one another",
            "resets[start, row] = True",
            "resets[start, row] = start == 0",
            "research/test_sequences.py::test_packed_rows_are_the_sequences_alone"
            "[elman with a learned carry-reverse]",
        ),
        (
            "rows longer than they may be",
            "if n + steps[i] <= length)",
            "if n < length)",
            "research/test_sequences.py::test_packed_rows_are_the_sequences_alone"
            "[elman with a learned carry-reverse]",
        ),
    ),
    *edits(
        "models/_stacks.py",
        (
            "the second direction is the first",
            "to_start, zs = back(backward,",
            "to_start, zs = unroll(backward,",
            "models/test_models.py::test_bidirectional_is_two_unrolls",
        ),
    ),
    *edits(
        "models/_generate.py",
        (
            "symbols drawn from the beginning's last logits",
            "return (state, after[0]), token",
            "return (state, logits), token",
            "models/test_models.py::test_generate_is_greedy_where_it_is_cold",
        ),
    ),
    *edits(
        "interop/_layouts.py",
        (
            "gates of keras's GRU in our order",
            '_keras("GRU", GRU, "zrn", 2, "gru")',
            '_keras("GRU", GRU, "rzn", 2, "gru")',
            "interop/test_equations.py::test_outputs_are_those_of_the_library_s_equations"
            "[keras.GRU]",
        ),
        (
            "gates of haiku's LSTM in our order",
            '"LSTM", LSTM, "igfo", ("linear/w",)',
            '"LSTM", LSTM, "ifgo", ("linear/w",)',
            "interop/test_equations.py::test_outputs_are_those_of_the_library_s_equations"
            "[haiku.LSTM]",
        ),
        (
            "haiku's update gate is not turned round",
            'negated="z", folder="gru"',
            'folder="gru"',
            "interop/test_equations.py::test_outputs_are_those_of_the_library_s_equations"
            "[haiku.GRU]",
        ),
        (
            "haiku's forget gate without its one",
            'one_more="f", folder="lstm"',
            'folder="lstm"',
            "interop/test_equations.py::test_outputs_are_those_of_the_library_s_equations"
            "[haiku.LSTM]",
        ),
        (
            "gates of flax's LSTM in another order",
            '_FOUR = "ii if ig io", "hi hf hg ho", "h"',
            '_FOUR = "ii if io ig", "hi hf ho hg", "h"',
            "interop/test_equations.py::test_outputs_are_those_of_the_library_s_equations"
            "[flax.LSTMCell]",
        ),
        (
            "torch's matrices are not turned",
            "biases.split()))\n    return Layout(name, kind, kind.gates, w_x, w_h, "
            "tuple(b), transposed=True",
            "biases.split()))\n    return Layout(name, kind, kind.gates, w_x, w_h, "
            "tuple(b), transposed=False",
            "interop/test_equations.py::test_outputs_are_those_of_the_library_s_equations"
            "[torch.LSTM]",
        ),
        (
            "the two biases of torch are one",
            'params["b"] = biases[0] if len(biases) == 1 else biases[0] + biases[1]',
            'params["b"] = biases[0]',
            "interop/test_equations.py::test_outputs_are_those_of_the_library_s_equations"
            "[torch.LSTM]",
        ),
    ),
    *edits(
        "interop/files.py",
        (
            "a header as long as it says",
            "if n > LARGEST_HEADER:",
            "if n < 0:",
            "interop/test_files.py::test_lies_cost_no_memory\n"
            "interop/test_files.py::test_hostile_files_are_refused",
        ),
        (
            "a damaged pair of parts is a complex array",
            "if real.dtype not in PARTS or real._replace(offset=imag.offset) != imag:",
            "if real.dtype not in PARTS:",
            "interop/test_files.py::test_metadata_that_tell_of_complex_arrays_that_are_none",
        ),
    ),
)
