"""A user's own step, with the derivative that `jax.vjp` gives, cut as BPTT wants it.

    (1)  d s_{t-1} = (d s_t, d y_t) · ∂step/∂s               at each step, weights shared
    (2)  d θ, d x  = Σ_t (d s_t, d y_t) · ∂step/∂(θ, x_t)    one contraction over all steps

so no copy of the weights is stored for a step and no weight gradient is summed in the
loop. What a step's delta must hold for (2) is its own cotangent, (d s_t, d y_t).
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bptt_jax import _pytrees as trees
from bptt_jax._factory import factory
from bptt_jax.types import (
    Cell,
    CellOutput,
    CellStep,
    Gates,
    Init,
    InitCarry,
    PyTree,
    StepVJP,
    Summed,
    Unsaid,
)


def closed_over(f: Any, name: str, seen: set | None = None):
    """The arrays that a function holds in its closure, defaults or globals: `(name, array)`."""
    seen = set() if seen is None else seen
    if id(f) in seen:
        return
    seen.add(id(f))
    if isinstance(f, jax.Array):
        yield name, f
    elif isinstance(f, functools.partial):
        for part in (f.func, *f.args, *f.keywords.values()):
            yield from closed_over(part, name, seen)
    elif isinstance(f, types.MethodType):
        yield from closed_over(f.__func__, name, seen)
    elif isinstance(f, types.FunctionType):
        held = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
        for key, cell in held.items():
            try:
                yield from closed_over(cell.cell_contents, key, seen)
            except ValueError:  # not bound yet: a function that names itself
                continue
        for key in f.__code__.co_names:
            value = f.__globals__.get(key)
            if isinstance(value, jax.Array | types.FunctionType):
                yield from closed_over(value, key, seen)
        for value in (*(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()):
            yield from closed_over(value, name, seen)
    elif isinstance(f, tuple | list | dict):
        for value in f.values() if isinstance(f, dict) else f:
            yield from closed_over(value, name, seen)


def refuse_arrays(**functions: Callable | None) -> None:
    for role, f in functions.items():
        for name, array in closed_over(f, role):
            raise TypeError(
                f"{role} closes over the array {name!r} ({array.dtype}{list(array.shape)}"
                "); make it an argument: a leaf of params (or of xs), so that it is "
                "differentiated and can be batched"
            )


def _none_where_empty(x):
    """`unrolls` stand inputs of no features in for `xs=None`."""
    empty = [a for a in jax.tree.leaves(x) if not (trees.is_key(a) or np.size(a))]
    return None if empty and len(empty) == len(jax.tree.leaves(x)) else x


@factory
def from_step(
    step: CellStep,
    init: Init,
    init_carry: InitCarry,
    *,
    output: CellOutput | Unsaid | None = Unsaid(),
    gates: Callable[[PyTree, PyTree, PyTree], dict[str, jax.Array]] | None = None,
    keyed: bool = False,
    name: str = "",
) -> Cell:
    """A cell from a step `(params, carry, x) -> (carry, y)` written in JAX.

    Args:
      step: takes leading batch axes if it is to be used with them. With `xs=None` its
        `x` is None. It may not close over a `jax.Array` or a tracer.
      init: `(key) -> params`.
      init_carry: `(params, batch_shape) -> carry`.
      output: `(carry) -> y`, a selection of the carry's leaves, where the output is a
        part of the state; None: it is not. Where it is not said, layers find it in a
        trace of the step: it is a part where `y` is the very array that is returned in
        the carry. Where that cannot be seen, diagnoses that look at dL/ds_t ask to be
        told.
      gates: `(params, carry, x) -> {name: [..., H]}`, from the carry before the step, of
        one step or of all at once, for `diagnose.activity`.
      keyed: whether `x` is `(x, key)`, with the step's key of `Side.keys`, None where
        there are none.
      name: of the equations, for tables.

    Returns:
      A cell that obeys the laws of the hand-derived ones. Cost: the backward evaluates
      `step` twice at each step, and its weight-gradient part once for all steps.

    Raises:
      TypeError: a function closes over an array, or `output` is no function.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells
    >>> leaky = cells.from_step(
    ...     lambda p, h, x: 2 * (0.9 * h + jnp.tanh(x @ p["w"]),),
    ...     lambda key: dict(w=jax.random.normal(key, (3, 4))),
    ...     lambda p, batch_shape: jnp.zeros((*batch_shape, 4)))
    """
    refuse_arrays(step=step, init=init, init_carry=init_carry, gates=gates)
    if not (output is None or isinstance(output, Unsaid) or callable(output)):
        raise TypeError(f"output: expected a function of the carry, got {output!r}")

    def call(params, carry, x):
        x = (_none_where_empty(x[0]), x[1]) if keyed else _none_where_empty(x)
        return step(params, carry, x)

    def gates_of(params, carry, x):
        return x if gates is None else Gates(gates(params, carry, x), x)

    def move(params, g, carry):
        return call(params, carry, g if gates is None else g.rest)

    def local(params, g, carries, nexts):
        del params, nexts
        return carries, g if gates is None else g.rest

    def backward(params, coeffs, d_carry, d_y):
        carry, x = coeffs
        _, back = trees.pullback(lambda c: call(params, c, x), carry)
        (d_before,) = back((d_carry, d_y))  # (1)
        return d_before, (d_carry, d_y)

    def factors(params, xs, carries, coeffs, deltas):
        del coeffs
        over_time = jax.vmap(call, (None, 0, 0))
        _, back = trees.pullback(lambda p, xs: over_time(p, carries, xs), params, xs)
        d_params, d_xs = back(deltas)  # (2)
        return jax.tree.map(Summed, d_params), d_xs

    def project(params, xs):
        del params
        return xs

    vjp = StepVJP(project, gates_of, move, local, backward, factors)
    return Cell(init, init_carry, call, vjp, output, keyed, name)
