"""Wrong derivatives of combinators of cells."""

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax import cells
from bptt_jax.types import Terms
from verify.mutants._originals import WITHOUT_KEYS
from verify.mutants._table import in_backward, in_contract, in_factors, in_local


@in_backward("masked")
def mask_ignored(right, p, coeffs, d_carry, d_y):
    coeffs, real = coeffs
    return right(p, (coeffs, jnp.ones_like(real)), d_carry, d_y)


@in_contract("masked", "w_x")
def nan_in_the_padding_read(right, p, inputs, hs, coeffs, deltas):
    _, d_xs = right(p, inputs, hs, coeffs, deltas)
    inner = cells.elman(3, 4)
    return cells.contract(inner, p, inputs[0], hs, coeffs[0], deltas)[0], d_xs


@in_backward("masked")
def output_held_in_the_padding_without_gradient(right, p, coeffs, d_carry, d_y):
    return right(p, coeffs, d_carry, trees.only(coeffs[1], d_y))


@in_backward("masked")
def state_not_carried_through_the_padding(right, p, coeffs, d_carry, d_y):
    d_before, delta = right(p, coeffs, d_carry, d_y)
    return trees.only(coeffs[1], d_before), delta


@in_backward("resets")
def reset_does_not_cut(right, p, coeffs, d_carry, d_y):
    _, (delta, d_begun) = right(p, coeffs, d_carry, d_y)
    return d_begun, (delta, d_begun)


@in_local("resets")
def reset_cuts_one_step_late(right, p, g, carries, nexts):
    coeffs, flags = right(p, g, carries, nexts)
    return coeffs, jnp.roll(flags, 1, 0)


@in_contract("resets", "w_h")
def w_h_with_the_state_before_the_reset(right, p, inputs, hs, coeffs, deltas):
    xs, flags = inputs
    never = jnp.zeros_like(flags)
    d_p, _ = right(p, (xs, never), hs, coeffs, deltas)
    return d_p, right(p, inputs, hs, coeffs, deltas)[1]


@in_contract("resets of a learned carry", "params.carry")
def resets_give_the_initial_state_no_gradient(right, p, inputs, hs, coeffs, deltas):
    d_p, d_xs = right(p, inputs, hs, coeffs, deltas)
    return d_p._replace(carry=jnp.zeros_like(p.carry)), d_xs


@in_contract("resets of a learned carry", "params.carry")
def every_step_gives_the_initial_state_a_gradient(right, p, inputs, hs, coeffs, deltas):
    d_p, d_xs = right(p, inputs, hs, coeffs, deltas)
    return d_p._replace(carry=deltas[1].sum((0, 1))), d_xs


@in_factors("resets of a learned carry", "params.carry")
def the_term_of_the_initial_state_dropped(right, p, inputs, hs, coeffs, deltas):
    of_p, d_xs = right(p, inputs, hs, coeffs, deltas)
    return of_p._replace(carry=Terms(of_p.carry.terms[:1])), d_xs


@in_backward("resets and mask, reversed")
def reset_before_a_step_in_the_padding_does_not_cut(right, p, coeffs, d_carry, d_y):
    (_, real), _ = coeffs
    d_before, (delta, d_begun) = right(p, coeffs, d_carry, d_y)
    return trees.where(real, d_before, d_begun), (delta, d_begun)


@in_backward("zoneout")
def zoned_out_path_missing(right, p, coeffs, d_carry, d_y):
    d_before, delta = right(p, coeffs, d_carry, d_y)
    (z,) = coeffs[1]
    return d_before - z * (d_carry + d_y), delta


@in_backward("zoneout")
def output_cotangent_not_zoned_out(right, p, coeffs, d_carry, d_y):
    (z,) = coeffs[1]
    return right(p, coeffs, d_carry, d_y / (1 - z))


@in_local("zoneout with keys", unseen=WITHOUT_KEYS)
def zoned_out_by_other_noise_than_forward(right, p, g, carries, nexts):
    g, keys = g
    if keys is not None:
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 7))(keys)
    return right(p, (g, keys), carries, nexts)
