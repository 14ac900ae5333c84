"""The laws of the cuts through a step: product, pointwise work, sums."""

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import _pytrees as trees
from bptt_jax import cells
from bptt_jax.layers._columns import completed
from bptt_jax.types import Cell, Outer, PyTree, Sum
from support import tiers
from support.changed import with_parts
from support.gradients import Case, arguments_of, quick_jit
from support.members import CELLS, COMBINED

MEMBERS = CELLS | COMBINED
K, B = 3, 2
each = pytest.mark.parametrize(
    "name", [tiers.slow(name, name not in COMBINED) for name in MEMBERS]
)


class Stretch(NamedTuple):
    """Of K steps of a cell: inputs, carries, gates and what they are made of."""

    cell: Cell
    params: PyTree
    xs: PyTree
    us: PyTree
    carries: PyTree
    nexts: PyTree
    gates: PyTree


@functools.cache
def stretch(name) -> Stretch:
    cell = MEMBERS[name].make()
    at = arguments_of(MEMBERS[name], cell, Case(K, (B,), "plain", ()))
    xs = (at.xs, jax.random.split(jax.random.key(0), K)) if cell.keyed else at.xs

    @quick_jit
    def step_by_step(params, carry, xs):
        us, carries, nexts, gates = cell.vjp.project(params, xs), [], [], []
        for t in range(K):
            carries.append(carry)
            gates.append(cell.vjp.gates(params, carry, of_step(us, t)))
            carry, _ = cell.vjp.move(params, gates[-1], carry)
            nexts.append(carry)
        return us, *map(stacked, (carries, nexts, gates))

    return Stretch(cell, at.params, xs, *step_by_step(at.params, at.carry, xs))


def of_step(tree, t):
    return jax.tree.map(lambda a: a[t], tree)


def stacked(many):
    def stack(*leaves):
        if trees.is_key(leaves[0]):
            return jax.random.wrap_key_data(
                jnp.stack([*map(jax.random.key_data, leaves)])
            )
        return jnp.stack(leaves)

    return jax.tree.map(stack, *many)


class Parts(NamedTuple):
    """Of the four parts of a step, over a stretch: what they are given, or what they give."""

    gates: PyTree
    move: PyTree
    local: PyTree
    backward: PyTree


@functools.cache
def parts(cell: Cell) -> Callable:
    """`(params, Parts) -> Parts`: all of them as one program, none given another's."""
    by_step = lambda f, n: jax.vmap(f, (None,) + (0,) * n)

    @quick_jit
    def run(params, at: Parts) -> Parts:
        return Parts(
            cell.vjp.gates(params, *at.gates),
            by_step(cell.vjp.move, 2)(params, *at.move),
            cell.vjp.local(params, *at.local),
            by_step(cell.vjp.backward, 3)(params, *at.backward),
        )

    return run


@functools.cache
def given(name) -> Parts:
    """What the parts of a right cell are given, cotangents being states and outputs."""
    cell, params, _, us, carries, nexts, gates = stretch(name)

    @quick_jit
    def made(params, gates, carries, nexts):
        coeffs = cell.vjp.local(params, gates, carries, nexts)
        ys = jax.vmap(cell.vjp.move, (None, 0, 0))(params, gates, carries)[1]
        return coeffs, *trees.without_float0((nexts, ys), (nexts, ys))

    backward = made(params, gates, carries, nexts)
    return Parts((carries, us), (gates, carries), (gates, carries, nexts), backward)


def moved(tree, where):
    """Floating leaves with other numbers at `where(leaf)`, an index; None: nowhere."""

    def leaf(a):
        index = None if trees.is_key(a) or not trees.is_floating(a) else where(a)
        if index is None:
            return a
        a = np.array(a)
        a[index] += 0.37
        return a

    return jax.tree.map(leaf, tree)


def data(a):
    return np.asarray(jax.random.key_data(a) if trees.is_key(a) else a)


def close(a, b, rtol=1e-12):
    a, b = map(jax.tree.leaves, (a, b))
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(data(x), data(y), rtol=rtol, atol=1e-12)


@each
def test_gates_of_a_stretch_at_once_are_those_step_by_step(name):
    cell, params, *_, gates = stretch(name)
    close(parts(cell)(params, given(name)).gates, gates)


@each
def test_gates_are_completed_from_every_other_one(name):
    """Of which the rest is made, where it is made of gates."""
    cell, params, xs, _, carries, _, gates = stretch(name)
    leaves, structure = jax.tree.flatten(gates)

    @quick_jit
    def both(params, carries, xs, leaves):
        def again(params, carries, xs):
            return cell.vjp.gates(params, carries, cell.vjp.project(params, xs))

        def known(n):
            some = [a if i % 2 == n else None for i, a in enumerate(leaves)]
            return completed(again, (params, carries, xs), structure.unflatten(some))

        return known(0), known(1)

    close(both(params, carries, xs, leaves), (gates, gates))


