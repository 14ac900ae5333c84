"""Wrong ways to keep what the way back needs, and to run the loops of a stretch."""

import jax
import jax.numpy as jnp
from jax import lax

from bptt_jax import _pytrees as trees
from bptt_jax import cells, layers, loops
from verify.mutants._table import in_layer


def _kept(cell, save, **parts):
    return layers.recurrent(cell, save=save._replace(**parts))


@in_layer("lstm, gates kept")
def gates_of_the_step_before(right):
    del right

    def coeffs(cell, params, xs, carries, nexts, kept):
        kept = jax.tree.map(lambda a: jnp.roll(a, 1, 0), kept)
        return layers.GATES.coeffs(cell, params, xs, carries, nexts, kept)

    return _kept(cells.lstm(3, 4), layers.GATES, coeffs=coeffs)


@in_layer("lstm, gates kept")
def gates_kept_of_the_state_after_the_step(right):
    del right

    def keep(cell, params, carry, u, gates, after):
        return layers.GATES.keep(
            cell, params, carry, u, cell.vjp.gates(params, after, u), after
        )

    return _kept(cells.lstm(3, 4), layers.GATES, keep=keep)


@in_layer("gru, coefficients kept")
def coefficients_of_the_state_after_the_step(right):
    del right

    def keep(cell, params, carry, u, gates, after):
        return layers.COEFFICIENTS.keep(cell, params, after, u, gates, after)

    return _kept(cells.gru(3, 4), layers.COEFFICIENTS, keep=keep)


def _with_recurrence(recurrence):
    """A loop whose way back through time is another: `(cell, params, coeffs, d_carry, d_ys)`."""

    def backward(cell, save, params, inputs, carry, nexts, kept, d_carry, d_ys):
        carries = trees.before(carry, nexts)
        coeffs = save.coeffs(cell, params, inputs, carries, nexts, kept)
        d_carry, deltas = recurrence(cell, params, coeffs, d_carry, d_ys)
        d_params, d_inputs = cells.contract(
            cell, params, inputs, carries, coeffs, deltas
        )
        return d_params, d_carry, d_inputs

    wrong = loops.step_by_step._replace(backward=backward)
    return layers.recurrent(cells.elman(3, 4), loop=wrong)


@in_layer("elman, in a loop")
def steps_pulled_back_from_the_beginning(right):
    del right

    def recurrence(cell, params, coeffs, d_carry, d_ys):
        def step(d_carry, at):
            return cell.vjp.backward(params, at[0], d_carry, at[1])

        return lax.scan(step, d_carry, (coeffs, d_ys))

    return _with_recurrence(recurrence)


@in_layer("elman, in a loop")
def later_steps_cut_off_in_the_loop(right):
    del right

    def recurrence(cell, params, coeffs, d_carry, d_ys):
        def step(d_carry, at):
            d_before, delta = cell.vjp.backward(params, at[0], d_carry, at[1])
            return jax.tree.map(jnp.zeros_like, d_before), delta

        return lax.scan(step, d_carry, (coeffs, d_ys), reverse=True)

    return _with_recurrence(recurrence)


@in_layer("elman, in a loop")
def the_way_back_with_other_weights(right):
    """The backward alone: values are right."""
    del right

    def backward(cell, save, params, *stretch):
        turned = params | dict(w_h=params["w_h"].T)
        return loops.step_by_step.backward(cell, save, turned, *stretch)

    wrong = loops.step_by_step._replace(backward=backward)
    return layers.recurrent(cells.elman(3, 4), loop=wrong)
