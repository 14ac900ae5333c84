"""One step after another, each a few kernels: what every other loop is defined as."""

from jax import lax

from bptt_jax.types import Loop


def _prepare(cell, params):
    del cell
    return params


def _forward(cell, params, carry, us, keep, length):
    def step(carry, u):
        gates = cell.vjp.gates(params, carry, u)
        after, y = cell.vjp.move(params, gates, carry)
        return after, (y, keep(params, carry, u, gates, after))

    carry, (ys, kept) = lax.scan(step, carry, us, length)
    return carry, ys, kept


def _backward(cell, params, coeffs, d_carry, d_ys):
    def step(d_carry, at):
        return cell.vjp.backward(params, at[0], d_carry, at[1])

    return lax.scan(step, d_carry, (coeffs, d_ys), reverse=True)


def _supports(cell, shapes, platform):
    del cell, shapes, platform
    return None


step_by_step = Loop("loops.step_by_step", _prepare, _forward, _backward, _supports)
"""`lax.scan` over steps, each way. It runs every cell, on every platform."""
