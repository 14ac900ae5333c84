"""Wrong backwards of unrolls."""

import dataclasses

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax import unrolls
from bptt_jax.cells import masked, resets
from bptt_jax.types import Side
from verify.mutants._originals import flags, with_side
from verify.mutants._table import in_bptt, in_checkpointed, in_unroll

IN_STRETCHES_ALONE = dict(lengths=(4,))
ONE_STRETCH = dict(chunks=(None,))


def head(residuals, d_ys, chunk):
    """The steps before the whole stretches, and `bwd`'s arguments for them."""
    params, last, xs, side, ys, stored = residuals
    rest = len(d_ys) % chunk
    xs, side, ys, d_ys = trees.cut((xs, side, ys, d_ys), 0, rest)
    carry, kept = stored.stretches[0]
    nothing = jax.tree.map(jnp.zeros_like, last)
    return rest, (params, carry, xs, side, ys, kept, nothing, d_ys)


@in_bptt("elman in stretches")
def last_output_without_gradient(right, layer, residuals, d_carry, d_ys, *, chunk):
    return right(layer, residuals, d_carry, d_ys.at[-1].set(0), chunk=chunk)


@in_bptt("elman in stretches", "w_h", unseen=ONE_STRETCH)
def first_carry_of_a_stretch_off_by_one(
    right, layer, residuals, d_carry, d_ys, *, chunk
):
    *others, stored = residuals
    *rest, (carries, kept) = stored.stretches
    carries = jax.tree.map(lambda a: jnp.roll(a, 1, 0), carries)
    stored = dataclasses.replace(stored, stretches=[*rest, (carries, kept)])
    residuals = (*others, stored)
    return right(layer, residuals, d_carry, d_ys, chunk=chunk)


@in_bptt("elman in stretches")
def final_carry_without_gradient(right, layer, residuals, d_carry, d_ys, *, chunk):
    return right(layer, residuals, jnp.zeros_like(d_carry), d_ys, chunk=chunk)


@in_bptt("lstm in stretches")
def final_cell_state_without_gradient(right, layer, residuals, d_carry, d_ys, *, chunk):
    d_carry = d_carry._replace(c=jnp.zeros_like(d_carry.c))
    return right(layer, residuals, d_carry, d_ys, chunk=chunk)


@in_bptt("elman in stretches", "carry")
def first_carry_without_gradient(right, layer, residuals, d_carry, d_ys, *, chunk):
    d_params, d_first, *others = right(layer, residuals, d_carry, d_ys, chunk=chunk)
    return d_params, [jnp.zeros_like(d) for d in d_first], *others


@in_bptt("lstm in stretches", "carry.c")
def first_cell_state_without_gradient(right, layer, residuals, d_carry, d_ys, *, chunk):
    d_params, (d_h, d_c), *others = right(layer, residuals, d_carry, d_ys, chunk=chunk)
    return d_params, [d_h, jnp.zeros_like(d_c)], *others


@in_bptt("elman in stretches", "w_x w_h b", unseen=IN_STRETCHES_ALONE)
def shorter_first_stretch_counted_twice(
    right, layer, residuals, d_carry, d_ys, *, chunk
):
    d_params, *others = right(layer, residuals, d_carry, d_ys, chunk=chunk)
    rest, arguments = head(residuals, d_ys, chunk)
    if rest:
        again, *_ = layer.bwd(*arguments)
        again = trees.floats(residuals[0], again)
        d_params = [a + b for a, b in zip(d_params, again, strict=True)]
    return d_params, *others


@in_bptt("elman in stretches", "w_x w_h b xs", unseen=IN_STRETCHES_ALONE)
def shorter_first_stretch_without_params_and_inputs(
    right, layer, residuals, d_carry, d_ys, *, chunk
):
    d_params, d_first, d_xs, d_targets = right(
        layer, residuals, d_carry, d_ys, chunk=chunk
    )
    rest, arguments = head(residuals, d_ys, chunk)
    if rest:
        dropped, *_ = layer.bwd(*arguments)
        dropped = trees.floats(residuals[0], dropped)
        d_params = [a - b for a, b in zip(d_params, dropped, strict=True)]
        d_xs = [d.at[:rest].set(0) for d in d_xs]
    return d_params, d_first, d_xs, d_targets


