"""The laws of the cuts through a step: product, pointwise work, sums."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import _pytrees as trees
from bptt_jax import cells
from bptt_jax.types import Cell, Outer, Sum
from support.changed import with_parts
from support.gradients import Case, arguments_of, floating
from support.members import CELLS, COMBINED

MEMBERS = CELLS | COMBINED
K, B = 3, 2
each = pytest.mark.parametrize("name", MEMBERS)


def stretch(name):
    """A cell, its parameters, and of K steps its inputs, carries, gates and coefficients."""
    cell = MEMBERS[name].make()
    at = arguments_of(MEMBERS[name], cell, Case(K, (B,), "plain", ()))
    xs = (at.xs, jax.random.split(jax.random.key(0), K)) if cell.keyed else at.xs
    us, carry, carries, nexts, gates = (
        cell.vjp.project(at.params, xs),
        at.carry,
        [],
        [],
        [],
    )
    for t in range(K):
        u = of_step(us, t)
        carries.append(carry)
        gates.append(cell.vjp.gates(at.params, carry, u))
        carry, _ = cell.vjp.move(at.params, gates[-1], carry)
        nexts.append(carry)
    carries, nexts, gates = map(stacked, (carries, nexts, gates))
    return cell, at.params, xs, us, carries, nexts, gates


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


def data(a):
    return np.asarray(jax.random.key_data(a) if trees.is_key(a) else a)


def close(a, b, rtol=1e-12):
    a, b = map(jax.tree.leaves, (a, b))
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(data(x), data(y), rtol=rtol, atol=1e-12)


@each
def test_gates_of_a_stretch_at_once_are_those_step_by_step(name):
    cell, params, _, us, carries, _, gates = stretch(name)
    close(cell.vjp.gates(params, carries, us), gates)


@each
def test_factors_summed_are_the_gradient_that_jax_takes(name):
    """Of K steps by themselves, each from its own carry: no loop is in between."""
    cell, params, xs, us, carries, nexts, gates = stretch(name)
    coeffs = cell.vjp.local(params, gates, carries, nexts)
    rng = np.random.default_rng(1)
    draw = lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype)
    step = jax.vmap(cell.step, (None, 0, 0))
    out, back = trees.pullback(step, params, carries, xs)
    d_nexts, d_ys = trees.without_float0(out, jax.tree.map(draw, out))
    want = back((d_nexts, d_ys))
    deltas = jax.vmap(cell.vjp.backward, (None, 0, 0, 0))(params, coeffs, d_nexts, d_ys)
    d_params, d_xs = cells.contract(cell, params, xs, carries, coeffs, deltas[1])
    close(d_params, want[0], 1e-9)
    close(deltas[0], want[1], 1e-9)
    close(trees.cast_like(xs, d_xs), want[2], 1e-9)


def units_of(carry) -> int:
    return jax.tree.leaves(carry)[-1].shape[-1]


def mixed(f, at, unit_count: int) -> bool:
    """Whether f, at arguments with units along the last axis of each leaf (side by side
    for gates of several), lets a unit see another: by the Jacobian of all at once.
    """
    chosen = [a for _, a in floating(at)]

    def of(chosen):
        rest = iter(chosen)
        fill = lambda a: next(rest) if jnp.issubdtype(a.dtype, jnp.floating) else a
        return [a for _, a in floating(f(*jax.tree.map(fill, at)))]

    def flow(into):  # which units an output depends on, as bits: exact, not by size
        moved = [a.at[..., into::unit_count].add(0.37) for a in chosen]
        return [np.asarray(x != y) for x, y in zip(of(moved), of(chosen), strict=True)]

    apart = False
    for into in range(unit_count):
        for a in flow(into):
            units = np.arange(a.shape[-1]) % unit_count
            apart |= bool(a[..., units != into].any())
    return apart


def pointwise(cell, params, carries, nexts, gates) -> bool:
    n = units_of(carries)
    step = partial(of_step, t=1)
    move = lambda g, c: cell.vjp.move(params, g, c)  # reads all that it is given
    local = lambda g, c, s: cell.vjp.local(params, g, c, s)
    return not (
        mixed(move, (step(gates), step(carries)), n)
        or mixed(local, (gates, carries, nexts), n)
    )


@each
def test_move_and_local_are_pointwise_where_the_cell_says_so(name):
    """A projection and layer normalisation are not, and do not say so."""
    cell, params, _, _, carries, nexts, gates = stretch(name)
    if cell.pointwise:
        assert pointwise(cell, params, carries, nexts, gates)
    elif cell.name == "lstm" and "projection" not in name:
        assert not pointwise(cell, params, carries, nexts, gates)


def test_a_cell_that_says_it_wrongly_is_found():
    cell, params, _, _, carries, nexts, gates = stretch("gru")
    rolled = lambda p, g, h: cell.vjp.move(p, g, jnp.roll(h, 1, -1))
    assert not pointwise(with_parts(cell, move=rolled), params, carries, nexts, gates)
    mean = lambda p, g, hs, s: cell.vjp.local(p, g, hs - hs.mean(-1, keepdims=True), s)
    assert not pointwise(with_parts(cell, local=mean), params, carries, nexts, gates)


def mixes_examples(cell, params, us, carries, nexts, gates) -> bool:
    """Whether an example sees another's numbers, in any part of the step."""

    def moved(tree):  # the first example of each leaf that has examples
        def leaf(a):
            has = not trees.is_key(a) and a.ndim > 1 and a.shape[1] == B
            return jnp.asarray(a).at[:, 0].add(0.37) if has and floats(a) else a

        return jax.tree.map(leaf, tree)

    def floats(a):
        return jnp.issubdtype(a.dtype, jnp.inexact)

    def apart(f, *at):
        pairs = zip(*map(jax.tree.leaves, (f(*at), f(*map(moved, at)))), strict=True)
        return any(
            bool((a[:, 1:] != b[:, 1:]).any())
            for a, b in pairs
            if a.ndim > 1 and a.shape[1] == B
        )

    coeffs = cell.vjp.local(params, gates, carries, nexts)
    ys = jax.vmap(cell.vjp.move, (None, 0, 0))(params, gates, carries)[1]
    by_step = lambda f: jax.vmap(f, (None, 0, 0, 0))
    zeros = trees.without_float0((nexts, ys), (nexts, ys))
    return (
        apart(partial(cell.vjp.gates, params), carries, us)
        or apart(partial(jax.vmap(cell.vjp.move, (None, 0, 0)), params), gates, carries)
        or apart(partial(cell.vjp.local, params), gates, carries, nexts)
        or apart(partial(by_step(cell.vjp.backward), params), coeffs, *zeros)
    )


