"""Records pickle by their factory and its arguments: the same object, in any process."""

import copy
import functools
import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import (
    Cell,
    StepVJP,
    _factory,
    cells,
    diagnose,
    estimators,
    layers,
    models,
    objectives,
    sweep,
    tasks,
    unrolls,
)
from support.members import CELLS, LAYERS
from support.training import TESTS

# Made where they are asked for: a factory keeps so many, and other tests ask it for more.


def the_model():
    return models.features((cells.elman(2, 4, activation=jax.nn.relu),), 1, 4)


def the_task():
    return tasks.adding(batch=2, T=6)


def same(record) -> bool:
    return pickle.loads(pickle.dumps(record)) is record


@pytest.mark.parametrize("name", [*CELLS, *LAYERS])
def test_every_cell_and_layer(name):
    """The very object, by pickle and by `copy`, though its functions are closures."""
    record = (CELLS | LAYERS)[name].make()
    assert same(record)
    assert copy.deepcopy(record) is record


def made_estimators():
    model = the_model()
    return {
        "exact": estimators.exact(model, objectives.squared_error),
        "a partial": estimators.exact(
            model,
            objectives.squared_error,
            unroll=functools.partial(unrolls.bptt, chunk=2),
        ),
        "reversed": estimators.exact(
            model, objectives.squared_error, unroll=unrolls.reverse(unrolls.bptt)
        ),
        "stream": estimators.stream(
            model, objectives.squared_error, window=4, stride=2
        ),
        "adaptive": diagnose.adaptive_truncation(model, objectives.squared_error),
        "data_parallel": estimators.data_parallel(
            estimators.exact(model, objectives.squared_error),
            jax.make_mesh((1,), ("data",)),
        ),
    }


@pytest.mark.parametrize("name", made_estimators())
def test_estimators(name):
    assert same(made_estimators()[name])


def test_functions_that_a_factory_made():
    assert same(unrolls.reverse(unrolls.bptt))
    assert same(models.bidirectional(cells.gru(2, 3), cells.gru(2, 3)))


@pytest.mark.parametrize(
    "make",
    [tasks.adding, tasks.coin, tasks.copy_memory, tasks.sine, tasks.temporal_order],
)
def test_drawn_tasks(make):
    assert same(make())


def test_tasks_that_are_read(tmp_path):
    """They hold arrays, so they are built again: a file's by its path."""
    (tmp_path / "text.txt").write_text("to be or not to be " * 50)
    for made in (
        tasks.text_file(tmp_path / "text.txt", batch=2, T=5),
        tasks.text(tasks.file_corpus(tmp_path / "text.txt"), batch=2, T=5),
    ):
        again = pickle.loads(pickle.dumps(made))
        assert again.text.symbols == made.text.symbols
        for a, b in zip(again.train.read(0, 3), made.train.read(0, 3), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(pickle.dumps(tasks.text_file(tmp_path / "text.txt", batch=2, T=5))) < 500


def test_a_training_of_a_sweep():
    model, task = the_model(), the_task()
    estimator = estimators.exact(model, task.objective)
    one = sweep.training(task, model, estimator, optax.adam)
    again = pickle.loads(pickle.dumps(one))
    config = dict(learning_rate=jnp.float32(0.1))
    states = [t.init(config, jax.random.key(0)) for t in (one, again)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for a, b in zip(*map(jax.tree.leaves, map(_data, states)), strict=True):
        np.testing.assert_array_equal(a, b)


def _data(state):
    return state._replace(key=jax.random.key_data(state.key))


@jax.jit
def step(params, h, x):
    h = jnp.tanh(params * h + x)
    return h, h


def init(key):
    return jax.random.normal(key, (3,))


def init_carry(params, batch_shape):
    return jnp.zeros((*batch_shape, 3))


def test_records_of_ones_own():
    """By their fields; and what was made from a library's record, by what changed."""
    assert same(cells.from_step(step, init, init_carry))
    own = Cell(init, init_carry, step, StepVJP(*[step] * 6))
    assert pickle.loads(pickle.dumps(own)) == own
    changed = cells.gru(2, 3)._replace(couplings=init)
    again = pickle.loads(pickle.dumps(changed))
    assert again == changed != cells.gru(2, 3)
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(own._replace(init=lambda key: key))


IN_ANOTHER = """
import pickle, sys
sent = pickle.load(sys.stdin.buffer)
again = pickle.loads(pickle.dumps(sent))
assert all(again[k] is sent[k] for k in sent)
from bptt_jax import cells
assert sent["cell"] is cells.lstm(2, 3, peepholes=True)
pickle.dump(sent, sys.stdout.buffer)
"""


def test_another_process_has_the_same():
    """Here and there equal arguments give one object; what comes back is ours again."""
    sent = dict(
        cell=cells.lstm(2, 3, peepholes=True),
        model=the_model(),
        task=the_task(),
        **made_estimators(),
    )
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER],
        input=pickle.dumps(sent),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr.decode()
    back = pickle.loads(done.stdout)
    assert all(back[name] is sent[name] for name in sent)


# the cache


def test_equal_partials_are_the_same_option():
    def made(*args, **kwargs):
        unroll = functools.partial(unrolls.bptt, *args, **kwargs)
        return estimators.exact(the_model(), objectives.squared_error, unroll=unroll)

    assert made(chunk=4) is made(chunk=4)
    assert made(chunk=4) is not made(chunk=5)
    relu = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)
    again = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)
    assert cells.elman(2, 3, activation=relu) is cells.elman(2, 3, activation=again)


