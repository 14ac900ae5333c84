"""What a factory made is compared, shown and kept by how it was made."""

import functools

import jax
import jax.numpy as jnp
import pytest

from bptt_jax import _factory, cells, estimators, layers, objectives, unrolls
from support.compilations import compilations

WHOLE = functools.partial(unrolls.truncated, window=100)


def model(n=8):
    inner = layers.residual(cells.gru(n, n, reset_after=False))
    return layers.stack(cells.zoneout(cells.lstm(3, n), 0.1), inner, layers.dense(n, 2))


def forget(monkeypatch, kept: int):
    monkeypatch.setattr(_factory, "KEPT", kept)
    for n in range(20, 20 + kept + 3):  # whatever was kept is pushed out
        estimators.exact(model(n), objectives.squared_error, unroll=WHOLE)


@pytest.fixture
def two_of_one(monkeypatch):
    """The same model made twice, the second time anew."""
    first = model()
    forget(monkeypatch, 1)
    second = model()
    assert first is not second
    return first, second


def test_what_is_made_anew_is_equal(two_of_one):
    first, second = two_of_one
    assert first == second
    assert hash(first) == hash(second)
    assert not first != second
    assert first != model(9)
    assert len({first, second, model(9)}) == 2


def test_with_a_bound_of_one_nothing_compiles_twice(two_of_one, monkeypatch):
    first, second = two_of_one
    params = first.init(jax.random.key(0))
    xs = jnp.ones((6, 2, 3))

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(layer, params):
        def loss(params):
            return unrolls.bptt(layer, params, layer.init_carry(params, (2,)), xs)[
                1
            ].sum()

        return jax.grad(loss)(params)

    gradient(first, params)
    with compilations() as found:
        gradient(second, params)
        forget(monkeypatch, 1)
        gradient(model(), params)
    assert found == []


def test_equal_estimators_of_equal_partials():
    loss = objectives.squared_error
    one, other = (
        estimators.exact(
            model(), loss, unroll=functools.partial(unrolls.truncated, window=w)
        )
        for w in (5, 5)
    )
    assert one is other
    assert one != estimators.exact(model(), loss, unroll=WHOLE)


def test_a_changed_record_is_another_and_equal_to_one_changed_alike():
    cell = cells.gru(3, 8)
    named = cell._replace(name="mine")
    assert named != cell
    assert named == cell._replace(name="mine")
    assert hash(named) == hash(cell._replace(name="mine"))
    assert named._replace(name=cell.name) != cells.lstm(3, 8)


def test_hooks_that_factories_made_are_equal(monkeypatch):
    first = layers.clip_d_carry(1.0)
    monkeypatch.setattr(_factory, "KEPT", 1)
    layers.clip_d_carry(2.0)
    second = layers.clip_d_carry(1.0)
    assert first is not second
    assert first == second
    assert layers.recurrent(cells.gru(3, 8), first) == layers.recurrent(
        cells.gru(3, 8), second
    )
    assert first != layers.scale_d_carry(1.0)


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (lambda: cells.lstm(3, 8), "cells.lstm(3, 8)"),
        (
            lambda: cells.elman(3, 5, activation=jax.nn.relu),
            "cells.elman(3, 5, activation=relu)",
        ),
        (
            lambda: layers.stack(cells.gru(3, 4), layers.dense(4, 2)),
            "layers.stack(cells.gru(3, 4), layers.dense(4, 2))",
        ),
        (
            lambda: cells.gru(3, 8)._replace(keyed=True),
            "cells.gru(3, 8)._replace(keyed=True)",
        ),
        (lambda: layers.scale_d_carry(0.5), "layers.scale_d_carry(0.5)"),
        (
            lambda: layers.recurrent(cells.gru(3, 8), save=layers.GATES),
            "layers.recurrent(cells.gru(3, 8), save=layers.GATES)",
        ),
        (
            lambda: estimators.exact(
                cells.gru(3, 2), objectives.squared_error, unroll=WHOLE
            ),
            "estimators.exact(cells.gru(3, 2), squared_error, "
            "unroll=unrolls.truncated(window=100))",
        ),
    ],
)
def test_is_shown_as_it_was_made(made, shown):
    assert repr(made()) == shown
