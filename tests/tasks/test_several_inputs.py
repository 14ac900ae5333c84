"""A dictionary of arrays as inputs: a task, a training, a run, predictions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import InContext, cells, estimators, layers, tasks, train

N = 40
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(3, 9, N)
SOUND = [5 + 3 * RNG.normal(size=(T, 2)) for T in LENGTHS]
SIGN = [RNG.integers(0, 6, T) for T in LENGTHS]
LIGHT = [RNG.random(size=(T, 3)) > 0.5 for T in LENGTHS]
XS = dict(sound=SOUND, sign=SIGN, light=LIGHT)
YS = [("no", "yes")[int(s.sum() > 5 * 2 * len(s))] for s in SOUND]


def task(**options):
    return tasks.arrays(XS, YS, batch=8, **options)


def alone(xs, **options):
    return tasks.arrays(xs, YS, batch=8, **options)


def batch_of(stream, i):
    item = jax.tree.map(lambda a: jnp.asarray(a[0]), stream.read(i, 1))
    return stream.batch(item, jax.random.key(0))


def test_sizes_are_by_name():
    made = task()
    assert made.n_in == dict(sound=2, sign=6, light=3)
    assert (made.tokens, made.n_out) == (("sign",), 2)
    assert made.encoding.inputs["sign"] is made.encoding.inputs["light"] is None


@pytest.mark.parametrize("name", XS)
def test_each_is_what_it_is_alone(name):
    """The same sequences in the same batches, scaled the same way."""
    one, whole = alone(XS[name]), task()
    for part in ("train", "held_out"):
        a, b = (batch_of(getattr(made, part), 1) for made in (one, whole))
        np.testing.assert_array_equal(a.inputs, b.inputs[name])
        assert a.inputs.dtype == b.inputs[name].dtype
        np.testing.assert_array_equal(a.side.mask, b.side.mask)
        jax.tree.map(np.testing.assert_array_equal, a.side.targets, b.side.targets)
    assert one.encoding.inputs == whole.encoding.inputs[name]
    assert one.baselines == whole.baselines


def test_a_held_out_part_of_ones_own():
    first = {name: xs[:30] for name, xs in XS.items()}
    last = {name: xs[30:] for name, xs in XS.items()}
    made = tasks.arrays(first, YS[:30], batch=8, held_out=(last, YS[30:]))
    found = batch_of(made.held_out, 0).inputs
    assert sorted(found) == ["light", "sign", "sound"]
    assert found["sound"].shape[1] == 10


@pytest.mark.parametrize(
    ("xs", "ys", "says"),
    [
        (
            dict(XS, sound=SOUND[:-1]),
            YS,
            r"inputs\['sign'\]: expected 39 sequences, as sound",
        ),
        (
            dict(XS, sign=[*SIGN[:-1], np.zeros(LENGTHS[-1] + 1, int)]),
            YS,
            rf"inputs\['sign'\]: expected {LENGTHS[-1]} steps of sequence 39, as sound has",
        ),
        (
            dict(XS, sign=[-1 - s for s in SIGN]),
            YS,
            r"inputs\['sign'\]: integers without",
        ),
        (XS, None, "targets: expected some where inputs are a dictionary"),
        ({}, YS, "inputs: expected inputs by their names, got none"),
        ({1: SOUND}, YS, "inputs: expected names, got 1"),
    ],
)
def test_what_is_refused(xs, ys, says):
    with pytest.raises((TypeError, ValueError), match=says):
        tasks.arrays(xs, ys, batch=8)


def test_a_held_out_part_with_other_names_is_refused():
    other = dict(sound=SOUND[:5])
    with pytest.raises(ValueError, match=r"held_out\[0\]: expected \['light', 'sign'"):
        task(held_out=(other, YS[:5]))


def model():
    return layers.stack(
        kinds=layers.inputs(
            sound=cells.elman(2, 5),
            sign=layers.embedding(6, 3),
            light=layers.dense(3, 2),
        ),
        whole=cells.elman(10, 6),
        out=layers.dense(6, 2),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out, made = tmp_path_factory.mktemp("runs") / "run", task()
    found = train.run(
        made,
        model(),
        estimators.exact(model(), made.objective),
        optax.adam(1e-2),
        train.RunOptions(updates=4, per_dispatch=2, evaluate_every=2),
        out,
    )
    return found, out


def test_a_run_predicts_and_is_there_again(run):
    found, out = run
    loaded = train.load(out)
    assert loaded.model == model()
    assert (loaded.task.n_in, loaded.task.tokens) == (found.task.n_in, ("sign",))
    assert loaded.task.encoding == found.task.encoding
    said = found.predict(XS)
    assert set(said) <= {"no", "yes"}
    np.testing.assert_array_equal(loaded.predict(XS), said)
    some = {name: xs[3:5] for name, xs in reversed(XS.items())}
    np.testing.assert_array_equal(loaded.predict(some), said[3:5])
    assert 0 <= loaded.evaluate(XS, YS)["accuracy"] <= 1


@pytest.mark.parametrize(
    ("xs", "says"),
    [
        (SOUND, "xs: expected a dictionary of sound, sign, light, got list"),
        (
            dict(sound=SOUND, sign=SIGN),
            "xs: expected a dictionary of sound, .* got sound",
        ),
        (
            dict(XS, sign=[s + 6 for s in SIGN]),
            r"xs\['sign'\]: expected symbols from 0 to 5",
        ),
        (dict(XS, sound=LIGHT), r"xs\['sound'\]: expected 2 features a step, got 3"),
    ],
)
def test_other_inputs_are_refused(run, xs, says):
    with pytest.raises(ValueError, match=says):
        run[0].predict(xs)


AGE = RNG.normal(size=(N, 2))
KNOWN = dict(age=AGE, place=RNG.integers(0, 9, N))


def test_a_context_comes_with_its_sequences():
    made = tasks.arrays(
        SOUND, np.arange(N) * 1.0, batch=8, context=KNOWN, standardise=False
    )
    for part in (made.train, made.held_out):
        batch = batch_of(part, 0)
        which = np.asarray(batch.side.targets.targets)[0, :, 0].astype(int)
        rows = np.asarray(batch.side.mask[0])
        assert batch.context["age"].dtype == jnp.float32
        for name, a in KNOWN.items():
            np.testing.assert_allclose(
                batch.context[name][rows], a[which[rows]], rtol=1e-6
            )


def seen(params, h, x):
    w, age = params
    h = jnp.tanh(x @ w + h + age @ jnp.ones((2, 1), age.dtype))
    return h, h


def test_a_run_that_sees_a_context_predicts_by_one(tmp_path):
    cell = cells.from_step(
        seen,
        lambda key: InContext(jax.random.normal(key, (2, 5))),
        lambda params, batch: jnp.zeros((*batch, 5)),
    )
    model = layers.stack(memory=cell, out=layers.dense(5, 2))
    made = tasks.arrays(SOUND, YS, batch=8, context=AGE)
    run = train.run(
        made,
        model,
        estimators.exact(model, made.objective),
        optax.adam(1e-2),
        train.RunOptions(updates=2, per_dispatch=2, evaluate_every=2),
        tmp_path,
    )
    odds = run.predict_proba(SOUND, context=AGE)
    np.testing.assert_allclose(
        run.predict_proba(SOUND[3:5], context=AGE[3:5]), odds[3:5], rtol=1e-5
    )
    assert np.abs(run.predict_proba(SOUND, context=-AGE) - odds).max() > 1e-3
    loaded = train.load(tmp_path, model=model)
    np.testing.assert_array_equal(loaded.predict_proba(SOUND, context=AGE), odds)
    assert run.evaluate(SOUND, YS, context=AGE)["loss"] > 0
    for context, says in (
        (None, "context: expected what"),
        (AGE[1:], r"expected \[40, ...\]"),
    ):
        with pytest.raises(ValueError, match=says):
            run.predict(SOUND, context=context)


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (
            AGE[:-1],
            r"context: expected \[40, ...\], a row for each sequence, got \[39, 2\]",
        ),
        (
            dict(age=np.where(AGE > 2, np.nan, AGE) * np.nan),
            r"context\['age'\]: nan at \[0, 0\]",
        ),
        (["a"] * N, "context: expected numbers, got text"),
        ({}, "context: expected a dictionary by names"),
    ],
)
def test_contexts_that_are_refused(context, says):
    with pytest.raises((TypeError, ValueError), match=says):
        tasks.arrays(SOUND, YS, batch=8, context=context)


def test_a_context_needs_indices_of_what_is_held_out():
    with pytest.raises(ValueError, match="context: expected none where held_out is"):
        tasks.arrays(SOUND, YS, batch=8, context=AGE, held_out=(SOUND, YS))
