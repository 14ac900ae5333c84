"""`verify.check` itself: what is right passes, what is wrong is named, and by whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers, unrolls, verify
from bptt_jax.verify import GradientError, Report, Row, _differences, _numpy_cells
from bptt_jax.verify._cases import SIDES, selected
from support.changed import with_parts

ONE = dict(lengths=(3,), chunks=(2,), batch_shapes=((2,),), sides=("plain",))
CELL = cells.elman(3, 4)
IN_NUMPY = _numpy_cells.elman()
LEAVES = ["carry", "params['b']", "params['w_h']", "params['w_x']", "xs"]
RESULTS = ["final carry", "ys"]


def check(cell, inputs=3, **options):
    return verify.check(cell, inputs, **{**ONE, **options})


def changed(**functions):
    """The Elman cell with parts of its derivative replaced."""
    return with_parts(CELL, **functions)


def contract(edit):
    """Its weight gradients, edited."""

    def wrong(*arguments):
        d_params, d_xs = cells.contract(CELL, *arguments)
        return edit(d_params), d_xs

    return changed(contract=wrong)


def scaled(leaf, by):
    return contract(lambda d_params: {**d_params, leaf: d_params[leaf] * by})


# What is right


@pytest.fixture(scope="module")
def right():
    return check(CELL, reference=IN_NUMPY, sides=("plain", "both"), name="mine")


def test_a_right_cell_passes_and_every_leaf_is_in_the_table(right):
    assert right.wrong == ()
    assert [row.leaf for row in right.rows] == LEAVES + RESULTS
    assert right.cases == 2
    for row in right.rows:
        assert row.largest > 1e-2
        assert row.hand_grad < 1e-12
        assert row.error < 1e-8
        assert f"\n{row.leaf} " in str(right)
    assert str(right).startswith("mine: 7 leaves in 2 cases: right\n")
    assert "differences of NumPy" in str(right)


def test_table_is_aligned(right):
    _, heads, rule, *rows, _ = str(right).splitlines()
    assert len(rows) == len(right.rows)
    ends = [i for i, c in enumerate(rule) if c == " " and rule[i - 1] == "-"]
    assert len(ends) == len(Row._fields) - 1
    for line in (heads, *rows):
        assert all(line[i : i + 2] == "  " for i in ends), line


def test_without_a_reference_the_forward_pass_decides():
    report = check(CELL)
    assert report.wrong == ()
    assert "differences of the forward pass" in str(report)
    assert all(np.isfinite(row.hand_truth) for row in report.rows)


def test_precision_is_as_it_was(right):
    del right
    assert jnp.ones(1, float).dtype == np.float32


def test_layers_and_recurrences_without_inputs():
    step = cells.from_step(_spiral, _square, _zeros)
    report = check(layers.recurrent(step), inputs=None)
    assert [r.leaf for r in report.rows] == ["carry", "params['w']", *RESULTS]


def _spiral(p, h, x):
    assert x is None
    return (jnp.tanh(h @ p["w"]),) * 2


def _square(key):
    return dict(w=jax.random.normal(key, (4, 4)))


def _zeros(p, batch_shape):
    return jnp.zeros((*batch_shape, 4), p["w"].dtype)


def test_cases_have_every_length_chunk_shape_and_side():
    lengths, chunks, shapes = (1, 2, 7), (1, 3, None), ((), (3,), (2, 2))
    cases = selected(lengths, chunks, shapes, SIDES)
    assert {c.T for c in cases} == set(lengths)
    assert {c.batch_shape for c in cases} == set(shapes)
    assert {c.side for c in cases if c.T == 7} == set(SIDES)
    assert {(7, k) for k in chunks} <= {(c.T, k) for c in cases for k in c.chunks}
    for c in cases:  # a chunk as long as the whole is that of None
        assert all(k is None or k < c.T for k in c.chunks)


# A hand-derived gradient that is wrong


@pytest.mark.parametrize("leaf", ["w_x", "w_h", "b"])
def test_a_wrong_backward_is_refused_and_its_worst_leaf_named(leaf):
    with pytest.raises(
        GradientError, match=rf"params\['{leaf}'\] is wrong by"
    ) as caught:
        check(scaled(leaf, 1.01), reference=IN_NUMPY)
    row, report = caught.value.row, caught.value.report
    assert row.leaf == f"params['{leaf}']"
    assert row.wrong == "hand-derived"
    assert row.hand_grad == pytest.approx(0.01, rel=0.02)
    assert [r.leaf for r in report.wrong] == [row.leaf]
    assert "1 of these WRONG" in str(caught.value)


def test_the_worst_of_several_is_named():
    wrong = contract(lambda d: {**d, "b": 1.1 * d["b"], "w_h": 2 * d["w_h"]})
    with pytest.raises(GradientError, match=r"^params\['w_h'\]") as caught:
        check(wrong, reference=IN_NUMPY)
    assert len(caught.value.report.wrong) == 2


def test_an_error_smaller_than_that_of_differences_is_found():
    with pytest.raises(GradientError, match="hand-derived") as caught:
        check(scaled("w_x", 1 + 1e-8), reference=IN_NUMPY)
    assert caught.value.row.leaf == "params['w_x']"
    assert check(scaled("w_x", 1 + 1e-8), reference=IN_NUMPY, tolerance=1e-7)


@pytest.mark.parametrize("where", [(0, 1), ...], ids=["one entry", "all"])
def test_nan_in_a_gradient_is_caught(where):
    def spoiled(d):
        return {**d, "w_h": d["w_h"].at[where].set(jnp.nan)}

    with pytest.raises(GradientError, match=r"params\['w_h'\] is wrong by inf"):
        check(contract(spoiled), reference=IN_NUMPY)


def test_a_gradient_of_zeros_where_there_is_one_is_wrong():
    with pytest.raises(GradientError, match=r"params\['b'\] is wrong by 1.0"):
        check(scaled("b", 0.0), reference=IN_NUMPY)


def test_a_wrong_loop_is_found_in_what_comes_before():
    def forgets(p, slope, d_h, d_y):
        return CELL.vjp.backward(p, slope, jnp.zeros_like(d_h), d_y)

    with pytest.raises(GradientError) as caught:
        check(changed(backward=forgets), reference=IN_NUMPY)
    assert {row.leaf for row in caught.value.report.wrong} == set(LEAVES)


def test_another_forward_than_the_step_is_found():
    def louder(p, g, h):
        h, y = CELL.vjp.move(p, g, h)
        return h, 1.001 * y

    with pytest.raises(GradientError) as caught:
        check(changed(move=louder)._replace(output=None), reference=IN_NUMPY)
    wrong = {row.leaf: row.wrong for row in caught.value.report.wrong}
    assert wrong["ys"] == "hand-derived"
    assert "final carry" not in wrong


def test_a_chunk_that_is_wrong_is_named():
    def only_whole(layer, params, carry, xs, side, *, chunk=None):
        carry, ys = unrolls.bptt(layer, params, carry, xs, side, chunk=chunk)
        return carry, ys if chunk is None else 1.01 * ys

    with pytest.raises(GradientError, match="chunk=2") as caught:
        check(CELL, reference=IN_NUMPY, unroll=only_whole, chunks=(2, None))
    assert "chunk=2" in caught.value.row.case


# Zeros against zeros


def _deaf(p, h, x):
    h = jnp.tanh(x @ p["w"]) + 0.5 * h
    return h, h * (1 + 0 * p["scale"])


def _with_scale(key):
    return dict(w=jax.random.normal(key, (3, 4)), scale=jnp.ones(()))


def test_zeros_against_zeros_is_no_check():
    cell = cells.from_step(_deaf, _with_scale, _zeros)
    with pytest.raises(
        GradientError, match=r"params\['scale'\] is zero in every case.*unused="
    ) as caught:
        check(cell)
    assert caught.value.row is None
    assert caught.value.report.wrong == ()
    report = check(cell, unused=("params['scale']",))
    assert {row.leaf: row.largest for row in report.rows}["params['scale']"] == 0
    with pytest.raises(GradientError, match="scale"):
        check(cell, unused=("params['w']",))


def _memoryless(p, h, x):
    return (jnp.tanh(x @ p["w"] + 0 * h),) * 2


def _only_w(key):
    return dict(w=jax.random.normal(key, (3, 4)))


def test_a_recurrence_whose_gradient_vanishes_is_no_check():
    cell = cells.from_step(_memoryless, _only_w, _zeros)
    with pytest.raises(GradientError, match="the gradient of carry is zero"):
        check(cell)


# `jax.grad` that is wrong


@jax.custom_vjp
def _twice(tree):
    return tree


_twice.defvjp(
    lambda tree: (tree, None), lambda _, d: (jax.tree.map(lambda a: 2 * a, d),)
)


def _plain_with_wrong_gradient(layer, params, carry, xs, side):
    return unrolls.scan(layer, _twice(params), carry, xs, side)


@pytest.mark.parametrize("reference", [IN_NUMPY, None])
def test_jax_grad_is_blamed_where_it_is_wrong(reference):
    report = check(CELL, reference=reference, plain=_plain_with_wrong_gradient)
    assert {row.leaf: row.wrong for row in report.wrong} == dict.fromkeys(
        LEAVES[1:4], "jax.grad"
    )
    assert "3 of these WRONG" in str(report)
    assert str(report).count("jax.grad") == 3


def test_both_are_blamed_where_both_are_wrong():
    with pytest.raises(GradientError, match="wrong: both"):
        check(scaled("b", 2), plain=_plain_with_wrong_gradient, reference=IN_NUMPY)


# The reference


def test_a_wrong_reference_is_noticed():
    other = _numpy_cells.elman(_numpy_cells.relu)
    with pytest.raises(GradientError, match="wrong: both"):
        check(CELL, reference=other)


def test_a_reference_of_other_shapes_is_noticed():
    def narrower(*arguments):
        carry, ys = IN_NUMPY(*arguments)
        return carry, ys[..., :2]

    with pytest.raises(AssertionError, match=r"\(3, 2, 2\)"):
        check(CELL, reference=narrower)


# Arguments


def _choosing_step(p, h, x):
    h = jnp.tanh(x["features"] @ p["w"] + h @ p["r"])
    y = h[..., p["order"]] * (1 + x["symbols"][..., None])
    return h, y


def _choosing_init(key):
    k_w, k_r = jax.random.split(key)
    return dict(
        w=jax.random.normal(k_w, (3, 4)),
        r=jax.random.normal(k_r, (4, 4)),
        order=jnp.array([2, 0, 3, 1]),
    )


def _choosing_carry(p, batch_shape):
    return jnp.zeros((*batch_shape, 4), p["w"].dtype)


def _mixed(key, T, batch_shape):
    shape = (T, *batch_shape)
    return dict(
        features=jax.random.normal(key, (*shape, 3)),
        symbols=jax.random.randint(key, shape, 0, 5),
    )


def test_integer_leaves_are_not_perturbed():
    seen = set()

    def reference(params, carry, xs, side):
        del side
        assert all(type(a) is np.ndarray for a in jax.tree.leaves((params, xs)))
        assert np.issubdtype(xs["symbols"].dtype, np.integer)
        seen.add((params["order"].tobytes(), xs["symbols"].tobytes()))
        ys = []
        for x, symbols in zip(xs["features"], xs["symbols"], strict=True):
            carry = np.tanh(x @ params["w"] + carry @ params["r"])
            ys.append(carry[..., params["order"]] * (1 + symbols[..., None]))
        return carry, np.stack(ys)

    cell = cells.from_step(_choosing_step, _choosing_init, _choosing_carry)
    report = check(cell, _mixed, reference=reference)
    names = [row.leaf for row in report.rows]
    assert names == ["carry", "params['r']", "params['w']", "xs['features']", *RESULTS]
    assert len(seen) == 1


@pytest.mark.parametrize("layer", [3, None, unrolls.bptt, cells.elman])
def test_what_is_no_cell_is_refused(layer):
    with pytest.raises(TypeError, match="expected a Cell, a Layer or Sections, got"):
        check(layer)


def test_members_take_their_options_and_the_callers():
    seen = {}

    def unroll(*arguments, **options):
        seen.update(options)
        return unrolls.bptt(*arguments, **options)

    member = verify.CELLS["elman"]._replace(options=dict(unroll=unroll))
    report = verify.check_member("a name", member, **ONE)
    assert isinstance(report, Report)
    assert report.name == "a name"
    assert seen == dict(chunk=2)


# Differences


def test_differences_are_of_fourth_order():
    theta = np.array([0.3, -1.2, 2.0])
    v = np.vstack([np.eye(3), np.full((1, 3), 3**-0.5)])
    found = _differences.along(lambda points: np.sin(points).sum(-1), theta, v)
    np.testing.assert_allclose(found, v @ np.cos(theta), rtol=0, atol=1e-11)


def test_differences_across_a_kink_are_left_out():
    theta, v = np.array([1e-5, 1.0]), np.eye(2)
    found = _differences.along(lambda points: np.abs(points).sum(-1), theta, v)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(1)


@functools.cache
def _directions(size):
    return _differences.directions(np.random.default_rng(0), [size])[0]


@pytest.mark.parametrize(("size", "n"), [(1, 1), (8, 8), (9, 8), (100, 8)])
def test_directions_are_unit_vectors_and_all_axes_of_a_small_leaf(size, n):
    v = _directions(size)
    assert v.shape == (n, size)
    np.testing.assert_allclose(np.linalg.norm(v, axis=-1), 1)
    assert np.linalg.matrix_rank(v) == n
