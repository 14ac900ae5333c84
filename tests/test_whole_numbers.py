"""NumPy's integers are whole numbers wherever sizes are taken; True and 2.0 are none.

Those of factories are in `test_pickling`: there they give the very same object.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, models, sequences, sweep, train, unrolls
from support.training import text

T, B, I, H = 8, 2, 3, 4
CELL = cells.gru(I, H)
XS = np.random.default_rng(0).normal(size=(T, B, I)).astype("f")
n = np.int64

WAYS = {
    "bptt": (unrolls.bptt, dict(chunk=3)),
    "both_modes": (unrolls.both_modes, dict(chunk=3)),
    "checkpointed": (unrolls.checkpointed, dict(chunk=2, slots=2, kept=1)),
    "truncated": (unrolls.truncated, dict(window=4, stride=2, chunk=2)),
    "burn_in": (sequences.burn_in, dict(steps=3)),
}


@pytest.mark.parametrize("name", WAYS)
def test_unrolls(name):
    run, sizes = WAYS[name]
    params = CELL.init(jax.random.key(0))
    carry = CELL.init_carry(params, (B,))

    def loss(params, sizes):
        return (run(CELL, params, carry, XS, **sizes)[1] ** 2).sum()

    gradient = jax.grad(loss)
    found = gradient(params, {k: n(v) for k, v in sizes.items()})
    want = gradient(params, sizes)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)
    for k in sizes:
        for bad in (2.0, np.float64(2), True):
            with pytest.raises(ValueError, match=f"{k}: "):
                loss(params, dict(sizes, **{k: bad}))


def test_a_number_of_steps_or_of_symbols():
    params = CELL.init(jax.random.key(0))
    still = cells.from_step(lambda p, h, x: (h, h), lambda key: {}, _zeros)
    assert unrolls.bptt(still, {}, jnp.ones(2), None, length=n(5))[1].shape == (5, 2)
    model = models.symbols(5, 3, (cells.gru(3, H),), 5, H)
    params, tokens = model.init(jax.random.key(0)), np.array([1, 2])
    key = jax.random.key(1)
    assert models.generate(model, params, tokens, n(6), 1.0, key).shape == (6,)


def _zeros(params, batch_shape):
    return jnp.zeros((*batch_shape, 2))


def test_training(tmp_path):
    """Also where they are written down."""
    options = train.RunOptions(
        updates=n(2), per_dispatch=n(1), evaluate_every=n(2), checkpoint_every=n(2),
        evaluate_batches=n(1), keep=n(1),
    )  # fmt: skip
    assert int(text().run(tmp_path, options).state.position) == 2
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines][-1] == 2
    with pytest.raises(ValueError, match="updates: expected a whole number"):
        text().run(tmp_path, options._replace(updates=np.float64(2)))


def descent(config, key):
    del key
    return jnp.float32(1), lambda x: (x - config["lr"], dict(loss=x))


def test_sweep(tmp_path):
    space = sweep.random(n(3), jax.random.key(0), lr=sweep.uniform(0.0, 1.0))
    assert space.size == 3
    assert sweep.halving(n(2), n(2)) == sweep.halving(2, 2)
    static = sweep.static(hidden=[n(4), n(8)])
    assert [type(v) for v in static.columns["hidden"]] == [int, int]
    options = dict(steps=n(4), evaluate_every=n(2), lanes=n(3), keep=n(1))
    done = sweep.run(descent, space, out=tmp_path, **options)
    assert done.table.num_rows == 3 * 2


CELLS = {
    name: getattr(cells, name)
    for name in ("ctrnn", "elman", "gru", "indrnn", "lstm", "mgu")
}


@pytest.mark.parametrize("name", CELLS)
def test_features_of_an_input(name):
    for bad in (2.0, True, -1, "3"):
        with pytest.raises(
            ValueError, match="n_in must be a whole number of at least 0"
        ):
            CELLS[name](bad, H)
    assert CELLS[name](n(I), H) is CELLS[name](I, H)
