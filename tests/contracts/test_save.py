"""What is kept beside the states: which gates, and what completing them takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Literal

from bptt_jax import cells, layers
from bptt_jax.layers._columns import completed
from bptt_jax.layers._save import _multiplied, _named, _spared

K, B, I, H = 4, 2, 3, 5
KEPT = layers.some_gates("r", "z")


def shapes(tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def of_a_step(cell, batch=(B,), n_in=I):
    params = jax.eval_shape(cell.init, jax.random.key(0))
    carry = jax.eval_shape(lambda p: cell.init_carry(p, batch), params)
    return params, carry, jax.ShapeDtypeStruct((*batch, n_in), jnp.float32)


def chosen(cell, batch=(B,), n_in=I):
    params, carry, x = of_a_step(cell, batch, n_in)
    xs = jax.ShapeDtypeStruct((K, *x.shape), x.dtype)
    return layers.by_shapes(cell, params, carry, xs)


# ---- gates that are not kept


def spared(cell, *names):
    """Multiply-adds of a step and example, by gates that are kept."""
    params, carry, x = of_a_step(cell, ())

    def gates(params, carry, x):
        return cell.vjp.gates(params, carry, cell.vjp.project(params, x[None])[0])

    every = shapes(jax.eval_shape(cell.vjp.gates, params, carry, _us(cell, params, x)))
    save = layers.some_gates(*names)
    kept = save.keep(cell, params, carry, None, every, None)
    return _spared(cell, params, carry, x, {save: kept})[save]


def _us(cell, params, x):
    us = jax.eval_shape(
        cell.vjp.project, params, jax.ShapeDtypeStruct((1, *x.shape), x.dtype)
    )
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), us)


@pytest.mark.parametrize(
    "options", [{}, dict(gate_axis=True), dict(dtype=jnp.bfloat16)], ids=str
)
def test_a_gru_that_keeps_r_and_z_does_a_third_of_its_products_again(options):
    gru = cells.gru(I, H, **options)
    assert spared(gru, "r", "z") == 2 * (I + H) * H
    assert spared(gru, "n") == I * H  # its recurrent part is a factor of d r
    assert spared(gru) == 0


def test_with_the_reset_before_the_product_it_is_either_of_two():
    before = cells.gru(I, H, reset_after=False)
    assert spared(before, "r", "z") == spared(before, "n", "r") == 2 * (I + H) * H
    assert spared(before, "r", "z", "n") == 3 * (I + H) * H


def test_a_range_between_two_that_are_asked_for_is_computed_too():
    """One product of all three in the place of two."""
    gru = cells.gru(I, H)
    assert spared(gru, "r") == (I + H) * H
    assert spared(gru, "z") == 0


def test_gates_that_a_cell_has_not_are_none_of_its():
    assert spared(cells.elman(I, H), "r", "z") == 0
    assert repr(KEPT) == "layers.some_gates('r', 'z')"
    assert layers.some_gates("r", "z") == KEPT != layers.some_gates("z")
    with pytest.raises(TypeError, match="expected names of gates, got 3"):
        layers.some_gates("r", 3)


# ---- by the rule


def test_where_not_all_gates_have_room_those_are_kept_that_spare_most():
    gru = cells.gru(64, 128)
    assert chosen(gru, n_in=64) == KEPT
    assert chosen(cells.lstm(64, 128), n_in=64) == layers.GATES


MANY = 4096  # examples, of which a step keeps more than 16,384 numbers


@pytest.mark.parametrize(
    ("n_in", "units", "examples", "kept"),
    [
        (32, 128, MANY, True),
        (31, 128, MANY, False),
        (36, 64, 1, True),
        (35, 64, 1, False),
        (158, 2, MANY, True),  # wide inputs are worth as much
    ],
)
def test_gates_are_kept_where_each_number_spares_so_many_multiply_adds(
    n_in, units, examples, kept
):
    """160, and 100 of few numbers."""
    lstm, gru = cells.lstm(n_in, units), cells.gru(n_in, units)
    batch = (examples,)
    assert chosen(lstm, batch, n_in) == (layers.GATES if kept else layers.STATES)
    assert chosen(gru, batch, n_in) == (KEPT if kept else layers.STATES)


def test_what_is_little_is_counted_over_all_examples():
    lstm = cells.lstm(64, 64)
    assert chosen(lstm, (64,), 64) == layers.GATES  # 4 numbers a unit: 2**14
    assert chosen(lstm, (65,), 64) == layers.STATES


def test_batches_of_any_rank_keep_the_same():
    gru = cells.gru(64, 128)
    assert {chosen(gru, batch, 64) for batch in ((), (1,), (2, 3))} == {KEPT}


# ---- the rest of a result


def products(f, given, known) -> int:
    run = lambda *given: completed(f, given, known)
    return _multiplied(jax.make_jaxpr(run)(*given).jaxpr)


def check(f, given, known, multiplied):
    """All of it is right, and takes so many multiply-adds."""
    wanted = f(*given)
    known = jax.tree.map(lambda a, k: a if k else None, wanted, known)
    found = completed(f, given, known)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    assert products(f, given, known) == multiplied


rng = np.random.default_rng(3)
X, W = rng.normal(size=(4, 6)), rng.normal(size=(6, 12))


def test_a_range_goes_through_a_bias_a_cast_and_slices_of_slices():
    def f(x, w):
        y = (x @ w + np.arange(12.0)).astype(np.float32).astype(np.float64)
        inner = y[:, 2:10][:, 3:5]
        return jnp.tanh(inner), y[:, :2]

    check(f, (X, W), (False, True), 4 * 6 * 2)
    check(f, (X, W), (False, False), 4 * 6 * 7)  # what is between them, too
    check(f, (X, W), (True, True), 0)


def test_a_number_for_all_columns_is_there_for_each_range():
    def f(x, w):
        column = jnp.broadcast_to(x[:, :1], (4, 12))
        return ((column + x @ w)[:, 5:7],)

    check(f, (X, W), (False,), 4 * 6 * 2)


def test_rows_and_axes_of_a_batch_are_ranges_as_well():
    check(lambda x, w: ((x @ w)[1:3], 0.0 * x), (X, W), (False, True), 2 * 6 * 12)
    many = rng.normal(size=(5, 4, 6)), rng.normal(size=(5, 6, 3))
    check(
        lambda x, w: (jnp.einsum("bik,bkj->bij", x, w)[1:3],),
        many,
        (False,),
        2 * 4 * 6 * 3,
    )


def test_ranges_along_two_axes_are_all_of_it():
    def f(x, w):
        y = x @ w
        return y[1:2], y[:, 3:4]

    check(f, (X, W), (False, False), 4 * 6 * 12)
    check(lambda x, w: ((x @ w)[1:2, 3:4],), (X, W), (False,), 4 * 6 * 12)


def test_where_there_is_no_rule_all_is_asked_for():
    def f(x, w):
        return (jnp.cumsum(x @ w, axis=1)[:, :2],)

    check(f, (X, W), (False,), 4 * 6 * 12)


def test_what_is_made_of_a_known_result_is_made_of_that():
    def f(x, w):
        r = jnp.tanh(x @ w)
        return r, r * 2.0

    known = np.full((4, 12), 0.5)
    _, twice = completed(f, (X, W), (known, None))
    np.testing.assert_array_equal(twice, 2 * known)
    assert products(f, (X, W), (known, None)) == 0


def test_results_that_are_arguments_or_numbers_are_what_they_are():
    def f(x, w):
        return x, 3.0, (x @ w)[:, :1]

    x, three, _ = completed(f, (X, W), (None, None, None))
    assert (np.asarray(x) == X).all()
    assert three == 3.0
    assert any(
        isinstance(v, Literal) for v in jax.make_jaxpr(f)(X, W).jaxpr.outvars
    )  # that case is met


def test_a_derivative_of_its_own_is_kept():
    """What is inlined loses it."""

    @jax.custom_jvp
    def slope_of_seven(x):
        return jnp.sin(x)

    slope_of_seven.defjvp(lambda x, dx: (jnp.sin(x[0]), 7.0 * dx[0]))

    def f(x, w):
        return slope_of_seven(x), (x @ w)[:, :1]

    found = jax.grad(lambda x: completed(f, (x, W), (None, None))[0].sum())(X)
    np.testing.assert_array_equal(found, np.full_like(X, 7.0))


def test_effects_are_had_once():
    said = []

    def f(x, w):
        jax.debug.callback(lambda: said.append(1))
        return x @ w, 2 * x

    _, twice = jax.jit(lambda x, w: completed(f, (x, w), (x @ w, None)))(X, W)
    jax.effects_barrier()
    np.testing.assert_array_equal(twice, 2 * X)
    assert said == [1]


def test_names_of_gates_are_those_of_the_cell():
    gru = cells.gru(I, H)
    params, carry, x = of_a_step(gru)
    gates = jax.eval_shape(gru.vjp.gates, params, carry, _us(gru, params, x))
    assert _named(gates) == dict(r=B * H, z=B * H, n=B * H)
