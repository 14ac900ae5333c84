"""One step at a time, for what is asked again after each: a server, a policy, a controller."""

import functools

import jax

from bptt_jax import _pytrees as trees
from bptt_jax.layers import made, refuse_sections
from bptt_jax.loops import step_by_step
from bptt_jax.types import Cell, Layer, PyTree, Side
from bptt_jax.unrolls._door import arrays, check, in_given_shapes, lift, refuse, spread


def step(
    model: Layer | Cell,
    params: PyTree,
    carry: PyTree,
    x: PyTree,
    side: Side = Side(),
    *,
    context: PyTree = (),
) -> tuple[PyTree, PyTree]:
    """One step of a model: what the unrolls do T times.

    Compiled once for each model and shape, and run step by step whatever loop the model has:
    a kernel for a stretch of time is none for a step. T calls give the outputs of
    `unrolls.scan`.

    Args:
      model: a cell or a layer.
      params: its parameters.
      carry: the state, leaves `[..., H]`, which `init_carry(params, batch_shape)` makes.
      x: inputs of one step, leaves `[..., I]`; None: no inputs.
      side: of one step, without the axis of time: where `mask` is False the state stays,
        where `resets` is True it is made anew before the step; one key.
      context: as of the other unrolls; it has no axis of time anyway.

    Returns:
      The state after it, and the outputs `[..., O]`.

    Raises:
      TypeError, ValueError: arguments do not fit, said of them as of a stretch of one step.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, cells, unrolls
    >>> cell = cells.gru(3, 4)
    >>> params = cell.init(jax.random.key(0))
    >>> carry = cell.init_carry(params, (2,))
    >>> side = Side(resets=jnp.array([True, False]))  # an episode begins in the first row
    >>> carry, y = unrolls.step(cell, params, carry, jnp.ones((2, 3)), side)
    >>> y.shape
    (2, 4)
    """
    refuse_sections("step", model, "it runs one step and hands the state on")
    side = side._replace(keys=trees.typed_keys(side.keys))
    xs, sides = jax.tree.map(_stretch, (x, side))
    layer = _by_steps(lift(model))
    length = None if jax.tree.leaves(xs) else 1
    given = arrays(params, carry, xs, sides, length, context)
    refuse(layer, *given)
    return _one(layer, *given)


def _stretch(a):
    return jax.numpy.asarray(a)[None]


@functools.cache
def _by_steps(layer: Layer) -> Layer:
    if layer.over is None:
        return layer
    return layer.over(lambda part: made(part._replace(loop=step_by_step)))


@functools.partial(jax.jit, static_argnums=0)
def _one(layer, params, carry, xs, side):
    check(layer, params, carry, xs, side)
    carry = spread(layer, params, carry, xs, side)
    at = params, carry, xs, side
    carry, ys, _ = in_given_shapes(lambda: layer.fwd(*at), layer, *at)
    return carry, jax.tree.map(lambda a: a[0], ys)
