"""Tables of configurations."""

import jax
import numpy as np
import pytest

from bptt_jax import cells, sweep


def test_grid_has_all_combinations_and_the_last_changes_fastest():
    space = sweep.grid(lr=[0.1, 0.2], seed=range(3))
    rows = [tuple(space.row(i).values()) for i in range(space.size)]
    assert rows == [(a, b) for a in (0.1, 0.2) for b in range(3)]


def test_product_and_zip():
    pairs = sweep.zip(lr=[0.1, 0.2], clip=[1, 5])
    space = sweep.product(pairs, sweep.grid(seed=range(2)))
    assert space.columns["lr"] == [0.1, 0.1, 0.2, 0.2]
    assert space.columns["clip"] == [1, 1, 5, 5]
    assert space.columns["seed"] == [0, 1, 0, 1]
    beside = sweep.zip(pairs, seed=[7, 8])
    assert beside.row(1) == dict(lr=0.2, clip=5, seed=8)


def test_static_choices_are_an_outer_level():
    space = sweep.product(
        sweep.grid(lr=[0.1, 0.2]), sweep.static(cell=[cells.lstm, cells.gru])
    )
    (first, rows), (second, others) = sweep.groups(space)
    assert (first, second) == (dict(cell=cells.lstm), dict(cell=cells.gru))
    assert (rows, others) == ([0, 2], [1, 3])


def test_random_draws():
    draw = dict(
        lr=sweep.log_uniform(1e-4, 1e-1),
        p=sweep.uniform(-1, 1),
        n=sweep.integers(2, 5),
        width=sweep.choice([16, 64]),
        clip=1.0,
    )
    space = sweep.random(400, jax.random.key(0), **draw)
    lr = np.log10(space.columns["lr"])
    assert lr.min() >= -4
    assert lr.max() < -1
    assert np.abs(np.histogram(lr, 3, (-4, -1))[0] / 400 - 1 / 3).max() < 0.1
    assert set(space.columns["n"]) == {2, 3, 4}
    assert set(space.columns["width"]) == {16, 64}
    assert min(space.columns["p"]) < 0 < max(space.columns["p"])
    assert set(space.columns["clip"]) == {1.0}
    again = sweep.random(400, jax.random.key(0), **draw)
    assert again == space
    assert sweep.random(400, jax.random.key(1), **draw) != space


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: sweep.grid(), ValueError, "at least one column"),
        (lambda: sweep.grid(lr=[]), ValueError, "at least one configuration"),
        (lambda: sweep.grid(cell=["lstm"]), TypeError, "cell: expected numbers"),
        (lambda: sweep.grid(lr=[0.1, np.nan]), ValueError, "lr: expected finite"),
        (lambda: sweep.grid(loss=[1.0]), ValueError, "loss: a column of the results"),
        (lambda: sweep.zip(a=[1, 2], b=[1]), ValueError, "columns of one length"),
        (
            lambda: sweep.product(sweep.grid(a=[1]), sweep.grid(a=[2])),
            ValueError,
            "a: a column of more than one space",
        ),
        (lambda: sweep.log_uniform(0, 1), ValueError, "low: expected a positive"),
        (lambda: sweep.uniform(1, 1), ValueError, "high: expected more than"),
        (
            lambda: sweep.random(0, jax.random.key(0), a=1),
            ValueError,
            "n: expected a number",
        ),
        (lambda: sweep.halving(1), ValueError, "eta: expected a whole number"),
    ],
)
def test_what_makes_no_sense_is_named(make, error, said):
    with pytest.raises(error, match=said):
        make()
