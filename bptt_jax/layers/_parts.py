"""The recurrent parts of a layer: which there are, and the same model with others."""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, overload

import jax

from bptt_jax._factory import factory
from bptt_jax.layers._hooks import in_turn
from bptt_jax.layers._lift import model_of
from bptt_jax.layers._recurrent import made
from bptt_jax.layers._save import STATES
from bptt_jax.loops import step_by_step
from bptt_jax.types import Cell, Layer, Loop, OnDCarry, Recurrent, Save, Sections


class Part(NamedTuple):
    """A recurrent part of a layer.

    path: where its parameters are in those of the layer (`jax.tree_util`).
    recurrent: how it is made.
    """

    path: tuple
    recurrent: Recurrent


@jax.tree_util.register_static
class _Here:
    """In the place of a part's parameters."""

    def __init__(self, call: int, part: Recurrent):
        self.call, self.part = call, part


def parts(layer: Layer | Cell | Sections) -> list[Part]:
    """The recurrent parts of a layer, in the order in which they are run; [] if none.

    >>> import jax
    >>> from bptt_jax import cells, layers
    >>> model = layers.stack(cells.lstm(3, 8), layers.residual(cells.gru(8, 8)))
    >>> for part in layers.parts(model):
    ...     print(jax.tree_util.keystr(part.path), part.recurrent.cell)
    [0] cells.lstm(3, 8)
    [1] cells.gru(8, 8)
    """
    return [part for _, part in numbered(model_of(layer, "layer"))]


@functools.lru_cache(maxsize=256)  # each look makes another model, which factories keep
def numbered(layer: Layer | Sections) -> tuple[tuple[int, Part], ...]:
    """`parts`, each with its place among the calls of `layer.over`'s function.

    Calls come in the order in which parts are run, which a dict of parameters has not.
    """
    if layer.over is None:
        return ()
    calls = itertools.count()

    def mark(part: Recurrent) -> Layer:
        here = _Here(next(calls), part)
        return made(part)._replace(init=lambda key: here)

    params = jax.eval_shape(layer.over(mark).init, jax.random.key(0))
    flat, _ = jax.tree_util.tree_flatten_with_path(
        params, is_leaf=lambda node: isinstance(node, _Here)
    )
    found = [(a.call, Part(path, a.part)) for path, a in flat if isinstance(a, _Here)]
    return tuple(sorted(found, key=lambda each: each[0]))


def over(layer: Any, f: Callable[[Recurrent], Layer], name: str = "layer") -> Any:
    """`layer.over(f)`, refused where there is nothing recurrent."""
    layer = model_of(layer, name)
    if layer.over is None:
        raise ValueError(f"{name}: expected one with a recurrent part, it has none")
    return layer.over(f)


@overload
def with_options(
    layer: Layer | Cell,
    *,
    on_d_carry: OnDCarry | None = None,
    loop: Loop | None = None,
    save: Save | None = None,
) -> Layer: ...
@overload
def with_options(
    layer: Sections,
    *,
    on_d_carry: OnDCarry | None = None,
    loop: Loop | None = None,
    save: Save | None = None,
) -> Sections: ...


@factory
def with_options(
    layer: Layer | Cell | Sections,
    *,
    on_d_carry: OnDCarry | None = None,
    loop: Loop | None = None,
    save: Save | None = None,
) -> Layer | Sections:
    """The same model with all its recurrent parts made with other options.

    Args:
      layer: a cell, or a layer or `models.sections` with recurrent parts.
      on_d_carry, loop, save: as of `recurrent`; None: as each part has it. A part with a
        hook gets `in_turn` of its own and this one.

    Raises:
      ValueError: the layer has no recurrent part.

    >>> from bptt_jax import cells, layers
    >>> model = layers.stack(cells.lstm(3, 8), cells.lstm(8, 8), layers.dense(8, 2))
    >>> faster = layers.with_options(model, save=layers.GATES)
    >>> detached = layers.with_options(model, on_d_carry=layers.h_detach)
    """

    def f(part: Recurrent) -> Layer:
        hook = on_d_carry
        if hook is not None and part.on_d_carry is not None:
            hook = in_turn(part.on_d_carry, hook)
        given = dict(on_d_carry=hook, loop=loop, save=save)
        return made(part._replace(**{k: v for k, v in given.items() if v is not None}))

    return over(layer, f)


def plain(model: Any) -> Any:
    """The same layer, or `Whole`, step by step, with nothing kept beside its states."""
    if model.over is None:
        return model
    return model.over(lambda part: made(part._replace(loop=step_by_step, save=STATES)))


@factory
def settled(layer: Layer, save: Save) -> Layer:
    """The layer whose parts keep `save` where they do not say what they keep."""
    if layer.over is None:
        return layer
    return layer.over(lambda part: made(part._replace(save=part.save or save)))
