"""A model in numbers: shapes, parameters, operations, what is stored for the way back."""

import math
from typing import NamedTuple

import jax
from jax.extend import core

from bptt_jax import _pytrees as trees
from bptt_jax import layers
from bptt_jax.models._operations import operations, operations_of_whole
from bptt_jax.types import Cell, Layer, PyTree, Sections, Side, Whole

MOST_LETTERS = 48
"""Of how a part was made, in a table."""


class Row(NamedTuple):
    """A part of a model, with all that is in it.

    path: where its parameters are in those of the model, as `layers.why` has it.
    depth: how many parts it is in.
    name: how it was made; of a part whose own parts have rows, by what.
    output: shapes and dtypes of its outputs `[T, ..., O]`.
    parameters: how many numbers.
    bytes: of the parameters.
    operations: of one step forward, for all examples (of a function of the whole sequence the
        share of each of its steps): a multiplication and an addition for
        each of a product's, and one for each number that a function of numbers gives, or
        that a sum takes. What compares, selects, converts or moves is none.
    stored: bytes that it keeps of all T steps for the way back, with its outputs, where
        `unrolls.bptt` runs it; of a stretch besides one carry.
    """

    path: str
    depth: int
    name: str
    output: PyTree
    parameters: int
    bytes: int
    operations: int
    stored: int


