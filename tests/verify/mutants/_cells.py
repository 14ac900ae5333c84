"""Wrong derivatives of cells other than the LSTM."""

import jax
import jax.numpy as jnp

from bptt_jax.cells._products import outer_sum, total
from bptt_jax.types import Blocks, Outer
from verify.mutants._table import (
    in_backward,
    in_contract,
    in_factors,
    in_gates,
    in_local,
    in_move,
)


def thirds(a):
    return jnp.split(a, 3, -1)


@in_local("elman")
def one_minus_h_for_one_minus_h_squared(right, p, g, hs, nexts):
    return 1 - nexts


@in_local("elman")
def slope_of_the_state_before_the_step(right, p, g, hs, nexts):
    return 1 - hs * hs


@in_backward("elman")
def slope_forgotten(right, p, slope, d_h, d_y):
    return right(p, jnp.ones_like(slope), d_h, d_y)


@in_backward("elman")
def sign_of_the_recurrence_flipped(right, p, slope, d_h, d_y):
    d_before, delta = right(p, slope, d_h, d_y)
    return -d_before, delta


@in_backward("elman")
def recurrent_weights_not_transposed(right, p, slope, d_h, d_y):
    _, delta = right(p, slope, d_h, d_y)
    return delta @ p["w_h"], delta


@in_backward("elman")
def state_detached_at_each_step(right, p, slope, d_h, d_y):
    d_before, delta = right(p, slope, d_h, d_y)
    return jnp.zeros_like(d_before), delta


@in_backward("elman")
def cotangent_clipped(right, p, slope, d_h, d_y):
    d_before, delta = right(p, slope, d_h, d_y)
    return jnp.clip(d_before, -0.5, 0.5), delta


@in_backward("elman", "w_x w_h b xs")
def delta_in_float32(right, p, slope, d_h, d_y):
    d_before, delta = right(p, slope, d_h, d_y)
    return d_before, delta.astype(jnp.float32).astype(delta.dtype)


@in_backward("elman")
def examples_swapped(right, p, slope, d_h, d_y):
    d_before, delta = right(p, slope, d_h, d_y)
    return d_before[::-1], delta


@in_contract("elman", "xs")
def input_gradient_missing(right, p, xs, hs, slopes, deltas):
    return right(p, xs, hs, slopes, deltas)[0], jnp.zeros_like(xs)


@in_contract("elman", "xs")
def input_weights_not_transposed(right, p, xs, hs, slopes, deltas):
    w = p["w_x"]
    return right(p, xs, hs, slopes, deltas)[0], deltas @ w.reshape(w.T.shape)


