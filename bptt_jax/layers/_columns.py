"""The rest of a result of which some is known, by as few columns of products as it takes.

Of gates that come from one product some may have been kept:

    (1)  y = x W + b          y[..., i:j] = x W[..., i:j] + b[i:j]

so what is asked of each value is followed back through a program, from its results to its
products, as a range along one axis (`_asked`); then each value is computed once, on its range
(`_computed`). Where no rule says how a range goes through an operation all of its operands are
asked for.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend import core

from bptt_jax._jax import bind
from bptt_jax.types import PyTree

POINTWISE = frozenset("add add_any sub mul neg convert_element_type".split())


class Range(NamedTuple):
    """Numbers start to stop along an axis; None in its place: all there are."""

    axis: int
    start: int
    stop: int


Asked = dict[Any, Range | None]  # of each variable that is


def completed(f: Callable, given: tuple, known: PyTree) -> PyTree:
    """`f(*given)`.

    Args:
      known: the same tree, None for each leaf that is asked for. What is made of a leaf
        that is known is made of that.
    """
    closed, out = jax.make_jaxpr(f, return_shape=True)(*given)
    jaxpr, structure = closed.jaxpr, jax.tree.structure(out)
    leaves = structure.flatten_up_to(known)
    if jaxpr.effects:
        leaves = [
            b if a is None else a
            for a, b in zip(leaves, jax.tree.leaves(f(*given)), strict=True)
        ]
        return structure.unflatten(leaves)
    held = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    held |= dict(zip(jaxpr.invars, jax.tree.leaves(given), strict=True))
    each = list(zip(jaxpr.outvars, leaves, strict=True))
    held |= {v: a for v, a in each if a is not None and not _is_literal(v)}
    asked = _asked(jaxpr.eqns, [v for v, a in each if a is None], held)
    held = _computed(jaxpr.eqns, asked, held)
    return structure.unflatten([_read(held, v) if a is None else a for v, a in each])


def _asked(eqns: list, results: list, held: dict) -> Asked:
    """What of each value is asked for, if these results are and some values are there."""
    asked: Asked = {}

    def ask(v, part: Range | None):
        if _is_literal(v) or v in held:
            return
        part = _both(asked[v], part) if v in asked else part
        all_of_it = part and part[1:] == (0, v.aval.shape[part.axis])
        asked[v] = None if all_of_it else part

    for v in results:
        ask(v, None)
    for eqn in reversed(eqns):
        rule = _rule(eqn)
        for n, out in enumerate(eqn.outvars):
            if out in asked:
                asked[out] = asked[out] if rule else None
                for i, v in enumerate(eqn.invars):
                    ask(v, rule(eqn, n, asked[out])[i] if rule else None)
    return asked


def _both(a: Range | None, b: Range | None) -> Range | None:
    """What holds two ranges."""
    if a is None or b is None or a.axis != b.axis:
        return None
    return Range(a.axis, min(a.start, b.start), max(a.stop, b.stop))


def _computed(eqns: list, asked: Asked, held: dict) -> dict:
    """`held`, and each value that is asked for, on its range."""
    for eqn in eqns:
        wanted = [(n, v) for n, v in enumerate(eqn.outvars) if v in asked]
        if not wanted:
            continue
        rule = _rule(eqn)
        if rule is None:
            found = bind(eqn, [_read(held, v) for v in eqn.invars])
            held |= {v: found[n] for n, v in wanted}
            continue
        for n, v in wanted:
            parts = zip(eqn.invars, rule(eqn, n, asked[v]), strict=True)
            operands = [
                a.val if _is_literal(a) else _part(held[a], asked.get(a), part)
                for a, part in parts
            ]
            held[v] = _on_range(eqn, operands, asked[v])
    return held


def _on_range(eqn, operands: list, part: Range | None):
    """A range of a result of an operation that has a rule, from what that asks for."""
    name, params = eqn.primitive.name, eqn.params
    if name in ("slice", "split"):
        axis = params["axis"] if name == "split" else _cut(eqn)[0]
        (a,) = operands  # this range of it
        return a if part is None or part.axis == axis else _part(a, None, part)
    others = {}
    if name == "broadcast_in_dim" and part is not None:
        shape = list(params["shape"])
        shape[part.axis] = part.stop - part.start
        others = dict(shape=tuple(shape))
    (found,) = bind(eqn, operands, **others)
    return found


def _is_literal(v) -> bool:
    return isinstance(v, core.Literal)


def _read(held: dict, v):
    return v.val if isinstance(v, core.Literal) else held[v]


def _part(a, there: Range | None, part: Range | None):
    """A range of a value, of which a range is there."""
    if part is None or part == there:
        return a
    start = there.start if there else 0
    return lax.slice_in_dim(a, part.start - start, part.stop - start, axis=part.axis)


# ---- rules: `(eqn, n, range of result n) -> the range of each operand`


def _rule(eqn) -> Callable | None:
    name, params = eqn.primitive.name, eqn.params
    if name in POINTWISE:
        return _pointwise
    if name == "dot_general" and params.get("out_sharding") is None:
        return _product
    if name == "broadcast_in_dim" and params.get("sharding") is None:
        return _broadcast
    if name == "split":
        return _split
    if name == "slice" and params["strides"] is None and _cut(eqn):
        return _slice
    return None


def _pointwise(eqn, n, part):
    shape = eqn.outvars[0].aval.shape

    def of(v):
        wide = part and v.aval.ndim and v.aval.shape[part.axis] == shape[part.axis]
        return part if wide else None

    return [of(v) for v in eqn.invars]


def _product(eqn, n, part):
    x, w = (v.aval for v in eqn.invars)
    (of_x, of_w), (batch_x, batch_w) = eqn.params["dimension_numbers"]
    if part is None or part.axis < len(batch_x):
        return [part and part._replace(axis=of[part.axis]) for of in (batch_x, batch_w)]
    free = [(0, i) for i in range(x.ndim) if i not in (*of_x, *batch_x)]
    free += [(1, i) for i in range(w.ndim) if i not in (*of_w, *batch_w)]
    which, axis = free[part.axis - len(batch_x)]
    found: list = [None, None]
    found[which] = part._replace(axis=axis)
    return found


def _broadcast(eqn, n, part):
    (v, *_), axes = eqn.invars, eqn.params["broadcast_dimensions"]
    if part is None or part.axis not in axes:
        return [None] * len(eqn.invars)
    axis = axes.index(part.axis)
    wide = v.aval.shape[axis] == eqn.outvars[0].aval.shape[part.axis]
    return [part._replace(axis=axis) if wide else None]


def _split(eqn, n, part):
    axis, sizes = eqn.params["axis"], [int(m) for m in eqn.params["sizes"]]
    start = sum(sizes[:n])
    return [_within(Range(axis, start, start + sizes[n]), part)]


def _within(cut: Range, part: Range | None) -> Range:
    """Of what is cut, a part; all of it if that is along another axis."""
    if part is None or part.axis != cut.axis:
        return cut
    return Range(cut.axis, cut.start + part.start, cut.start + part.stop)


def _cut(eqn) -> list[int]:
    """The axis along which a slice takes a part, if it is one."""
    shape = eqn.invars[0].aval.shape
    axes = [i for i, n in enumerate(eqn.outvars[0].aval.shape) if n != shape[i]]
    return axes if len(axes) == 1 else []


def _slice(eqn, n, part):
    (axis,) = _cut(eqn)
    start, stop = (
        eqn.params[name][axis] for name in ("start_indices", "limit_indices")
    )
    return [_within(Range(axis, start, stop), part)]
