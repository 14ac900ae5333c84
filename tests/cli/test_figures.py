"""The figures of predictions that the command line draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, models, plots, tasks
from bptt_jax.cli import _figures

RNG = np.random.default_rng(0)
SIGNALS = [RNG.normal(size=(n, 2)) for n in RNG.integers(3, 9, 40)]


def constant(task, bias):
    """A model whose outputs are its bias, and its parameters."""
    model = models.features((cells.elman(task.n_in, 4),), task.n_out, 4)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    leaves, form = jax.tree.flatten(params)
    (at,) = [i for i, a in enumerate(leaves) if a.shape == (task.n_out,)]
    leaves[at] = jnp.asarray(bias, jnp.float32)
    return model, jax.tree.unflatten(form, leaves)


@pytest.fixture
def drawn(monkeypatch):
    """Name -> what the figure was drawn of."""
    found = {}
    for name in ("confusion", "forecast", "residuals"):

        def note(*given, name=name, of=getattr(plots, name), **more):
            found[name] = (*given, more)
            return of(*given, **more)

        monkeypatch.setattr(plots, name, note)
    return found


@pytest.mark.parametrize("per_step", [False, True])
def test_of_classes(per_step, drawn, tmp_path):
    labels = RNG.choice(["a", "b", "c"], 40)
    each = [np.full(len(s), x) for s, x in zip(SIGNALS, labels, strict=True)]
    targets = each if per_step else labels
    task = tasks.arrays(SIGNALS, targets, batch=7, held_out=np.arange(15))
    model, params = constant(task, [0, 1, 0])
    assert _figures.write(tmp_path, task, model, params, 99) == ["confusion.png"]
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    counts, more = drawn["confusion"]
    weights = np.array(list(map(len, SIGNALS[:15]))) if per_step else np.ones(15)
    wanted = [weights[labels[:15] == name].sum() for name in "abc"]
    np.testing.assert_array_equal(counts[:, 1], wanted)
    assert counts.sum() == sum(wanted)
    assert more["labels"] == ("a", "b", "c")
    assert more["unit"] == f"held-out {'steps' if per_step else 'sequences'}"


def test_of_numbers(drawn, tmp_path):
    sums = np.array([100 * a.sum() for a in SIGNALS], np.float32)
    task = tasks.arrays(SIGNALS, sums, batch=7, held_out=np.arange(15))
    model, params = constant(task, [0.5])
    assert _figures.write(tmp_path, task, model, params, 99) == ["residuals.png"]
    values, truth, _ = drawn["residuals"]
    mean, deviation = (a[0] for a in task.encoding.targets)
    np.testing.assert_allclose(values, np.full(15, 0.5 * deviation + mean), rtol=1e-5)
    np.testing.assert_allclose(sorted(truth), sorted(sums[:15]), rtol=1e-4)


@pytest.mark.parametrize("targets", [None, [1]])
def test_of_a_forecast(targets, drawn, tmp_path):
    """The window of median error, in the data's unit, and what was known before it."""
    series = np.stack([np.arange(200.0) * 7, 1000 + np.arange(200.0) ** 2], 1)
    task = tasks.windows(series, T=6, horizon=3, batch=8, held_out=30, targets=targets)
    model, params = constant(task, np.zeros(task.n_out))
    names = _figures.write(tmp_path, task, model, params, 99)
    assert names == ["forecast.png", "residuals.png"]
    truth, forecasts, more = drawn["forecast"]
    column = series[:, 0 if targets is None else 1]
    begin = np.flatnonzero(np.isclose(column, truth[0], rtol=1e-5))[0]
    np.testing.assert_allclose(truth, column[begin : begin + 3], rtol=1e-5)
    np.testing.assert_allclose(more["history"], column[begin - 6 : begin], rtol=1e-5)
    np.testing.assert_allclose(
        forecasts["last value"], column[[begin - 1] * 3], rtol=1e-5
    )
    mean = task.encoding.targets.mean[0]
    np.testing.assert_allclose(forecasts["model"], np.full(3, mean), rtol=1e-5)
    # 28 windows end in the held-out part, and errors rise with time
    assert begin == 170 + 14
    assert drawn["residuals"][0].shape == (3 * 28,)


def test_not_of_text_nor_of_tasks_without_an_encoding(tmp_path):
    task = tasks.adding(batch=3, T=6)
    model, params = constant(task, [0.0])
    assert _figures.write(tmp_path, task, model, params, 2) == []
    assert not list(tmp_path.iterdir())
