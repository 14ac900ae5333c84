"""What a cell says of itself, put to the test: `pointwise`, `couplings`, `affine`.

A unit is a place along the last axis of a leaf of the state. What a result depends on is
seen by changing one number at a time, not by a derivative, and by its bits, not by size.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax.types import Cell, PyTree
from bptt_jax.verify._cases import Arguments, normal

CHANGE = 0.37
"""By which a number is changed: no step of a cell is flat so far and so near by design."""
SIZES = (0.1, 1.0, 10.0, 100.0)
"""Of the states between which an affine step is a straight line; clipping is far out."""
UNOPTIMISED = {"xla_backend_optimization_level": 0}
compiled = partial(jax.jit, compiler_options=UNOPTIMISED)


class Step(NamedTuple):
    """One step of a cell, its leaves without the axis of time, and the carry after it."""

    params: PyTree
    carry: PyTree
    x: PyTree
    gates: PyTree
    after: PyTree


def made(cell: Cell) -> tuple[str, ...]:
    """The claims of a cell; what it leaves out is none."""
    says = dict(
        pointwise=cell.pointwise,
        couplings=cell.couplings is not None,
        affine=cell.affine,
    )
    return tuple(name for name, said in says.items() if said)


def wrong(
    cell: Cell, at: Arguments, batch_shape: tuple[int, ...], tolerance: float
) -> dict[str, str]:
    """Claim -> in words what speaks against it; of those that a cell makes.

    Args:
      cell: that has been found to have the right derivative.
      at: its arguments, without side inputs.
      batch_shape: of these.
      tolerance: of an affine step, relative.
    """
    if not made(cell):
        return {}
    tests = dict(pointwise=_pointwise, couplings=_couplings, affine=_affine)
    step, rank = _step(cell, at, batch_shape), len(batch_shape)
    found = {name: tests[name](cell, step, rank, tolerance) for name in made(cell)}
    return {name: words for name, words in found.items() if words}


def _step(cell: Cell, at: Arguments, batch_shape: tuple[int, ...]) -> Step:
    """The first one."""
    xs = np.zeros((at.T, *batch_shape, 0)) if at.xs is None else at.xs
    xs = (xs, jax.random.split(jax.random.key(0), at.T)) if cell.keyed else xs

    @compiled
    def first(params, carry, xs):
        both = xs, cell.vjp.project(params, xs)
        x, u = jax.tree.map(lambda a: a[0], both)
        gates = cell.vjp.gates(params, carry, u)
        return x, gates, cell.vjp.move(params, gates, carry)[0]

    return Step(at.params, at.carry, *first(at.params, at.carry, xs))


class Numbers(NamedTuple):
    """The floating numbers of a tree, one after another: of which leaf, of which unit."""

    names: list[str]
    unit: np.ndarray


UNKNOWN = -1
SHARED = -2
"""What has no axis of units counts as a unit of its own."""


def _numbers(tree: PyTree, name: str, rank: int | None) -> Numbers:
    """`rank`: of the batch, where units are along the last axis; None: who knows."""
    names, units = [], [np.zeros(0, int)]
    for path, a in jax.tree_util.tree_leaves_with_path(tree):
        if not _is_floating(a):
            continue
        names += [name + jax.tree_util.keystr(path)] * a.size
        each = np.full(a.shape, UNKNOWN)
        if rank is not None:
            each[...] = np.arange(a.shape[-1]) if a.ndim > rank else SHARED
        units.append(each.ravel())
    return Numbers(names, np.concatenate(units))


def _is_floating(a) -> bool:
    return not trees.is_key(a) and trees.is_floating(a)


def _flat(tree: PyTree) -> Array:
    each = [
        a.ravel().astype(jnp.complex128)
        for a in jax.tree.leaves(tree)
        if _is_floating(a)
    ]
    return jnp.concatenate([jnp.zeros(0, jnp.complex128), *each])


def _dependence(f: Callable, tree: PyTree) -> Array:
    """`[numbers of tree, numbers of f(tree)]`: which result changes with which number."""
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, tree))
    rows = []
    for i, a in enumerate(leaves):
        if not (_is_floating(a) and a.size):
            continue

        change = CHANGE * (1 + 1j) if jnp.iscomplexobj(a) else CHANGE

        def one(j, i=i, a=a, change=change):  # past the end nothing is changed
            moved = a.ravel().at[j].add(change, mode="drop").reshape(a.shape)
            return _flat(f(structure.unflatten([*leaves[:i], moved, *leaves[i + 1 :]])))

        many = lax.map(one, jnp.arange(a.size + 1))
        before = many[-1]
        same = (many == before) | (jnp.isnan(many) & jnp.isnan(before))
        rows.append(~same[:-1])
    return jnp.concatenate(rows)


def _mixed(depends: np.ndarray, of: Numbers, to: Numbers) -> str:
    """The first result that depends on two units, in words; "" where none does."""
    for column, name, own in zip(depends.T, to.names, to.unit, strict=True):
        known = column & (of.unit != UNKNOWN)
        units = {*of.unit[known].tolist(), own} - {UNKNOWN}
        if len(units) > 1:
            whose = (
                f"a number of {name}" if own == UNKNOWN else f"{_unit(own)} of {name}"
            )
            seen = {
                f"{_unit(of.unit[i])} of {of.names[i]}"
                for i in np.flatnonzero(known)
                if of.unit[i] != own
            }
            return f"{whose} depends on {' and '.join(sorted(seen)[:2])}"
    return ""


def _unit(i: int) -> str:
    return "the one number" if i == SHARED else f"unit {i}"


def _pointwise(cell: Cell, step: Step, rank: int, tolerance: float) -> str:
    """Of gates it is not known which unit they belong to: to that which they move."""
    del tolerance
    params, carry, _, gates, after = step

    def move(at):
        return cell.vjp.move(params, *at)

    def local(at):
        return cell.vjp.local(params, *jax.tree.map(lambda a: a[None], at))

    moved, given = (gates, carry), (gates, carry, after)
    results = jax.eval_shape(move, moved), jax.eval_shape(local, given)
    by_move, by_local = (
        np.asarray(compiled(partial(_dependence, f))(at))
        for f, at in ((move, moved), (local, given))
    )
    of_gates = _numbers(gates, "gates", None)
    states = _numbers(carry, "carry", rank), _numbers(after, "the new carry", rank)
    words, of_gates = _with_units(of_gates, by_move[: of_gates.unit.size], states[1])
    if words:
        return f"in move {words}"
    y, coeffs = _numbers(results[0][1], "y", None), _numbers(results[1], "coeffs", None)
    for name, depends, of, to in (
        ("move", by_move, states[:1], _joined(states[1], y)),
        ("local", by_local, states, coeffs),
    ):
        if words := _mixed(depends, _joined(of_gates, *of), to):
            return f"in {name} {words}"
    return ""


def _with_units(
    of_gates: Numbers, by_move: np.ndarray, after: Numbers
) -> tuple[str, Numbers]:
    """Gates with the unit that each moves; in words one that moves two."""
    units = of_gates.unit.copy()
    for i, (row, name) in enumerate(zip(by_move, of_gates.names, strict=True)):
        of = sorted({*after.unit[row[: after.unit.size]].tolist()})
        if len(of) > 1:
            both = f"{_unit(of[0])} and {_unit(of[1])} of the new carry"
            return f"a number of {name} reaches {both}", of_gates
        units[i] = of[0] if of else UNKNOWN
    return "", of_gates._replace(unit=units)


def _joined(*each: Numbers) -> Numbers:
    names = [name for one in each for name in one.names]
    return Numbers(names, np.concatenate([one.unit for one in each]))


def _couplings(cell: Cell, step: Step, rank: int, tolerance: float) -> str:
    del tolerance
    couplings = cell.couplings
    assert couplings is not None
    params = step.params
    same = couplings(lambda w: w, params)
    if jax.tree.structure(same) != jax.tree.structure(params) or not all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(*map(jax.tree.leaves, (same, params)), strict=True)
    ):
        return "with an f that changes nothing it gives other parameters"

    @compiled
    def depends(params):
        return _dependence(lambda c: cell.step(params, c, step.x)[0], step.carry)

    before = _numbers(step.carry, "carry", rank)
    after = _numbers(step.after, "the new carry", rank)

    def seen(params) -> str:
        return _mixed(np.asarray(depends(params)), before, after)

    without = couplings(jnp.zeros_like, params)
    words = seen(without)
    if not words:
        return ""
    leaves, structure = jax.tree.flatten_with_path(without)
    missing = [
        f"params{jax.tree_util.keystr(path)}"
        for i, (path, w) in enumerate(leaves)
        if _is_floating(w) and w.ndim > 1 and np.any(w)
        if not seen(
            structure.unflatten(
                [jnp.zeros_like(a) if i == j else a for j, (_, a) in enumerate(leaves)]
            )
        )
    ]
    through = f", through {' or '.join(missing)}" if missing else ""
    return f"with its matrices zero {words}{through}"


def _affine(cell: Cell, step: Step, rank: int, tolerance: float) -> str:
    """Half way between two states the new one is half way between theirs."""
    del rank
    rng = np.random.default_rng(len(SIZES))

    def drawn():
        def leaf(a):
            if not _is_floating(a):
                return jnp.stack([a] * len(SIZES))
            return np.stack([size * normal(rng, a) for size in SIZES]).astype(a.dtype)

        return jax.tree.map(leaf, step.carry)

    @compiled
    def errors(params, ends):
        def new(carry):
            return _flat(cell.step(params, carry, step.x)[0])

        def one(ends):
            a, b = ends
            middle = jax.tree.map(
                lambda x, y: (x + y) / 2 if _is_floating(x) else x, a, b
            )
            at, of_a, of_b = map(new, (middle, a, b))
            scale = jnp.maximum(jnp.abs(of_a), jnp.abs(of_b)).max(initial=1e-300)
            return jnp.abs(at - (of_a + of_b) / 2).max(initial=0.0) / scale

        return lax.map(one, ends)

    found = np.asarray(errors(step.params, (drawn(), drawn())))
    if (found <= tolerance).all():
        return ""
    return (
        "half way between two states the new one is not half way between theirs, by "
        f"{np.max(found):.1e} (relative)"
    )
