"""Faults of functions of a whole sequence, and of models that have them."""

from source_edits._edit import edits

ALONE = "contracts/test_wholes.py::test_values_and_gradients_are_those_of_the_real_steps_alone"
TARGETS = (
    "models/test_sections.py::test_the_target_is_that_of_the_last_step_that_counts"
)
KEYS = "models/test_sections.py::test_no_two_parts_draw_the_same"

EDITS = (
    *edits(
        "wholes/_one_step.py",
        (
            "a target of a step whose weight is zero",
            "_counting(mask, targets.weights), tuple(targets)",
            "mask, tuple(targets)",
            f"{TARGETS}[both]",
        ),
        (
            "the first direction ends where the sequence begins",
            "objectives.at_last_step(flags[::-1])[::-1] != 0",
            "objectives.at_last_step(flags) != 0.0",
            f"{ALONE}[ends-7-batch0-True]",
        ),
        (
            "a sequence without a real step counts",
            "mask.any(0, keepdims=True)",
            "(mask | True).any(0, keepdims=True)",
            "models/test_sections.py::test_the_loss_is_a_mean_over_sequences[False]",
        ),
    ),
    *edits(
        "wholes/_one_step.py",
        (
            "the last step, be it real or not",
            "return _at(objectives.at_last_step(flags) != 0, tree)",
            "return jax.tree.map(lambda a: a[-1:], tree)",
            f"{TARGETS}[both]",
        ),
    ),
    *edits(
        "wholes/_attention_pool.py",
        (
            "a pool that reads the padding",
            "ys = ys if side.mask is None else trees.only(side.mask, ys)",
            "ys = ys",
            "contracts/test_wholes.py::test_a_pool_reads_no_padding[attention_pool]",
        ),
    ),
    *edits(
        "wholes/_mean.py",
        (
            "a sum over what is in the padding",
            "total = trees.only(mask, wide).sum(0, keepdims=True)",
            "total = wide.sum(0, keepdims=True)",
            f"{ALONE}[mean-7-batch0-True]",
        ),
        (
            "a mean over padding",
            "jnp.maximum(mask.sum(0, keepdims=True, dtype=jnp.int32), 1)",
            "jnp.full_like(mask[:1], mask.shape[0], jnp.int32)",
            f"{ALONE}[mean-7-batch0-True]",
        ),
    ),
    *edits(
        "wholes/_directions.py",
        (
            "both directions draw the same noise",
            "layers.of_part(side, i)",
            "side",
            "models/test_sections.py::test_the_two_directions_drop_different_features",
        ),
        (
            "both directions run ahead",
            "runs = unroll, unrolls.reverse(unroll)",
            "runs = unroll, unroll",
            f"{ALONE}[ends-7-batch0-True]",
        ),
        (
            "the options of a model do not reach both directions",
            "(layer.over(f) if layer.over else layer for layer in pair)",
            "pair",
            "models/test_sections.py::test_options_reach_the_recurrent_parts",
        ),
        (
            "both directions have one set of parameters",
            "zip(runs, (ahead, back), params, strict=True)",
            "zip(runs, (ahead, back), (params[0],) * 2, strict=True)",
            f"{ALONE}[ends-7-batch0-True]",
        ),
    ),
    *edits(
        "wholes/_softmax.py",
        (
            "attention to padding",
            "jnp.where(there, wide, least)",
            "jnp.where(there, wide, jnp.zeros_like(wide))",
            f"{ALONE}[attention_pool-7-batch0-True]",
        ),
    ),
    *edits(
        "wholes/_attention.py",
        (
            "sequences of one row see each other",
            "return own if seen is None else own & seen",
            "return seen",
            "models/test_sections.py::test_sequences_in_one_row_do_not_see_each_other",
        ),
        (
            "scores that grow with the features of a head",
            "q * shape[1] ** -0.5",
            "q",
            f"{ALONE}[attention-7-batch0-True]",
        ),
    ),
    *edits(
        "unrolls/_through.py",
        (
            "all parts draw from the same keys",
            "layers.of_part(side, i)",
            "side",
            KEYS,
        ),
    ),
    *edits(
        "estimators/_batches.py",
        (
            "a mean over the steps of the inputs after a pool",
            "        return carry, losses, steps\n",
            "        return carry, losses, real_steps(batch)\n",
            "models/test_sections.py::test_a_loss_inside_is_that_of_the_outputs[last]",
        ),
    ),
)
