"""Backpropagation through time over one stretch of it.

With `s_t` the state after step t, `u_t = project(x_t)` and L the loss,

    (1)  s_t, y_t = move(gates(s_{t-1}, u_t), s_{t-1})                     t = 1 … K

and with `d s_t` the cotangent of s_t that comes from *later* steps (at t = K the
cotangent of the final carry), the chain rule going backward in time is

    (2)  d s_{t-1}, delta_t = backward(coeffs_t; d s_t, d y_t)             t = K … 1

which is linear in (d s_t, d y_t), with coefficients that depend on the stored states
alone. Hence the three parts of the backward pass: the coefficients of all steps at once,
(2) alone in the sequential loop, and every weight gradient as one product over all steps
of the stretch. How a stretch runs, each way, is a `Loop`'s, what is kept between the two a
`Save`'s, and what is beside the inputs (masks, resets, hooks) is wrapped around the cell,
so that none of them knows the others (decisions 0014 to 0016, 0019).

    (3)  dL/dW = Σ_t  a_t ⊗ delta_t                a_t: what W was multiplied with.

Cost over K steps: the forward's products once in `fwd`; in `bwd` about three times
that (the coefficients, the loop, the sums). Residuals: the states after each step,
without the leaves that are outputs anyway, and what `save` adds: O(K·B·H).

Werbos (1990), "Backpropagation through time: what it does and how to do it".
"""

import dataclasses
import functools

import jax

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax._factory import expect, factory
from bptt_jax.cells import (
    Hook,
    add_output,
    forward,
    hooked,
    output_leaves,
    recognised,
    watching,
    with_side,
    without_side,
)
from bptt_jax.layers._again import again
from bptt_jax.layers._save import NOTHING, STATES, by_shapes
from bptt_jax.loops import first_of, recurrence
from bptt_jax.types import (
    Cell,
    Layer,
    Loop,
    OnDCarry,
    PyTree,
    Recurrent,
    Save,
    Seen,
    Side,
    Watched,
)