@each
def test_factors_summed_are_the_gradient_that_jax_takes(name):
    """Of K steps by themselves, each from its own carry: no loop is in between."""
    cell, params, xs, _, carries, nexts, gates = stretch(name)
    rng, step = np.random.default_rng(1), jax.vmap(cell.step, (None, 0, 0))
    draw = lambda a: rng.normal(size=a.shape).astype(a.dtype)
    out = jax.eval_shape(step, params, carries, xs)
    d_out = trees.without_float0(out, jax.tree.map(draw, out))

    @quick_jit
    def both(params, carries, xs, gates, nexts, d_out):
        _, back = trees.pullback(step, params, carries, xs)
        coeffs = cell.vjp.local(params, gates, carries, nexts)
        backward = jax.vmap(cell.vjp.backward, (None, 0, 0, 0))
        d_carries, deltas = backward(params, coeffs, *d_out)
        d_params, d_xs = cells.contract(cell, params, xs, carries, coeffs, deltas)
        return (d_params, d_carries, trees.cast_like(xs, d_xs)), back(d_out)

    found, want = both(params, carries, xs, gates, nexts, d_out)
    close(found, want, 1e-9)


def units_of(carry) -> int:
    return jax.tree.leaves(carry)[-1].shape[-1]


def pointwise(cell, name) -> bool:
    """Whether no unit sees another in `move` and `local`: units are along the last axis of
    each leaf (side by side for gates of several), and which an output depends on is seen
    by its bits, not by size.
    """
    n, at, params = units_of(stretch(name).carries), given(name), stretch(name).params
    before = parts(cell)(params, at)
    for into in range(n):
        where = lambda a, into=into: (..., slice(into, None, n))
        more = {k: moved(getattr(at, k), where) for k in ("move", "local")}
        after = parts(cell)(params, at._replace(**more))
        pairs = zip(
            *(jax.tree.leaves((out.move, out.local)) for out in (before, after)),
            strict=True,
        )
        for a, b in pairs:
            if a.ndim and trees.is_floating(a):
                others = np.arange(a.shape[-1]) % n != into
                if np.any((np.asarray(a) != b)[..., others]):
                    return False
    return True


@each
def test_move_and_local_are_pointwise_where_the_cell_says_so(name):
    """A projection and layer normalisation are not, and do not say so."""
    cell = stretch(name).cell
    if cell.pointwise:
        assert pointwise(cell, name)
    elif cell.name == "lstm" and "projection" not in name:
        assert not pointwise(cell, name)


def test_a_cell_that_says_it_wrongly_is_found():
    cell = stretch("gru").cell
    rolled = lambda p, g, h: cell.vjp.move(p, g, jnp.roll(h, 1, -1))
    assert not pointwise(with_parts(cell, move=rolled), "gru")
    mean = lambda p, g, hs, s: cell.vjp.local(p, g, hs - hs.mean(-1, keepdims=True), s)
    assert not pointwise(with_parts(cell, local=mean), "gru")


def has_examples(a) -> bool:
    return not trees.is_key(a) and a.ndim > 1 and a.shape[1] == B


def mixes_examples(cell, name) -> bool:
    """Whether an example sees another's numbers, in any part of the step."""
    params, at = stretch(name).params, given(name)
    first = lambda a: (slice(None), 0) if has_examples(a) else None
    runs = [parts(cell)(params, at), parts(cell)(params, moved(at, first))]
    pairs = zip(*map(jax.tree.leaves, runs), strict=True)
    return any(
        bool((np.asarray(a) != b)[:, 1:].any()) for a, b in pairs if has_examples(a)
    )


@each
def test_no_step_mixes_examples(name):
    assert not mixes_examples(stretch(name).cell, name)


def test_a_step_that_mixes_examples_is_found():
    cell = stretch("gru").cell
    mean = lambda p, h, u: cell.vjp.gates(p, h - h.mean(-2, keepdims=True), u)
    assert mixes_examples(with_parts(cell, gates=mean), "gru")


def jacobians_between_units(cell: Cell, carry, x, *params) -> list[float]:
    """The largest derivative of a unit's new state by another's old one, for each params."""

    @quick_jit
    def jacobian(params, carry, x):
        return jax.jacobian(lambda c: cell.step(params, c, x)[0])(carry)

    def largest(J):
        found, n = 0.0, units_of(carry)
        for a in jax.tree.leaves(J):  # [units of one leaf, units of another]
            rows, columns = np.indices(a.shape)
            found = max(found, np.abs(np.where(rows % n != columns % n, a, 0)).max())
        return found

    return [largest(jacobian(p, carry, x)) for p in params]