def test_a_partial_of_an_array_is_equal_to_itself_alone():
    def made(partial):
        return cells.elman(2, 3, activation=partial)

    scaled = functools.partial(jnp.multiply, np.ones(3))
    assert made(scaled) is made(scaled)
    assert made(scaled) is not made(functools.partial(jnp.multiply, np.ones(3)))


def test_the_cache_is_bounded(monkeypatch):
    """What was asked for last is kept; what is in use goes on when it is not."""
    monkeypatch.setattr(_factory, "KEPT", 3)

    @_factory.factory
    def made(n):
        return Cell(lambda key: n, *[None] * 3)

    first, *_ = [made(n) for n in range(3)]
    assert made(0) is first
    last = made(3)  # in the place of 1
    assert made(0) is first
    assert made(3) is last
    for n in range(10):
        made(n)
    assert made(0) is not first
    assert first.init(None) == 0


def test_what_is_built_anew_equals_what_is_no_longer_kept(monkeypatch):
    """Though its functions are others, and it was hashed before it was known who made it."""
    monkeypatch.setattr(_factory, "KEPT", 1)

    @_factory.factory
    def made(n):
        cell = Cell(lambda key: n, *[None] * 3)
        hash(cell)
        return cell

    first, other = made(0), made(1)
    again = made(0)
    assert again is not first
    assert again == first
    assert not again != first
    assert hash(again) == hash(first)
    assert first != other


def test_who_made_it_first_is_who_made_it():
    """Unless the call was within another factory's."""
    there = cells.gru(2, 59)  # sizes that no other test has

    @_factory.factory
    def handed_on(n):
        return cells.gru(2, n)

    assert handed_on(59) is there
    assert "gru(2, 59)" in repr(there)
    assert "handed_on(61)" in repr(handed_on(61))


def test_numbers_of_numpy_are_numbers():
    n = np.int64(4)
    assert cells.gru(np.int32(2), n) is cells.gru(2, 4)
    assert models.features((cells.gru(2, 4),), np.uint8(1), n) is models.features(
        (cells.gru(2, 4),), 1, 4
    )
    assert layers.dropout(np.float64(0.25)) is layers.dropout(0.25)
    assert cells.zoneout(cells.gru(2, 4), np.float32(0.25)) is cells.zoneout(
        cells.gru(2, 4), 0.25
    )
    assert tasks.adding(batch=np.int64(2), T=np.int16(6)) is the_task()
    with pytest.raises(ValueError, match="n_hidden"):
        cells.gru(2, np.float64(4))
    with pytest.raises(ValueError, match="n_hidden"):
        cells.gru(2, np.bool_(True))
