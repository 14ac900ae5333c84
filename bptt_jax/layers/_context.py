"""What is constant in time, beside the parameters of the parts that see it."""

from collections.abc import Callable
from typing import Any

import jax

from bptt_jax.types import InContext, PyTree


def with_context(params: PyTree, context: PyTree) -> PyTree:
    """Parameters with a context beside those of each part that sees one.

    Args:
      params: of a model.
      context: any tree; as they are where it has no leaves.

    Raises:
      ValueError: no part of the model sees one.

    >>> from bptt_jax import InContext, layers
    >>> layers.with_context((dict(w=1.0), InContext(dict(b=2.0))), 3.0)
    ({'w': 1.0}, InContext(params={'b': 2.0}, context=3.0))
    """
    if not jax.tree.leaves(context):
        return params
    if not _places(params):
        raise ValueError(
            "context: expected none, for no part of the model sees one (the parameters of "
            "one that does are an InContext, as its init makes them)"
        )
    return _changed(params, lambda part: part._replace(context=context))


def without_context(params: PyTree) -> PyTree:
    """Parameters as `init` makes them: with no context anywhere.

    >>> from bptt_jax import InContext, layers
    >>> layers.without_context(InContext(dict(b=2.0), 3.0))
    InContext(params={'b': 2.0}, context=())
    """
    return _changed(params, lambda part: part._replace(context=()))


def context_of(params: PyTree) -> list[PyTree]:
    """Of each part that sees one, in the order of the leaves of `params`."""
    return [part.context for _, part in _places(params)]


def refuse_without(params: PyTree) -> None:
    """Refuses parameters of a part that sees a context and has none."""
    for path, part in _places(params):
        if not jax.tree.leaves(part.context):
            raise ValueError(
                "context: expected what is constant in time, which params"
                f"{jax.tree_util.keystr(path)} see, got none"
            )


def _is_place(node: Any) -> bool:
    return isinstance(node, InContext)


def _places(params: PyTree) -> list[tuple[tuple, InContext]]:
    flat = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_place)
    return [(path, node) for path, node in flat if _is_place(node)]


def _changed(params: PyTree, f: Callable[[InContext], InContext]) -> PyTree:
    return jax.tree.map(
        lambda node: f(node) if _is_place(node) else node, params, is_leaf=_is_place
    )