@each
def test_couplings_are_all_through_which_units_see_others(name):
    cell, params, xs, _, carries, *_ = stretch(name)
    if cell.couplings is None:
        assert any(
            why in repr(cell) for why in ("layer_norm=True", "from_step", "from_parts")
        )
        return
    x, carry = of_step(xs, 1), jax.tree.map(lambda a: a[1, 0], carries)
    x = (x[0][0], x[1]) if cell.keyed else x[0]
    same = cell.couplings(lambda w: w, params)
    assert jax.tree.structure(same) == jax.tree.structure(params)
    close(same, params, 0)
    seen = []
    without = cell.couplings(lambda w: seen.append(w) or jnp.zeros_like(w), params)
    assert all(w.ndim >= 2 for w in seen)
    apart, coupled = jacobians_between_units(cell, carry, x, without, params)
    assert apart == 0
    assert (coupled > 1e-3) == bool(seen)


@each
def test_affine_is_what_has_no_second_difference(name):
    cell, params, xs, _, carries, *_ = stretch(name)
    x, rng = of_step(xs, 1), np.random.default_rng(3)
    draw = lambda a: rng.normal(size=a.shape).astype(a.dtype) * 2
    ends = [jax.tree.map(draw, of_step(carries, 1)) for _ in range(2)]

    @quick_jit
    def bent(params, x, a, b):
        middle = lambda a, b: jax.tree.map(lambda x, y: (x + y) / 2, a, b)
        at, before, after = (cell.step(params, c, x)[0] for c in (middle(a, b), a, b))
        return jax.tree.map(
            lambda m, n: jnp.abs(m - n).max(), at, middle(before, after)
        )

    assert (max(jax.tree.leaves(bent(params, x, *ends))) < 1e-12) == cell.affine


WRAPPERS = {
    "masked": cells.masked,
    "resets": cells.resets,
    "zoneout": partial(cells.zoneout, rate=0.2),
    "in_dtype": partial(cells.in_dtype, dtype=jnp.float64),
    "learned_carry": cells.learned_carry,
    "hooked": partial(cells.hooked, on_d_carry=lambda d, aux: d),
    "watching": cells.watching,
}
ITS_OWN = {"init", "init_carry", "step", "vjp", "keyed"}
HAS_OWN = {"learned_carry": {"name", "couplings"}, "zoneout": {"name"}}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", ["lstm", "lstm, projection", "indrnn", "from_parts"])
def test_what_wraps_a_cell_hands_all_of_it_on(wrapper, name):
    """A field of `Cell` that is new is in here by itself."""
    cell = CELLS[name].make()
    outer = WRAPPERS[wrapper](cell)
    own = ITS_OWN | HAS_OWN.get(wrapper, set())
    for field in set(Cell._fields) - own:
        assert getattr(outer, field) == getattr(cell, field), field
    assert cell.name in outer.name
    if outer.couplings is not None:
        params = outer.init(jax.random.key(0))
        zero = outer.couplings(jnp.zeros_like, params)
        inner = zero.cell if wrapper == "learned_carry" else zero
        want = cell.couplings(jnp.zeros_like, getattr(params, "cell", params))
        close(inner, want, 0)


def test_factors_are_as_many_as_parameters():
    """Each floating leaf has one, of its shape."""
    for name in ("lstm", "gru, reset before", "indrnn", "ctrnn, learned tau"):
        cell, params, xs, us, carries, nexts, gates = stretch(name)
        coeffs = cell.vjp.local(params, gates, carries, nexts)
        zeros = trees.without_float0(nexts, nexts)
        ys = jax.vmap(cell.vjp.move, (None, 0, 0))(params, gates, carries)[1]
        back = jax.vmap(cell.vjp.backward, (None, 0, 0, 0))
        _, deltas = back(params, coeffs, zeros, ys)
        factors, _ = cell.vjp.factors(params, xs, carries, coeffs, deltas)
        assert jax.tree.structure(
            jax.tree.map(lambda f: 0, factors, is_leaf=cells.is_factor)
        ) == jax.tree.structure(params)
        for path, p in jax.tree_util.tree_leaves_with_path(params):
            factor = factors[path[0].key]
            if isinstance(factor, Outer):
                assert factor.a.shape == (K, B, p.shape[0])
                assert factor.d.shape == (K, B, *p.shape[1:])
            elif isinstance(factor, Sum):
                assert factor.d.shape == (K, B, *p.shape)
