"""Parts with names: run in the order of the call, which sorted keys are not."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import (
    Side,
    cells,
    interop,
    layers,
    models,
    objectives,
    recipes,
    unrolls,
)


def model():
    """Its names are in the opposite order of the alphabet."""
    return layers.stack(
        zone=cells.lstm(3, 4), mid=cells.lstm(4, 4), dense=layers.dense(4, 2)
    )


def plain():
    return layers.stack(cells.lstm(3, 4), cells.lstm(4, 4), layers.dense(4, 2))


NAMES = ("zone", "mid", "dense")


def data(seed=0, shape=(7, 2)):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(*shape, n)), jnp.float32) for n in (3, 2)]


def test_it_is_the_stack_without_names():
    xs, ys = data()
    params = model().init(jax.random.key(1))
    each = tuple(params[name] for name in NAMES)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, each, plain().init(jax.random.key(1)))
    )

    def loss(layer):
        layer = layers.with_loss(layer, objectives.squared_error)

        def of(params):
            carry = layer.init_carry(params, (2,))
            return unrolls.bptt(layer, params, carry, xs, Side(targets=ys))[1].sum()

        return jax.jit(jax.value_and_grad(of))

    value, grads = loss(model())(params)
    want, d = loss(plain())(each)
    np.testing.assert_array_equal(value, want)
    for name, part in zip(NAMES, d, strict=True):
        jax.tree.map(np.testing.assert_array_equal, grads[name], part)


def test_two_that_are_swapped_are_run_in_the_other_order():
    one, other = cells.gru(3, 3), cells.elman(3, 3)
    first = layers.stack(one=one, other=other)
    second = layers.stack(other=other, one=one)
    assert first != second
    assert first is layers.stack(one=one, other=other)
    params, xs = first.init(jax.random.key(0)), data()[0]
    assert jax.tree.structure(params) == jax.tree.structure(
        second.init(jax.random.key(0))
    )
    found = [
        unrolls.bptt(layer, params, layer.init_carry(params, (2,)), xs)[1]
        for layer in (first, second)
    ]
    by_hand = []
    for names in (("one", "other"), ("other", "one")):
        ys = xs
        for name in names:
            cell = dict(one=one, other=other)[name]
            _, ys = unrolls.scan(
                cell, params[name], cell.init_carry(params[name], (2,)), ys
            )
        by_hand.append(ys)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 0.01


@pytest.mark.parametrize("make", [model, lambda: layers.residual(z=cells.gru(3, 3))])
def test_the_order_is_kept_by_whoever_keeps_models(make):
    layer = make()
    sorted_by_somebody = json.loads(json.dumps(recipes.write(layer), sort_keys=True))
    assert recipes.read(sorted_by_somebody) == layer
    assert pickle.loads(pickle.dumps(layer)) is layer
    assert list(recipes.write(layer)["recipe"]["named"][0])[0] in ("zone", "z")


def test_a_recipe_with_damaged_names_is_refused():
    data = recipes.write(model())
    data["recipe"]["named"].append(data["recipe"]["named"][0])
    with pytest.raises(ValueError, match=r"layers.stack: expected pairs .* once"):
        recipes.read(data)


def test_parts_come_in_the_order_of_running():
    paths = [jax.tree_util.keystr(part.path) for part in layers.parts(model())]
    assert paths == ["['zone']", "['mid']"]
    params = model().init(jax.random.key(0))
    carry = model().init_carry(params, (2,))
    assert list(layers.why(model(), params, carry, data()[0])) == paths


def test_what_a_watch_shows_comes_in_the_order_of_running():
    layer = layers.stack(second=cells.gru(3, 5), first=cells.gru(5, 4))
    params, xs = layer.init(jax.random.key(0)), data()[0]
    (carry, ys), back = unrolls.pullback(
        layer, params, layer.init_carry(params, (2,)), xs,
        watch=lambda seen: (unrolls.contract(seen), seen.d_states),
    )  # fmt: skip
    pulled = back(jax.tree.map(jnp.zeros_like, carry), jnp.ones_like(ys))
    assert [a.shape[-1] for a in pulled.seen] == [5, 4]
    assert [path[0].key for path in pulled.paths] == ["second", "first"]


def test_a_loss_is_put_into_the_last_of_the_call():
    judged = layers.with_loss(model(), objectives.squared_error)
    last = layers.with_loss(layers.dense(4, 2), objectives.squared_error)
    assert layers.parts_of(judged)[-1] == last
    assert layers.keys_of(judged) == NAMES


def test_options_reach_the_parts():
    kept = layers.with_options(model(), save=layers.GATES)
    assert [part.recurrent.save for part in layers.parts(kept)] == [layers.GATES] * 2
    assert layers.keys_of(kept) == NAMES


def test_dropouts_with_names_draw_as_without():
    xs, drop = jnp.ones((5, 2, 3)), layers.dropout(0.5)
    side = Side(keys=jax.random.split(jax.random.key(3), 5))
    named, plain = layers.stack(b=drop, a=drop), layers.stack(drop, drop)
    _, one, _ = named.fwd(dict(b=(), a=()), dict(b=(), a=()), xs, side)
    _, other, _ = plain.fwd(((), ()), ((), ()), xs, side)
    np.testing.assert_array_equal(one, other)


def test_one_part_may_have_the_name_of_an_argument():
    assert layers.keys_of(layers.stack(layers=cells.gru(3, 3), f=layers.dense(3, 1)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: layers.stack(layers.dense(3, 3), a=layers.dense(3, 3)),
            "names for all",
        ),
        (lambda: layers.stack(a=3), "a: expected a Cell or a Layer"),
        (
            lambda: layers.residual(layers.dense(3, 3), a=layers.dense(3, 3)),
            "got both: a",
        ),
        (lambda: layers.residual(), "layer: expected a Cell or a Layer"),
        (lambda: layers.stack(a=[1]), "a must be hashable"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises((TypeError, ValueError), match=says):
        make()


def test_a_residual_block_computes_in_the_dtype_of_its_layer():
    block = layers.residual(a=layers.dense(3, 3, dtype=jnp.bfloat16))
    params, xs = block.init(jax.random.key(0)), data()[0]
    _, ys, residuals = block.fwd(params, dict(a=()), xs, Side())
    assert ys.dtype == jnp.bfloat16
    ds = block.bwd(params, dict(a=()), xs, Side(), ys, residuals, dict(a=()), ys)
    assert (ds[2].dtype, ds[0]["a"]["kernel"].dtype) == (jnp.float32, jnp.float32)


def test_weights_of_other_libraries_by_names():
    cells_of = dict(zone=cells.lstm(3, 4), mid=cells.lstm(4, 4))
    params = layers.stack(**cells_of).init(jax.random.key(0))
    by_name = interop.torch.to_state_dict(params, cells=cells_of)
    want = interop.torch.to_state_dict(tuple(params[name] for name in cells_of))
    assert list(by_name) == list(want)
    for name, a in want.items():
        np.testing.assert_array_equal(by_name[name], a)
    with pytest.raises(ValueError, match=r"cells: expected a dict by the names .*mid"):
        interop.torch.to_state_dict(params)


def test_inputs_by_names_are_joined_in_the_order_of_the_call():
    zone, alpha = layers.dense(3, 2), layers.dense(2, 4)
    xs, ys = data()
    both = dict(zone=xs, alpha=ys)
    for named in (dict(zone=zone, alpha=alpha), dict(alpha=alpha, zone=zone)):
        layer = layers.inputs(**named)
        params = layer.init(jax.random.key(0))
        carry = layer.init_carry(params, (2,))
        _, found, _ = layer.fwd(params, carry, both, Side())
        each = [
            part.fwd(params[name], (), both[name], Side())[1]
            for name, part in named.items()
        ]
        np.testing.assert_array_equal(found, np.concatenate(each, -1))
    assert layers.inputs(zone=zone, alpha=alpha) != layers.inputs(
        alpha=alpha, zone=zone
    )


def test_dropouts_side_by_side_draw_from_keys_of_their_own():
    layer = layers.inputs(one=layers.dropout(0.5), other=layers.dropout(0.5))
    xs = jnp.ones((5, 2, 3))
    side = Side(keys=jax.random.split(jax.random.key(3), 5))
    none = dict(one=(), other=())
    _, ys, kept = layer.fwd(none, none, dict(one=xs, other=xs), side)
    one, other = jnp.split(ys, 2, -1)
    assert (one != other).any()
    *_, d_xs, _ = layer.bwd(
        none, none, dict(one=xs, other=xs), side, ys, kept, none, jnp.ones_like(ys)
    )
    np.testing.assert_array_equal(d_xs["one"], one)
    np.testing.assert_array_equal(d_xs["other"], other)


def test_outputs_that_are_joined_are_stored_once():
    cell = cells.gru(3, 4)
    layer = layers.inputs(one=cell, other=cell)
    params = layer.init(jax.random.key(0))
    xs = dict(one=data()[0], other=data()[0])
    _, ys, residuals = layer.fwd(params, layer.init_carry(params, (2,)), xs, Side())
    assert ys.shape == (7, 2, 8)
    assert jax.tree.leaves(residuals) == []  # states are outputs
    found = models.summary(layer, xs)
    assert [row.path for row in found.rows] == ["", "['one']", "['other']"]
    assert found.rows[0].stored == sum(row.stored for row in found.rows[1:])


@pytest.mark.parametrize("xs", [jnp.ones((5, 3)), dict(one=jnp.ones((5, 3)))])
def test_inputs_by_other_names_are_refused(xs):
    layer = layers.inputs(one=layers.dense(3, 3), other=layers.dense(3, 3))
    params = layer.init(jax.random.key(0))
    with pytest.raises(ValueError, match="inputs: expected a dictionary of one, other"):
        unrolls.bptt(layer, params, layer.init_carry(params, ()), xs)
