"""Backpropagation through time over one stretch of it.

With `s_t` the state after step t, `u_t = project(x_t)` and L the loss,

    (1)  s_t, y_t = forward(s_{t-1}, u_t)                                  t = 1 … K

and with `d s_t` the cotangent of s_t that comes from *later* steps (at t = K the
cotangent of the final carry), the chain rule going backward in time is

    (2)  d s_{t-1}, delta_t = backward(coeffs_t; d s_t, d y_t)             t = K … 1

which is linear in (d s_t, d y_t), with coefficients that depend on the stored states
alone. Hence the three parts of the backward pass below: the coefficients of all steps
at once, (2) alone in the sequential loop, and every weight gradient as one product
over all steps of the stretch,

    (3)  dL/dW = Σ_t  a_t ⊗ delta_t                a_t: what W was multiplied with.

Cost over K steps: the forward's products once in `fwd`; in `bwd` about three times
that (linearize, the loop, contract). Residuals: the states after each step, without
the leaves that are outputs anyway: O(K·B·H).

Werbos (1990), "Backpropagation through time: what it does and how to do it".
"""

from collections.abc import Callable

import jax
from jax import lax

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax._factory import expect, factory
from bptt_jax.cells import add_output, masked, recognised, resets
from bptt_jax.types import Cell, Layer, PyTree, Seen, Side, Watched


def _ready(cell: Cell, params, carry, xs, side: Side) -> tuple[Cell, Cell, PyTree]:
    """The cell with its output known where that can be, and what `_with_side` makes."""
    inputs = (xs, side.keys) if cell.keyed else xs
    cell = recognised(cell, params, carry, inputs)
    return cell, *_with_side(cell, xs, side)


def _with_side(cell: Cell, xs: PyTree, side: Side) -> tuple[Cell, PyTree]:
    """The cell wrapped by the fields that are there, and the inputs it then takes.

    The order matters: a reset is an event before step t, whether step t is real or not.
    """
    if cell.keyed:
        xs = (xs, trees.typed_keys(side.keys))
    if side.mask is not None:
        cell, xs = masked(cell), (xs, side.mask)
    if side.resets is not None:
        cell, xs = resets(cell), (xs, side.resets)
    return cell, xs


def _inputs_of(cell: Cell, side: Side, d_xs: PyTree) -> PyTree:
    """The cotangent of the inputs alone, out of that of what `_with_side` made."""
    for there in (side.resets is not None, side.mask is not None, cell.keyed):
        d_xs = d_xs[0] if there else d_xs
    return d_xs


def output_leaves(cell: Cell, carry: PyTree) -> list[int]:
    """For each leaf of y the index of the carry's leaf that it is; [] if there is none."""
    structure = jax.tree.structure(carry)
    numbered = structure.unflatten(range(structure.num_leaves))
    found = jax.tree.leaves(cell.output(numbered)) if cell.output else []
    if any(not isinstance(i, int) for i in found):
        raise TypeError(
            "output: expected leaves of the carry as they are, got something made of "
            "them; None where the output is no part of the state"
        )
    return found


def _check_step(cell: Cell, params: PyTree, carry: PyTree, xs: PyTree) -> PyTree:
    """The carry, spread over devices as a step returns it.

    Refused is one that a step would not give back in the same shape and dtype, and a step
    that gives no pair.

    Args:
      cell: without mask and resets.
      params, carry: as it takes them.
      xs: of some steps.
    """

    def first(params, xs):
        return jax.tree.map(lambda a: a[0], (cell.vjp.project(params, xs), xs))

    u, x = jax.eval_shape(first, params, xs)
    try:
        with jax.numpy_dtype_promotion("standard"):
            result = jax.eval_shape(cell.vjp.forward, params, carry, u)
    except (TypeError, ValueError) as error:
        raise _blamed(cell, params, carry, x, error) from error
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise TypeError(
            f"cell: expected a step to return a pair (carry, y), got {type(result).__name__}"
        )
    after, y = result
    _check_carry(carry, after)
    if callable(cell.output):
        said = jax.eval_shape(cell.output, after)
        if _kinds(said) != _kinds(y):
            raise ValueError(
                f"output: expected the leaves of the carry that are y, {_show(y)}, got "
                f"{_show(said)}"
            )
    return shardings.like(after, carry)


def _check_carry(carry: PyTree, after: PyTree) -> None:
    if jax.tree.structure(after) != jax.tree.structure(carry):
        raise ValueError(
            f"carry: expected the structure {jax.tree.structure(after)} that a step "
            f"returns, got {jax.tree.structure(carry)}"
        )
    for (path, c), a in zip(
        jax.tree_util.tree_leaves_with_path(carry), jax.tree.leaves(after), strict=True
    ):
        if (c.shape, c.dtype) != (a.shape, a.dtype):
            kind = ValueError if c.shape != a.shape else TypeError
            raise kind(
                f"carry{jax.tree_util.keystr(path)}: a step returns {_show(a)}, the carry "
                f"given is {_show(c)}; make it with init_carry(params, batch_shape), and "
                "inputs, carry and params of one dtype"
            )


