"""What loops say of a model."""

import contextvars
import functools
import itertools

import jax

from bptt_jax import loops
from bptt_jax.layers._lift import lift
from bptt_jax.layers._parts import numbered, over
from bptt_jax.layers._recurrent import made
from bptt_jax.types import Cell, Layer, Loop, PyTree, Recurrent, Side


def why(
    layer: Layer | Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    loop: Loop = loops.native,
) -> dict[str, str | None]:
    """Why a loop does not run the recurrent parts of a model; None where it does.

    Nothing is computed: shapes and dtypes are enough.

    Args:
      layer: a cell, or a layer with recurrent parts.
      params, carry, xs, side: as of an unroll, arrays or their shapes and dtypes; with
        `with_context` where a part sees one.
      loop: which is asked.

    Returns:
      The reason by the path of each part's parameters, as `layers.parts` has it.

    Raises:
      ValueError: the layer has no recurrent part.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, layers, loops
    >>> model = layers.stack(cells.lstm(3, 8), cells.lstm(8, 8, layer_norm=True))
    >>> params = model.init(jax.random.key(0))
    >>> layers.why(model, params, model.init_carry(params, (2,)), jnp.ones((5, 2, 3)),
    ...            loop=loops.step_by_step)
    {'[0]': None, '[1]': None}
    """
    layer = lift(layer)
    calls = itertools.count()
    reasons: dict[int, str | None] = {}

    def ask(part: Recurrent) -> Layer:
        call = next(calls)

        def supports(*stretch):
            reasons[call] = loop.supports(*stretch)

        asking = loops.step_by_step._replace(name="layers.why", supports=supports)
        return made(part._replace(loop=asking))

    jax.eval_shape(over(layer, ask).fwd, params, carry, xs, side)
    each = numbered(layer)
    return {jax.tree_util.keystr(part.path): reasons[call] for call, part in each}


def runs_whole(layer: Layer, params, carry, xs, side: Side) -> bool:
    """Whether all of time is best one stretch: a layer has nothing but recurrent parts, and the
    loop of each takes no memory for it.
    """
    if not layer.only_recurrent:
        return False
    found = _whole.set([])
    try:
        asked = over(layer, _asked)
        # a function of its own, or JAX remembers the shapes and asks nobody
        jax.eval_shape(lambda *at: asked.fwd(*at), params, carry, xs, side)
        return all(_whole.get())
    finally:
        _whole.reset(found)


_whole: contextvars.ContextVar[list[bool]] = contextvars.ContextVar("whole")


def _asked(part: Recurrent) -> Layer:
    return made(part._replace(loop=_asking(part.loop)))


@functools.lru_cache(maxsize=16)  # equal loops make equal models, which factories have
def _asking(loop: Loop | None) -> Loop:
    def supports(cell, save, shapes, platform):
        del platform
        _whole.get().append(loops.first_of_shapes(loop, cell, save, shapes).whole)

    return loops.step_by_step._replace(name="layers.runs_whole", supports=supports)