class Summary(NamedTuple):
    """What `summary` finds; its text is a table.

    rows: the model, then its parts, each followed by its own, in the order of running.
    inputs: shapes and dtypes of the inputs.
    """

    rows: tuple[Row, ...]
    inputs: PyTree

    def __str__(self) -> str:
        table = [_HEAD, *map(_words, self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [map(_padded, range(len(_HEAD)), line, widths) for line in table]
        return "\n".join(
            [f"inputs {_kinds(self.inputs)}", *("  ".join(line) for line in lines)]
        )


def summary(
    model: Layer | Cell | Sections,
    xs: PyTree,
    side: Side = Side(),
    *,
    context: PyTree = (),
) -> Summary:
    """Shapes, parameters, operations and memory of a model and of its parts.

    Nothing is computed: shapes and dtypes are enough, also as `jax.ShapeDtypeStruct`.
    Operations are counted in the program of a step, so the numbers are those of any device.

    Args:
      model: stacks, residual blocks and sections have rows for their parts, too.
      xs: inputs `[T, ..., I]`.
      side: what goes beside them.
      context: what is constant in time; it counts as no parameters.

    Raises:
      ValueError, TypeError: inputs that the model does not take.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import cells, layers, models
    >>> model = layers.stack(memory=cells.elman(3, 8), readout=layers.dense(8, 2))
    >>> found = models.summary(model, jnp.zeros((20, 4, 3)))
    >>> found.rows[0].parameters, found.rows[1].operations
    (114, 800)
    >>> print(found)
    inputs float32[20, 4, 3]
    path         part                  output             parameters  bytes  operations  stored
                 layers.stack          float32[20, 4, 2]         114    456         936   3,200
    ['memory']     cells.elman(3, 8)   float32[20, 4, 8]          96    384         800   2,560
    ['readout']    layers.dense(8, 2)  float32[20, 4, 2]          18     72         136     640
    """
    layer = layers.model_of(model)
    params = jax.eval_shape(layer.init, jax.random.key(0))
    xs, side, context = jax.tree.map(_shape, (xs, side, context))
    params = layers.with_context(params, context)
    layers.refuse_without(params)
    if isinstance(layer, Sections):
        return Summary(tuple(_rows_of_sections(layer, params, xs, side)), xs)
    carry = _carry(layer, params, xs, side)
    return Summary(tuple(_rows(layer, (), 0, params, carry, xs, side)), xs)


def _shape(a) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.numpy.asarray(a)) if not _is_shape(a) else a


def _is_shape(a) -> bool:
    return isinstance(a, jax.ShapeDtypeStruct)


def _carry(layer: Layer, params, xs, side) -> PyTree:
    """Of the first batch axes that the layer takes: those of features, or of symbols."""
    if not jax.tree.leaves(xs):
        raise ValueError("xs: expected inputs [T, ..., I], got none")
    first = jax.tree.leaves(xs)[0]
    ways = [first.shape[1:-1], first.shape[1:]]
    errors = []
    for batch in reversed(ways) if trees.is_integer(first) else ways:
        try:
            carry = jax.eval_shape(lambda p, b=batch: layer.init_carry(p, b), params)
            jax.eval_shape(layer.fwd, params, carry, xs, side)
            return carry
        except (TypeError, ValueError) as error:
            errors.append(error)
    raise errors[0]


def _rows_of_sections(model: Sections, params, xs, side: Side) -> list[Row]:
    """Part by part, each through all of time: what follows a pool has one step."""
    rows, tops = [], []
    for i, (part, p) in enumerate(zip(model.parts, params, strict=True)):
        path = (_key(i),)  # the keys of a part are of the same shape
        if isinstance(part, Whole):
            found, after = _row_of_whole(part, path, p, xs, side)
            steps = jax.tree.leaves(found[0].output)[0].shape[0]
            side = after._replace(keys=_cut(side.keys, steps))
        else:
            found = _rows(part, path, 1, p, _carry(part, p, xs, side), xs, side)
        rows, tops, xs = rows + found, [*tops, found[0]], found[0].output
    numbers = ("parameters", "bytes", "operations", "stored")
    sums = (sum(getattr(top, name) for top in tops) for name in numbers)
    return [Row("", 0, "models.sections", xs, *sums), *rows]


def _row_of_whole(
    whole: Whole, path: tuple, params, ys, side: Side
) -> tuple[list[Row], Side]:
    """Its row, and the side of what follows."""
    out, after = jax.eval_shape(whole.apply, params, ys, side)
    own = layers.without_context(params)
    row = Row(
        jax.tree_util.keystr(path),
        1,
        repr(whole) if "made" in vars(whole) else "Whole",
        out,
        sum(math.prod(a.shape) for a in jax.tree.leaves(own)),
        _bytes(own),
        operations_of_whole(whole, params, ys, side),
        _kept(whole, params, ys, side) + _bytes(out),
    )
    return [row], after


def _kept(whole: Whole, params, ys, side: Side) -> int:
    """Bytes of what the way back reads, but for its arguments and its outputs."""

    def both_ways(params, ys, side):
        floating = not trees.is_integer(jax.tree.leaves(ys)[0])
        at = (params, ys) if floating else (params,)
        return jax.vjp(lambda p, ys=ys: whole.apply(p, ys, side)[0], *at)

    program = jax.make_jaxpr(both_ways)(params, ys, side).jaxpr
    outputs = len(jax.tree.leaves(jax.eval_shape(whole.apply, params, ys, side)[0]))
    there = {*program.invars, *program.constvars, *program.outvars[:outputs]}
    made = {v for v in program.outvars if isinstance(v, core.Var)} - there
    return _bytes([v.aval for v in made])


def _cut(keys, steps: int):
    return keys and jax.ShapeDtypeStruct((steps, *keys.shape[1:]), keys.dtype)


def _rows(layer: Layer, path: tuple, depth: int, params, carry, xs, side) -> list[Row]:
    """Of a part and of what is in it."""
    _, ys, residuals = jax.eval_shape(layer.fwd, params, carry, xs, side)
    own = layers.without_context(params)
    row = Row(
        jax.tree_util.keystr(path),
        depth,
        _name(layer),
        ys,
        sum(math.prod(a.shape) for a in jax.tree.leaves(own)),
        _bytes(own),
        operations(layer, params, carry, xs, side),
        _bytes((residuals, ys)),
    )
    rows = [row]
    within = layers.inside(layer)
    if within is not None:
        return rows + _rows(within, path, depth + 1, params, carry, xs, side)
    for name, part in layers.branches_of(layer).items():
        at = params[name], carry[name], xs[name], side
        rows += _rows(part, (*path, _key(name)), depth + 1, *at)
    each = zip(layers.keys_of(layer), layers.parts_of(layer), strict=False)
    for key, part in each:
        at = params[key], carry[key], xs, side
        rows += _rows(part, (*path, _key(key)), depth + 1, *at)
        xs = jax.eval_shape(part.fwd, *at)[1]
    return rows


def _key(key: str | int):
    of_dict = isinstance(key, str)
    return jax.tree_util.DictKey(key) if of_dict else jax.tree_util.SequenceKey(key)


def _name(layer: Layer) -> str:
    if layers.inside(layer) is not None:
        return "layers.residual"
    if layers.keys_of(layer):
        return "layers.stack"
    if layers.branches_of(layer):
        return "layers.inputs"
    if "made" not in vars(layer):
        return "Layer"
    only = layers.parts(layer)
    cell = only[0].recurrent.cell if len(only) == 1 else None
    return repr(cell if cell is not None and layers.lift(cell) == layer else layer)


def _bytes(tree: PyTree) -> int:
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


_HEAD = ("path", "part", "output", "parameters", "bytes", "operations", "stored")


def _words(row: Row) -> tuple[str, ...]:
    name, inward = row.name, "  " * row.depth
    name = name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
    numbers = row.parameters, row.bytes, row.operations, row.stored
    return row.path, inward + name, _kinds(row.output), *(f"{n:,}" for n in numbers)


def _padded(column: int, word: str, width: int) -> str:
    return word.ljust(width) if column < 3 else word.rjust(width)


def _kinds(tree: PyTree) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    each = [
        f"{jax.tree_util.keystr(path)} {a.dtype}{list(a.shape)}" for path, a in leaves
    ]
    return ", ".join(one.strip() for one in each)