def _blamed(cell: Cell, params, carry, x, error: Exception) -> Exception:
    """What to raise where a step raised: it is the carry's fault only if that is not
    what `init_carry` makes for these inputs.
    """
    kind = TypeError if isinstance(error, TypeError) else ValueError
    told = f"the step raised {type(error).__name__}: {error}"
    shape = jax.tree.leaves(x)[0].shape
    fresh = []
    for batch in (shape[:-1], shape):  # of features, of symbols
        try:
            fresh.append(
                jax.eval_shape(lambda p, b=batch: cell.init_carry(p, b), params)
            )
        except (TypeError, ValueError):
            return kind(told)
    if any(_kinds(made) == _kinds(carry) for made in fresh):
        return kind(told)
    return ValueError(
        f"carry: for these inputs init_carry(params, {shape[:-1]}) gives "
        f"{_show(fresh[0])}, got {_show(carry)}, which a step does not take: {error}"
    )


def _kinds(tree: PyTree) -> tuple:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(a.shape, a.dtype) for a in leaves]


def _show(tree: PyTree) -> str:
    return ", ".join(f"{a.dtype}{list(a.shape)}" for a in jax.tree.leaves(tree))


@factory
def recurrent(cell: Cell, on_d_carry: Callable | None = None) -> Layer:
    """A cell over a stretch of time, with its hand-derived backward.

    Args:
      cell: the recurrent step.
      on_d_carry: `(d_carry, aux_t) -> d_carry`, edits the cotangent of the state that
        comes from later steps, before each step is pulled back (to clip, detach or
        scale it); `aux_t` is `side.aux` at that step. Skipped where `side.mask` is
        False. A function that closes over no arrays. It changes the gradient of
        `unrolls.bptt` alone: `unrolls.scan` is differentiated by JAX.

    Returns:
      A `Layer` with the parameters and the carry of the cell.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, layers, unrolls
    >>> layer = layers.recurrent(cells.elman(3, 5))
    >>> params = layer.init(jax.random.key(0))
    >>> carry, ys = unrolls.bptt(layer, params, layer.init_carry(params, (2,)),
    ...                          jnp.ones((7, 2, 3)))
    >>> ys.shape
    (7, 2, 5)
    """
    expect(Cell, cell=cell)
    return _recurrent(cell, on_d_carry, None)


@factory
def _recurrent(
    cell: Cell, on_d_carry: Callable | None, watch: Callable | None
) -> Layer:
    """`recurrent`; with a `watch` that does (3) and shows what it sees."""

    def fwd(params, carry, xs, side):
        given = (xs, side.keys) if cell.keyed else xs
        carry = _check_step(cell, params, carry, given)
        known, wrapped, inputs = _ready(cell, params, carry, xs, side)
        us = wrapped.vjp.project(params, inputs)
        outputs = output_leaves(known, carry)

        def step(carry, u):  # (1)
            carry, y = wrapped.vjp.forward(params, carry, u)
            kept = [a for i, a in enumerate(jax.tree.leaves(carry)) if i not in outputs]
            return carry, (y, kept)

        carry, (ys, residuals) = lax.scan(step, carry, us, trees.length(xs, side))
        return carry, ys, residuals

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        known, wrapped, inputs = _ready(cell, params, carry, xs, side)
        nexts = _states(output_leaves(known, carry), carry, ys, residuals)
        carries = trees.before(carry, nexts)
        us = wrapped.vjp.project(params, inputs)
        coeffs = wrapped.vjp.linearize(params, carries, us, nexts)

        def step(d_carry, at):  # (2)
            coeff, d_y, aux, real = at
            if on_d_carry is not None:
                edited = on_d_carry(d_carry, aux)
                d_carry = edited if real is None else trees.where(real, edited, d_carry)
            d_before, delta = wrapped.vjp.backward(params, coeff, d_carry, d_y)
            return d_before, (delta, d_carry if watch else None)

        along = (coeffs, d_ys, *((side.aux, side.mask) if on_d_carry else (None, None)))
        d_carry, (deltas, d_laters) = lax.scan(step, d_carry, along, reverse=True)
        summed = params, inputs, carries, coeffs, deltas
        if watch is None:
            d_params, d_inputs = wrapped.vjp.contract(*summed)  # (3)
        else:
            d_states = add_output(known, d_laters, d_ys)
            (d_params, d_inputs), shown = watch(Seen(wrapped, *summed, d_states, side))
            d_params = Watched(d_params, shown)
        d_xs = trees.cast_like(xs, _inputs_of(cell, side, d_inputs))
        return d_params, d_carry, d_xs, None

    def watched(watch):
        return _recurrent(cell, on_d_carry, watch)

    return Layer(cell.init, cell.init_carry, fwd, bwd, watched)


def _states(outputs: list[int], carry: PyTree, ys: PyTree, residuals: list) -> PyTree:
    """The states after each step: leaves that are outputs come from `ys`."""
    ys, kept, structure = (
        jax.tree.leaves(ys),
        iter(residuals),
        jax.tree.structure(carry),
    )
    return structure.unflatten(
        [
            ys[outputs.index(i)] if i in outputs else next(kept)
            for i in range(structure.num_leaves)
        ]
    )