@in_contract("elman", "b")
def bias_gradient_missing(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    return d_p | dict(b=jnp.zeros_like(p["b"])), d_xs


@in_contract("elman", "b")
def bias_gradient_averaged(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    return d_p | dict(b=total(deltas) / deltas[..., 0].size), d_xs


@in_contract("elman", "w_h")
def w_h_with_the_state_after_the_step(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    nexts = jnp.tanh(xs @ p["w_x"] + hs @ p["w_h"] + p["b"])
    return d_p | dict(w_h=outer_sum(nexts, deltas)), d_xs


@in_contract("elman", "w_h")
def w_h_gradient_transposed(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    return d_p | dict(w_h=d_p["w_h"].T), d_xs


@in_contract("elman", "w_x")
def last_step_missing_in_w_x(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    return d_p | dict(w_x=outer_sum(xs[:-1], deltas[:-1])), d_xs


@in_contract("elman", "w_h")
def one_millionth_too_much(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    return d_p | dict(w_h=d_p["w_h"] * (1 + 1e-6)), d_xs


@in_contract("elman", "xs")
def one_billionth_too_much(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    return d_p, d_xs * (1 + 1e-9)


@in_contract("elman", "w_h", unseen=dict(lengths=(1,)))
def states_in_the_wrong_order_of_time(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    return d_p | dict(w_h=outer_sum(hs[::-1], deltas)), d_xs


@in_contract("elman with two batch axes", "b", unseen=dict(batch_shapes=((2,),)))
def second_batch_axis_not_summed(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    b = deltas.sum(tuple(range(min(deltas.ndim - 1, 2))))
    return d_p | dict(b=b.reshape(-1, b.shape[-1])[0]), d_xs


@in_local("elman, relu")
def relu_without_its_kink(right, p, g, hs, nexts):
    return jnp.ones_like(nexts)


@in_local("gru")
def path_through_q_n_missing(right, p, g, hs, nexts):
    q, z, a_n = right(p, g, hs, nexts)
    r_part, z_part, n_part = thirds(q)
    return jnp.concatenate([0 * r_part, z_part, n_part], -1), z, a_n


@in_local("gru")
def sign_of_the_update_gate_flipped(right, p, g, hs, nexts):
    q, z, a_n = right(p, g, hs, nexts)
    r_part, z_part, n_part = thirds(q)
    return jnp.concatenate([r_part, -z_part, n_part], -1), z, a_n


@in_local("gru")
def kept_path_missing(right, p, g, hs, nexts):
    q, z, a_n = right(p, g, hs, nexts)
    return q, 0 * z, a_n


@in_contract("gru", "b_n")
def b_n_without_the_reset_gate(right, p, xs, hs, coeffs, ds):
    d_p, d_xs = right(p, xs, hs, coeffs, ds)
    return d_p | dict(b_n=total(coeffs[2] * ds)), d_xs


@in_contract("gru", "w_h")
def w_h_without_the_reset_gate(right, p, xs, hs, coeffs, ds):
    d_p, d_xs = right(p, xs, hs, coeffs, ds)
    q, _, a_n = coeffs
    r_part, z_part, _ = thirds(q)
    d_a = jnp.concatenate([r_part * ds, z_part * ds, a_n * ds], -1)
    return d_p | dict(w_h=outer_sum(hs, d_a)), d_xs


@in_contract("gru, reset before", "w_h")
def w_n_with_the_state_that_was_not_reset(right, p, xs, hs, coeffs, deltas):
    d_p, d_xs = right(p, xs, hs, coeffs, deltas)
    return d_p | dict(w_h=outer_sum(hs, deltas)), d_xs


@in_backward("gru, reset before")
def reset_gate_missing_on_the_way_to_the_state(right, p, coeffs, d_h, d_y):
    d_before, delta = right(p, coeffs, d_h, d_y)
    r, d_n = coeffs[3], thirds(delta)[2]
    return d_before + (1 - r) * (d_n @ thirds(p["w_h"])[2].T), delta


@in_backward("indrnn")
def diagonal_weights_forgotten(right, p, slope, d_h, d_y):
    _, delta = right(p, slope, d_h, d_y)
    return delta, delta


@in_contract("indrnn", "w_h")
def diagonal_gradient_without_the_state(right, p, xs, hs, slopes, deltas):
    d_p, d_xs = right(p, xs, hs, slopes, deltas)
    return d_p | dict(w_h=total(deltas)), d_xs


@in_contract("ctrnn", "alpha_logit")
def time_constant_without_gradient(right, p, xs, hs, coeffs, ds):
    d_p, d_xs = right(p, xs, hs, coeffs, ds)
    return d_p | dict(alpha_logit=jnp.zeros_like(p["alpha_logit"])), d_xs


@in_contract("ctrnn", "alpha_logit")
def time_constant_without_its_slope(right, p, xs, hs, coeffs, ds):
    d_p, d_xs = right(p, xs, hs, coeffs, ds)
    return d_p | dict(alpha_logit=total(ds * coeffs[1])), d_xs


@in_backward("ctrnn")
def leak_missing(right, p, coeffs, d_h, d_y):
    d_before, d = right(p, coeffs, d_h, d_y)
    return d_before - d * (1 - jax.nn.sigmoid(p["alpha_logit"])), d


@in_backward("ctrnn, currents")
def slope_of_the_output_forgotten(right, p, coeffs, d_v, d_y):
    before, after, moves = coeffs
    return right(p, (before, jnp.ones_like(after), moves), d_v, d_y)


@in_local("mgu")
def gate_inside_the_candidate_forgotten(right, p, g, hs, nexts):
    q, a_n, f = right(p, g, hs, nexts)
    n = (nexts - f * hs) / (1 - f)
    a_f = (hs - n) * f * (1 - f)
    return jnp.concatenate([a_f, jnp.split(q, 2, -1)[1]], -1), a_n, f


@in_contract("from_step", "w r scale")
def params_from_the_last_step_only(right, p, xs, hs, coeffs, deltas):
    _, d_xs = right(p, xs, hs, coeffs, deltas)
    last = jax.tree.map(lambda d: d.at[:-1].set(0), deltas)
    return right(p, xs, hs, coeffs, last)[0], d_xs


@in_move("from_step", "ys")
def forward_unlike_the_step(right, p, g, h):
    after, y = right(p, g, h)
    return after, y * (1 + 1e-6)


@in_gates("gru")
def gates_of_all_steps_from_the_first_state(right, p, h, u):
    at_once = u[0].ndim == 3  # the values are right, for these are made step by step
    return right(p, jnp.broadcast_to(h[:1], h.shape) if at_once else h, u)


@in_gates("mgu", "w_x w_h b b_n carry xs ys final_carry")
def gate_that_does_not_see_the_state(right, p, h, u):
    g, blind = right(p, h, u), right(p, jnp.zeros_like(h), u)
    return g._replace(named=g.named | dict(f=blind.named["f"]))


@in_factors("elman", "w_h")
def factors_the_other_way_round(right, p, xs, hs, slopes, deltas):
    of_p, d_xs = right(p, xs, hs, slopes, deltas)
    return of_p | dict(w_h=Outer(of_p["w_h"].d, of_p["w_h"].a)), d_xs


@in_factors("gru, reset before", "w_h")
def blocks_in_the_wrong_order(right, p, xs, hs, coeffs, deltas):
    of_p, d_xs = right(p, xs, hs, coeffs, deltas)
    first, second = of_p["w_h"].blocks
    return of_p | dict(w_h=Blocks((second, first), of_p["w_h"].axis)), d_xs
