"""A model of sections through all of time, part by part."""

import jax

from bptt_jax import _pytrees as trees
from bptt_jax import layers
from bptt_jax.types import Layer, PyTree, Sections, Side, Unroll, Whole
from bptt_jax.unrolls._door import arrays, check


def through(
    unroll: Unroll,
    model: Layer | Sections,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    length: int | None = None,
) -> tuple[tuple[PyTree, PyTree], Side]:
    """A model by `unroll`; one of sections part by part, each layer so.

    Returns:
      `(carry, ys)`, and the side that goes with the outputs.
    """
    if isinstance(model, Layer):
        return unroll(model, params, carry, xs, side), side
    params, carry, xs, side = arrays(params, carry, xs, side, length)
    check(model, params, carry, xs, side)
    keys, carries = side.keys, []
    for i, part in enumerate(model.parts):
        # the keys of all parts come from the same ones, so that no two can be alike
        side = side._replace(keys=None if keys is None else keys[: trees.length(xs)])
        own, after = layers.of_part(side, i), ()
        if isinstance(part, Layer):
            after, xs = unroll(part, params[i], carry[i], xs, own)
        else:
            xs, side = _applied(f"parts[{i}]", part, params[i], xs, own)
        carries.append(after)
    return (tuple(carries), xs), side


def _applied(name: str, part: Whole, params, xs, side: Side) -> tuple[PyTree, Side]:
    found = part.apply(params, xs, side)
    if not (
        isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Side)
    ):
        raise TypeError(
            f"{name}: expected a Whole to return (ys, side), got {type(found).__name__}"
        )
    ys, after = found
    after = after._replace(keys=None)
    steps = {a.shape[0] if a.ndim else 0 for a in jax.tree.leaves(ys)}
    if len(steps) != 1 or not 1 <= max(steps) <= trees.length(xs):
        raise ValueError(
            f"{name}: expected outputs of one number of steps, from 1 to {trees.length(xs)}, "
            f"got leaves {[list(a.shape) for a in jax.tree.leaves(ys)]}"
        )
    for path, a in jax.tree_util.tree_leaves_with_path(after):
        if not a.ndim or {a.shape[0]} != steps:
            raise ValueError(
                f"{name}: expected side{jax.tree_util.keystr(path)} of the {max(steps)} steps "
                f"of its outputs, got {list(a.shape)}; wholes.one_step is the side of a pool"
            )
    return ys, after