@each
def test_no_step_mixes_examples(name):
    cell, params, _, us, carries, nexts, gates = stretch(name)
    assert not mixes_examples(cell, params, us, carries, nexts, gates)


def test_a_step_that_mixes_examples_is_found():
    cell, params, _, us, carries, nexts, gates = stretch("gru")
    mean = lambda p, h, u: cell.vjp.gates(p, h - h.mean(-2, keepdims=True), u)
    wrong = with_parts(cell, gates=mean)
    assert mixes_examples(wrong, params, us, carries, nexts, gates)


def jacobian_between_units(cell: Cell, params, carry, x) -> float:
    """The largest derivative of a unit's new state by another's old one."""
    J = jax.jacobian(lambda c: cell.step(params, c, x)[0])(carry)
    largest, n = 0.0, units_of(carry)
    for a in jax.tree.leaves(J):  # [units of one leaf, units of another]
        rows, columns = np.indices(a.shape)
        largest = max(largest, np.abs(np.where(rows % n != columns % n, a, 0)).max())
    return largest


@each
def test_couplings_are_all_through_which_units_see_others(name):
    cell, params, xs, _, carries, *_ = stretch(name)
    if cell.couplings is None:
        unnamed, shown = cell.name in ("", "learned_carry()"), repr(cell)
        assert unnamed or "layer_norm=True" in shown
        return
    x, carry = of_step(xs, 1), jax.tree.map(lambda a: a[1, 0], carries)
    x = (x[0][0], x[1]) if cell.keyed else x[0]
    same = cell.couplings(lambda w: w, params)
    assert jax.tree.structure(same) == jax.tree.structure(params)
    close(same, params, 0)
    seen = []
    without = cell.couplings(lambda w: seen.append(w) or jnp.zeros_like(w), params)
    assert all(w.ndim >= 2 for w in seen)
    assert jacobian_between_units(cell, without, carry, x) == 0
    assert (jacobian_between_units(cell, params, carry, x) > 1e-3) == bool(seen)


@each
def test_affine_is_what_has_no_second_difference(name):
    cell, params, xs, _, carries, *_ = stretch(name)
    x, rng = of_step(xs, 1), np.random.default_rng(3)
    state = lambda c: cell.step(params, c, x)[0]
    draw = lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype) * 2
    a, b = (jax.tree.map(draw, of_step(carries, 1)) for _ in range(2))
    middle = jax.tree.map(lambda x, y: (x + y) / 2, a, b)
    bent = jax.tree.map(
        lambda m, x, y: jnp.abs(m - (x + y) / 2).max(), *map(state, (middle, a, b))
    )
    assert (max(jax.tree.leaves(bent)) < 1e-12) == cell.affine


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
