"""Layers with functions of the whole sequence between them."""

import jax

from bptt_jax._factory import factory
from bptt_jax.layers._lift import lift
from bptt_jax.layers._stack import opened
from bptt_jax.types import Cell, Layer, Sections, Whole


@factory
def sections(*parts: Layer | Cell | Whole) -> Sections:
    """A model of layers and functions of the whole sequence, in a row.

    Through each layer time runs by itself, stretch by stretch, as through a model that is one
    layer; a `Whole` has all of its outputs at once. So a model may read in both directions,
    attend to all steps, or say one thing of a sequence (`wholes`): after a pool time has one
    step, outputs, mask and targets `[1, ...]`.

    `unrolls.bptt`, `both_modes`, `checkpointed` and `scan` run it as they run a layer, and so
    do `estimators.exact`, `train.run` and `sweep.training`. What goes forward from a state
    (`truncated`, `estimators.stream`, `models.generate`, `unrolls.step`) refuses it.

    Args:
      parts: layers, cells and `Whole`s, or one list of them.

    Returns:
      A `Sections`; params and carry are tuples, one entry a part. Each part draws from keys of
      its own.

    Raises:
      TypeError, ValueError: a part is none, or there are none.

    Cost: that of the parts; between them the outputs `[T, ..., O]` are stored.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, layers, models, unrolls, wholes
    >>> model = models.sections(
    ...     wholes.bidirectional(cells.gru(3, 8)), wholes.mean(), layers.dense(16, 2))
    >>> params = model.init(jax.random.key(0))
    >>> carry, xs = model.init_carry(params, (4,)), jnp.ones((7, 4, 3))
    >>> unrolls.bptt(model, params, carry, xs)[1].shape
    (1, 4, 2)
    """
    each = opened(parts)
    if not each:
        raise ValueError("sections: expected at least one part, got none")
    each = tuple(_part(one, f"parts[{i}]") for i, one in enumerate(each))

    def init(key):
        keys = jax.random.split(key, len(each))
        return tuple(part.init(k) for part, k in zip(each, keys, strict=True))

    def init_carry(params, batch_shape):
        return tuple(
            () if isinstance(part, Whole) else part.init_carry(p, batch_shape)
            for part, p in zip(each, params, strict=True)
        )

    def over(f):
        return sections(*(part.over(f) if part.over else part for part in each))

    recurs = any(part.over for part in each)
    return Sections(each, init, init_carry, over if recurs else None)


sections.__module__ = "bptt_jax.models"  # where it is found


def _part(part: Layer | Cell | Whole, name: str) -> Layer | Whole:
    return part if isinstance(part, Whole) else lift(part, name)
