"""Wrong derivatives of the LSTM and its variants."""

import jax.numpy as jnp

from bptt_jax.cells import _lstm_variants as variants
from bptt_jax.cells._products import outer_sum, total
from verify.mutants._table import in_backward, in_contract, in_local


def quarters(a):
    return jnp.split(a, 4, -1)


def with_quarter(a, index, quarter):
    parts = quarters(a)
    parts[index] = quarter
    return jnp.concatenate(parts, -1)


@in_local("lstm")
def sign_of_the_forget_gate_flipped(right, p, g, carries, nexts):
    local, *others = right(p, g, carries, nexts)
    return with_quarter(local, 1, -quarters(local)[1]), *others


@in_local("lstm")
def slope_of_the_input_gate_forgotten(right, p, g, carries, nexts):
    local, *others = right(p, g, carries, nexts)
    return with_quarter(local, 0, g.named["g"]), *others


@in_local("lstm")
def input_gate_and_candidate_swapped(right, p, g, carries, nexts):
    local, *others = right(p, g, carries, nexts)
    i, f, g, o = quarters(local)
    return jnp.concatenate([g, f, i, o], -1), *others


@in_local("lstm")
def forget_gate_sees_the_cell_state_after_the_step(right, p, g, carries, nexts):
    local, *others = right(p, g, carries, nexts)
    f = g.named["f"]
    return with_quarter(local, 1, nexts.c * f * (1 - f)), *others


@in_local("lstm")
def slope_of_the_cell_state_forgotten(right, p, g, carries, nexts):
    local, _, f = right(p, g, carries, nexts)
    return local, g.named["o"], f


@in_backward("lstm")
def cell_state_not_forgotten(right, p, coeffs, d_carry, d_y):
    local, c_from_h, f = coeffs
    d_before, d_a = right(p, coeffs, d_carry, d_y)
    d_c = d_carry.c + (d_carry.h + d_y) * c_from_h
    return d_before._replace(c=d_c), d_a


@in_backward("lstm")
def output_gate_from_the_cell_state(right, p, coeffs, d_carry, d_y):
    local, c_from_h, f = coeffs
    d_c = d_carry.c + (d_carry.h + d_y) * c_from_h
    d_a = jnp.concatenate([d_c] * 4, -1) * local
    return d_carry._replace(h=d_a @ p["w_h"].T, c=d_c * f), d_a


@in_backward("lstm")
def later_steps_missing_in_the_hidden_state(right, p, coeffs, d_carry, d_y):
    return right(p, coeffs, d_carry._replace(h=jnp.zeros_like(d_y)), d_y)


@in_contract("lstm", "b")
def biases_of_gates_in_the_wrong_order(right, p, xs, carries, coeffs, d_as):
    d_p, d_xs = right(p, xs, carries, coeffs, d_as)
    return d_p | dict(b=jnp.roll(d_p["b"], 4)), d_xs


@in_contract("lstm", "w_h")
def w_h_with_the_cell_state(right, p, xs, carries, coeffs, d_as):
    d_p, d_xs = right(p, xs, carries, coeffs, d_as)
    return d_p | dict(w_h=outer_sum(carries.c, d_as)), d_xs


@in_contract("lstm, peepholes", "w_c")
def output_peephole_sees_the_state_before(right, p, xs, carries, k, deltas):
    d_p, d_xs = right(p, xs, carries, k, deltas)
    d_i, d_f, _, d_o = quarters(deltas.a)
    seen = [d * carries.c for d in (d_i, d_f, d_o)]
    return d_p | dict(w_c=total(jnp.concatenate(seen, -1))), d_xs


@in_local("lstm, peepholes")
def peepholes_missing_on_the_way_to_the_state(right, p, g, carries, nexts):
    k = right(p, g, carries, nexts)
    p_i, p_f, _ = jnp.split(p["w_c"], 3)
    by_i, by_f, *_ = quarters(k.a_from)
    return k._replace(keep=k.keep - p_i * by_i - p_f * by_f)


@in_local("lstm, peepholes")
def output_peephole_missing_on_the_way_to_the_state(right, p, g, carries, nexts):
    k = right(p, g, carries, nexts)
    p_o = jnp.split(p["w_c"], 3)[2]
    return k._replace(c_from_m=k.c_from_m - p_o * quarters(k.a_from)[3])


@in_backward("lstm, projection")
def projection_not_transposed(right, p, k, d_carry, d_y):
    return right(p | dict(w_r=p["w_r"].T), k, d_carry, d_y)


@in_contract("lstm, projection", "w_r")
def projection_gradient_from_the_projected_output(right, p, xs, carries, k, deltas):
    d_p, d_xs = right(p, xs, carries, k, deltas)
    return d_p | dict(w_r=outer_sum(k.m @ p["w_r"], deltas.h)), d_xs


@in_backward("lstm, layer norm")
def normalised_direction_not_projected_out(right, p, k, d_carry, d_y):
    """The term of (d a · a) a is that with the normalised values in it."""
    c_norm = k.c_norm._replace(hat=jnp.zeros_like(k.c_norm.hat))
    return right(p, k._replace(c_norm=c_norm), d_carry, d_y)


@in_contract("lstm, layer norm", "w_x xs")
def mean_of_the_normalisation_missing(right, p, xs, carries, k, deltas):
    d_p, d_xs = right(p, xs, carries, k, deltas)
    hat, rho = variants._normalise(xs @ p["w_x"], 1e-6)
    d = deltas.a * p["scale_x"]
    d_v = rho * (d - hat * (d * hat).mean(-1, keepdims=True))
    return d_p | dict(w_x=outer_sum(xs, d_v)), d_v @ p["w_x"].T


@in_contract("lstm, layer norm", "scale_h")
def gain_from_what_was_not_normalised(right, p, xs, carries, k, deltas):
    d_p, d_xs = right(p, xs, carries, k, deltas)
    return d_p | dict(scale_h=total(deltas.a * (carries.h @ p["w_h"]))), d_xs