@in_bptt("elman in stretches", "w_x w_h b xs", unseen=ONE_STRETCH)
def gradient_cut_between_stretches(right, layer, residuals, d_carry, d_ys, *, chunk):
    def bwd(*arguments):
        d_params, d_before, *others = layer.bwd(*arguments)
        return d_params, jnp.zeros_like(d_before), *others

    d_params, _, *others = right(
        layer._replace(bwd=bwd), residuals, d_carry, d_ys, chunk=chunk
    )
    _, d_first, *_ = right(layer, residuals, d_carry, d_ys, chunk=chunk)
    return d_params, d_first, *others


@in_bptt("elman in stretches", "xs", unseen=ONE_STRETCH)
def stretches_of_input_gradients_in_the_wrong_order(
    right, layer, residuals, d_carry, d_ys, *, chunk
):
    d_params, d_first, (d_xs,), d_targets = right(
        layer, residuals, d_carry, d_ys, chunk=chunk
    )
    chunk = chunk or len(d_ys)
    rest = len(d_ys) % chunk
    turned = jnp.flip(trees.fold(d_xs[rest:], len(d_ys) // chunk), 0)
    return d_params, d_first, [d_xs.at[rest:].set(trees.flat(turned))], d_targets


def _with_rows(residuals, change):
    """The residuals of `checkpointed` with other states in its slots."""
    *others, stored, whole, rest = residuals
    rows = jax.tree.map(change, stored.rows)
    return *others, stored._replace(rows=rows), whole, rest


@in_checkpointed("checkpointed", "w_x w_h b carry xs")
def slots_in_the_wrong_order(right, layer, residuals, d_carry, d_ys, **options):
    wrong = _with_rows(residuals, lambda a: a.at[:2].set(a[1::-1]))
    return right(layer, wrong, d_carry, d_ys, **options)


@in_checkpointed("checkpointed")
def last_state_of_the_forward_pass_lost(
    right, layer, residuals, d_carry, d_ys, **options
):
    wrong = _with_rows(residuals, lambda a: a.at[2].set(a[1]))
    return right(layer, wrong, d_carry, d_ys, **options)


@in_checkpointed("checkpointed", "w_x w_h b carry xs")
def stack_of_states_off_by_one(right, layer, residuals, d_carry, d_ys, **options):
    *others, stored, whole, rest = residuals
    stored = stored._replace(begins=stored.begins + (stored.begins > 0))
    return right(layer, (*others, stored, whole, rest), d_carry, d_ys, **options)


@in_checkpointed("checkpointed", "w_x w_h b carry xs")
def kept_stretches_in_the_wrong_order(
    right, layer, residuals, d_carry, d_ys, **options
):
    *others, whole, rest = residuals
    wrong = whole and jax.tree.map(lambda a: a[::-1], whole)
    return right(layer, (*others, wrong, rest), d_carry, d_ys, **options)


@in_checkpointed("checkpointed")
def rest_of_time_forgotten(right, layer, residuals, d_carry, d_ys, **options):
    return right(layer, (*residuals[:-1], None), d_carry, d_ys, **options)


@in_unroll("truncated", "w_x w_h b carry xs")
def a_window_too_short(*arguments, **options):
    return unrolls.truncated(*arguments, window=4, stride=2, **options)


@in_unroll("truncated", "w_x w_h b carry xs")
def each_block_by_itself(*arguments, **options):
    return unrolls.truncated(*arguments, window=2, **options)


def _flip(tree):
    return jax.tree.map(lambda a: jnp.flip(a, 0), tree)


EVERYTHING = "w_x w_h b carry xs ys final_carry"


@in_unroll("reverse", EVERYTHING)
@with_side(flags)
def resets_turned_but_not_moved(layer, params, carry, xs, side=Side(), **options):
    carry, ys = unrolls.bptt(layer, params, carry, _flip(xs), _flip(side), **options)
    return carry, _flip(ys)


@unrolls.reverse
def _mask_first(cell, params, carry, xs, side, **options):
    cell, xs = masked(resets(cell)), ((xs, side.resets), side.mask)
    return unrolls.bptt(cell, params, carry, xs, **options)


@in_unroll("reverse", EVERYTHING)
@with_side(flags)
def mask_and_resets_in_the_wrong_order(*arguments, **options):
    return _mask_first(*arguments, **options)