def _ready(part: Recurrent, params, carry, xs, side: Side) -> tuple[Cell, Cell, PyTree]:
    """The cell with its output known where that can be; it within all that is beside it,
    and the inputs that it then takes.
    """
    cell = part.cell
    cell = recognised(cell, params, carry, (xs, side.keys) if cell.keyed else xs)
    wrapped, xs = with_side(cell, xs, side)
    if part.watch is not None:
        wrapped = watching(wrapped)
    if part.on_d_carry is not None:
        wrapped, xs = hooked(wrapped, part.on_d_carry), (xs, Hook(side.aux, side.mask))
    return cell, wrapped, xs


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
            result = jax.eval_shape(functools.partial(forward, cell), params, carry, u)
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
def recurrent(
    cell: Cell,
    on_d_carry: OnDCarry | None = None,
    *,
    loop: Loop | None = None,
    save: Save | None = None,
) -> Layer:
    """A cell over a stretch of time, with its hand-derived backward.

    Args:
      cell: the recurrent step.
      on_d_carry: `(d_carry, aux_t) -> d_carry`, edits the cotangent of the state that
        comes from later steps, before each step is pulled back (to clip, detach or
        scale it); `aux_t` is `side.aux` at that step. Skipped where `side.mask` is
        False. A function that closes over no arrays. It changes the gradient of
        `unrolls.bptt` alone: `unrolls.scan` is differentiated by JAX.
      loop: how the two recurrences are run, see `bptt_jax.loops`; None: the first that
        supports the case.
      save: what is kept for the way back, `layers.STATES`, `GATES`, `some_gates`,
        `COEFFICIENTS` or `NOTHING`; the gradient is the same; None: by the shapes, see
        `layers.by_shapes`.

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
    return made(Recurrent(cell, on_d_carry, loop, save))


@factory
def made(part: Recurrent) -> Layer:
    """`recurrent` by the record of its arguments, for `Layer.over`.

    With a `watch` that does (3) and shows what it sees.

    >>> from bptt_jax import cells, layers
    >>> model = layers.stack(cells.lstm(3, 8), layers.dense(8, 2))
    >>> faster = model.over(lambda part: layers.made(part._replace(save=layers.GATES)))
    """
    _check(part)
    if part.save == NOTHING:
        return again(made(part._replace(save=STATES)))._replace(over=lambda f: f(part))
    cell, watch = part.cell, part.watch

    def fwd(params, carry, xs, side):
        given = _given(cell, xs, side)
        carry = _check_step(cell, params, carry, given)
        known, wrapped, inputs = _ready(part, params, carry, xs, side)
        save = part.save or by_shapes(cell, params, carry, given)
        keep = _Keep(wrapped, save, tuple(output_leaves(known, carry)))
        loop = first_of(part.loop, wrapped, save, params, carry, inputs)
        length = trees.length(xs, side)
        return loop.forward(wrapped, params, carry, inputs, keep, length)  # (1)

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        known, wrapped, inputs = _ready(part, params, carry, xs, side)
        given = _given(cell, xs, side)
        save = part.save or by_shapes(cell, params, carry, given)
        states, kept = residuals
        nexts = _states(output_leaves(known, carry), carry, ys, states)
        stretch = params, inputs, carry, nexts, kept, d_carry, d_ys
        if watch is None:
            loop = first_of(part.loop, wrapped, save, params, carry, inputs)
            d_params, d_carry, d_inputs = loop.backward(
                wrapped, save, *stretch
            )  # (2), (3)
        else:
            look = watch
            unwatched = _ready(part._replace(watch=None), params, carry, xs, side)[1]

            def show(seen, d_laters):
                d_states = add_output(known, d_laters, d_ys)
                return look(Seen(unwatched, *seen, d_states, side))

            d_params, d_carry, d_inputs = _watched(wrapped, save, show, *stretch)
        d_inputs = d_inputs if part.on_d_carry is None else d_inputs[0]
        d_xs = trees.cast_like(xs, without_side(cell, side, d_inputs))
        return d_params, d_carry, d_xs, None

    return Layer(
        cell.init,
        cell.init_carry,
        fwd,
        bwd,
        lambda f: f(part),
        only_recurrent=watch is None,
    )


def _given(cell: Cell, xs, side: Side) -> PyTree:
    """Inputs as the cell takes them."""
    return (xs, side.keys) if cell.keyed else xs


@dataclasses.dataclass(frozen=True)  # equal ones are one static value
class _Keep:
    """What is kept of a step: the states that are no outputs, and what `save` says."""

    cell: Cell
    save: Save
    outputs: tuple[int, ...]

    def __call__(self, params, carry, u, gates, after):
        leaves = jax.tree.leaves(after)
        states = [a for i, a in enumerate(leaves) if i not in self.outputs]
        return states, self.save.keep(self.cell, params, carry, u, gates, after)


def _watched(
    cell, save: Save, show, params, inputs, carry, nexts, kept, d_carry, d_ys
) -> tuple:
    """The way back of a stretch that is looked at, which is step by step.

    Args:
      cell: watched.
      show: `((params, inputs, carries, coeffs, deltas), d_laters)` to what (3) gives and what
        is shown.
    """
    carries = trees.before(carry, nexts)
    coeffs = save.coeffs(cell, params, inputs, carries, nexts, kept)
    d_carry, found = recurrence(cell, params, coeffs, d_carry, d_ys)
    deltas, d_laters = found
    (d_params, d_inputs), shown = show(
        (params, inputs, carries, coeffs, deltas), d_laters
    )
    return Watched(d_params, shown), d_carry, d_inputs


def _check(part: Recurrent) -> None:
    expect(Cell, cell=part.cell)
    if part.loop is not None:
        expect(Loop, loop=part.loop)
    if part.save is not None:
        expect(Save, save=part.save)
    if not (part.on_d_carry is None or callable(part.on_d_carry)):
        raise TypeError(
            "on_d_carry: expected a function (d_carry, aux_t) -> d_carry, got a "
            f"{type(part.on_d_carry).__name__}"
        )


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
