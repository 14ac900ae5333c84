"""Zoneout (Krueger et al. 2017): units that now and then keep their former value.

With s'_t the state that the inner cell would go to, and z_t of the shape of the state,
1 where a unit is zoned out and else 0, drawn with probability `rate` in training,

    (1)  s_t = z_t s_{t-1} + (1 - z_t) s'_t            s'_t, y'_t: of the inner cell
    (2)  y_t = the output leaves of s_t;  where the output is no state: y'_t

and without keys (evaluation) z_t = rate, its expectation. Backward:

    (3)  d         = d s_t, plus d y_t in the leaves that are outputs
    (4)  d s'_t    = (1 - z_t) d
    (5)  d s_{t-1} = z_t d + the inner backward of (d s'_t, 0);
                                     where the output is no state: of (d s'_t, d y_t)

z_t is drawn again in the backward, for all steps of a stretch at once, from one key for
each step; nothing is stored for it. Where an inner coefficient needs s'_t it is
computed once more from the gates, all at once. Leaves of the state that are not floating are never
zoned out.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax._factory import expect, factory
from bptt_jax.cells._masked import add_output
from bptt_jax.types import Cell, StepVJP


@factory
def zoneout(cell: Cell, rate: Any) -> Cell:
    """The cell with zoneout of its state; `x` is `(x, key)`.

    Users reach the keys by `Side(keys=…)`, one PRNG key for each step; without them the
    expectation is computed. All examples of a batch share a key and each has its own
    noise. The hand-derived derivative of the inner cell is kept; params and carry are
    the inner cell's.

    Args:
      cell: the inner cell; one that is keyed itself gets a key folded from the step's.
        Of a `from_step` cell whose output is a part of the state say `output=`, so that
        (2) holds for it.
      rate: probability in [0, 1] with which a unit keeps its value: a number, or a
        hashable pytree of numbers with the structure of the carry.

    Raises:
      ValueError: a rate is not in [0, 1], or has not the structure of the carry.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, cells, unrolls
    >>> cell = cells.zoneout(cells.lstm(3, 8), cells.LSTMCarry(h=0.05, c=0.5))
    >>> params = cell.init(jax.random.key(0))
    >>> carry, xs = cell.init_carry(params, (2,)), jnp.ones((5, 2, 3))
    >>> training = Side(keys=jax.random.split(jax.random.key(1), 5))
    >>> _, hs = unrolls.bptt(cell, params, carry, xs, training)
    >>> _, expected = unrolls.bptt(cell, params, carry, xs)
    >>> hs.shape
    (5, 2, 8)
    """
    expect(Cell, cell=cell)
    project, gates, move, local, backward, factors = cell.vjp
    rates = _rates(cell, rate)

    def inner(inputs):
        """The inputs that the inner cell takes."""
        xs, keys = inputs
        if not cell.keyed:
            return xs
        return xs, None if keys is None else _each(_inner_key, keys)

    def zone_out(keys, carry, after, y):
        zs, structure = _noise(keys, rates, carry, ()), jax.tree.structure(carry)
        each = zip(zs, jax.tree.leaves(carry), jax.tree.leaves(after), strict=True)
        after = [b if z is None else z * a + (1 - z) * b for z, a, b in each]  # (1)
        after = structure.unflatten(after)
        return after, cell.output(after) if cell.output else y  # (2)

    def step(params, carry, inputs):
        return zone_out(inputs[1], carry, *cell.step(params, carry, inner(inputs)))

    def zoned_project(params, inputs):
        return project(params, inner(inputs)), inputs[1]

    def zoned_gates(params, carry, u):
        u, key = u
        return gates(params, carry, u), key

    def zoned_move(params, g, carry):
        g, key = g
        return zone_out(key, carry, *move(params, g, carry))

    def zoned_local(params, g, carries, nexts):
        del nexts
        g, keys = g
        zs = _noise(keys, rates, carries, (trees.length(carries),))
        afters, _ = jax.vmap(move, (None, 0, 0))(params, g, carries)
        return local(params, g, carries, afters), zs

    def zoned_backward(params, coeffs, d_carry, d_y):
        coeffs, zs = coeffs
        if cell.output:
            d_carry = add_output(cell, d_carry, d_y)  # (3)
            d_y = jax.tree.map(jnp.zeros_like, d_y)
        ds, structure = jax.tree.flatten(d_carry, is_leaf=lambda d: d is None)
        pairs = list(zip(zs, ds, strict=True))
        d_after = [None if d is None else (1 - z) * d for z, d in pairs]  # (4)
        d_before, delta = backward(params, coeffs, structure.unflatten(d_after), d_y)
        kept = [None if d is None else z * d for z, d in pairs]
        return trees.add(d_before, structure.unflatten(kept)), delta  # (5)

    def zoned_factors(params, inputs, carries, coeffs, deltas):
        of_params, d_xs = factors(params, inner(inputs), carries, coeffs[0], deltas)
        return of_params, (d_xs[0] if cell.keyed else d_xs, None)

    return cell._replace(
        step=step,
        keyed=True,
        name=f"zoneout({cell.name})",
        vjp=StepVJP(
            zoned_project, zoned_gates, zoned_move, zoned_local, zoned_backward,
            zoned_factors,
        ),
    )  # fmt: skip


def _rates(cell: Cell, rate: Any) -> list[float]:
    """The rate of each leaf of the carry."""
    for r in jax.tree.leaves(rate):
        number = isinstance(r, int | float) and not isinstance(r, bool)
        if not number or not 0 <= r <= 1:
            raise ValueError(f"rate: expected numbers in [0, 1], got {rate!r}")

    def init_carry(key):
        return cell.init_carry(cell.init(key), ())

    structure = jax.tree.structure(jax.eval_shape(init_carry, jax.random.key(0)))
    if isinstance(rate, int | float):
        return [rate] * structure.num_leaves
    if jax.tree.structure(rate) != structure:
        raise ValueError(
            f"rate: expected a number or the structure of the carry, {structure}, "
            f"got {rate!r}"
        )
    return jax.tree.leaves(rate)


def _each(f: Callable, keys):
    """`f` of one key, or of each along time."""
    keys = trees.typed_keys(keys)
    return jax.vmap(f)(keys) if keys.ndim else f(keys)


def _inner_key(key):
    return jax.random.fold_in(key, 0)


def _noise(keys, rates: list[float], carry, steps: tuple[int, ...]) -> list:
    """For each leaf z, None where it is not floating; its rate where there are no keys."""

    def draw(i, rate, a):
        if not trees.is_floating(a):
            return None
        if keys is None:
            return jnp.full(steps, rate, a.dtype)

        def bernoulli(key):  # leaves after the inner key; float32 whatever x64 says
            key = jax.random.fold_in(key, 1 + i)
            return shardings.bernoulli(key, jnp.float32(rate), a, len(steps))

        return _each(bernoulli, keys).astype(a.dtype)

    leaves = zip(rates, jax.tree.leaves(carry), strict=True)
    return [draw(i, rate, a) for i, (rate, a) in enumerate(leaves)]
