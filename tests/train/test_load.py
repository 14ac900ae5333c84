"""A run out of its folder: its model, its task, and what it says of somebody's data."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bptt_jax
from bptt_jax import (
    cells,
    estimators,
    layers,
    models,
    tasks,
    train,
    unrolls,
)
from bptt_jax.train import _about
from support.compilations import compilations
from support.training import adding, listing, outcome

UNITS = 6
OPTIONS = train.RunOptions(
    updates=4, per_dispatch=2, evaluate_every=2, evaluate_batches=2
)


def lengths(n=30):
    return np.random.default_rng(1).integers(3, 12, n)


def features(F=3, n=30):
    """Sequences of unequal lengths, far from mean 0 and deviation 1."""
    rng = np.random.default_rng(2)
    return [5 + 3 * rng.normal(size=(T, F)) for T in lengths(n)]


def text_labels():
    return [("down", "flat", "up")[i % 3] for i in range(30)]


XS = features()
EQUAL = np.stack([x[:3] for x in XS])
NUMBERS = np.random.default_rng(3).normal(200, 30, (30, 2))
SERIES = 50 + 10 * np.sin(np.arange(120) / 3)[:, None] + np.arange(2)
DATA = {
    "labels": lambda: tasks.arrays(XS, text_labels(), batch=8),
    "labels of steps": lambda: tasks.arrays(
        XS, [np.arange(len(x)) % 2 + 7 for x in XS], batch=8
    ),
    "truths": lambda: tasks.arrays(EQUAL, NUMBERS > 200, batch=8),
    "a truth": lambda: tasks.arrays(XS, NUMBERS[:, 0] > 200, batch=8),
    "numbers": lambda: tasks.arrays(XS, NUMBERS, batch=8),
    "a number": lambda: tasks.arrays(XS, NUMBERS[:, 0], batch=8),
    "numbers of steps": lambda: tasks.arrays(
        EQUAL, 9 * EQUAL[..., 0], batch=8, per_step=True
    ),
    "bytes": lambda: tasks.arrays(EQUAL, np.array([b"a", b"b"] * 15), batch=8),
    "next features": lambda: tasks.arrays(XS, batch=8),
    "next symbols": lambda: tasks.arrays(
        np.random.default_rng(4).integers(0, 5, (20, 6)), batch=8
    ),
    "windows": lambda: tasks.windows(SERIES, T=12, horizon=3, batch=8, season=4),
}


def model_of(task):
    if task.tokens:
        return models.symbols(task.n_in, 4, cells.elman(4, UNITS), task.n_out, UNITS)
    return models.features(cells.elman(task.n_in, UNITS), task.n_out, UNITS)


def trained(task, out, **more):
    model = model_of(task)
    estimator = estimators.exact(model, task.objective)
    return train.run(task, model, estimator, optax.adam(1e-2), OPTIONS, out, **more)


@functools.cache
def untrained(name) -> train.Run:
    """As a training ends, but for the training."""
    task = DATA[name]()
    model = model_of(task)
    params = model.init(jax.random.key(0))
    best = train.Best(params, 0, 0.0)
    return train.Run(None, 0.0, False, best, model=model, task=task)


@pytest.mark.parametrize("name", DATA)
def test_model_and_task_come_back_out_of_a_record(name):
    task = DATA[name]()
    model = model_of(task)
    now = dict(made=dict(task=dict(task.record)), **_about.about(task, model))
    saved = json.loads(json.dumps(now))
    assert _about.model_of(saved, "") == model
    found = _about.task_of(saved, "")
    for field in ("n_in", "n_out", "tokens", "stateful", "encoding"):
        assert getattr(found, field) == getattr(task, field)
    assert found.objective == task.objective


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """`(run, folder)` of a short training, `labels`."""
    out = tmp_path_factory.mktemp("run")
    return trained(DATA["labels"](), out), out


@pytest.fixture(scope="module")
def found(kept):
    return train.load(kept[1])


def equal(a, b):
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_what_is_loaded_is_what_was_returned(kept, found):
    run, _ = kept
    assert found.model == run.model
    assert found.task.encoding == run.task.encoding
    assert (found.config, found.history) == (run.config, run.history)
    assert found.metrics == run.metrics
    assert found.held_out == run.held_out
    assert found.best._replace(params=0) == run.best._replace(params=0)
    equal(found.params, run.params)
    equal(found.state.params, run.state.params)
    assert found.state.position == run.state.position == 4
    assert found.state.key == run.state.key
    assert found.state.opt_state is None
    np.testing.assert_array_equal(found.predict(XS), run.predict(XS))


def by_hand(run, x):
    """Outputs `[T, O]` of one sequence, by the reference loop."""
    encoding = run.task.encoding
    if encoding.inputs is not None:
        x = (x - np.array(encoding.inputs.mean)) / np.array(encoding.inputs.deviation)
    longer = np.zeros((12, *np.shape(x)[1:]), np.int32 if run.task.tokens else "f")
    longer[: len(x)] = x  # the steps after it change none of its outputs
    return np.asarray(plain(run.model)(run.params, longer)[: len(x)])


@functools.cache
def plain(model):
    """The reference loop, one program for all lengths."""

    def outputs(params, xs):
        return unrolls.scan(model, params, model.init_carry(params, ()), xs)[1]

    return jax.jit(outputs)


def in_units(run, ys):
    scale = run.task.encoding.targets
    return ys * np.array(scale.deviation) + np.array(scale.mean)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_labels_are_those_that_were_given():
    run = untrained("labels")
    last = np.stack([by_hand(run, x)[-1] for x in XS[:5]])
    said = run.predict(XS[:5])
    assert said.tolist() == [("down", "flat", "up")[i] for i in last.argmax(-1)]
    odds = np.exp(last) / np.exp(last).sum(-1, keepdims=True)
    close(run.predict_proba(XS[:5]), odds)


def test_labels_of_steps_come_in_the_form_of_the_inputs():
    run = untrained("labels of steps")
    said = run.predict(XS[:3])
    assert [len(a) for a in said] == [len(x) for x in XS[:3]]
    for x, labels in zip(XS[:3], said, strict=True):
        assert labels.tolist() == (by_hand(run, x).argmax(-1) + 7).tolist()
    assert run.predict(EQUAL[:4]).shape == (4, 3)
    assert run.predict_proba(EQUAL[:4]).shape == (4, 3, 2)


@pytest.mark.parametrize(("name", "shape"), [("truths", (2,)), ("a truth", ())])
def test_truths(name, shape):
    run = untrained(name)
    last = np.stack([by_hand(run, x)[-1] for x in EQUAL[:5]]).reshape(5, *shape)
    assert run.predict(EQUAL[:5]).dtype == bool
    np.testing.assert_array_equal(run.predict(EQUAL[:5]), last > 0)
    close(run.predict_proba(EQUAL[:5]), 1 / (1 + np.exp(-last)))


@pytest.mark.parametrize(("name", "shape"), [("numbers", (2,)), ("a number", ())])
def test_numbers_are_in_their_units_and_shape(name, shape):
    run = untrained(name)
    want = np.stack([in_units(run, by_hand(run, x)[-1]) for x in XS[:5]])
    close(run.predict(XS[:5]), want.reshape(5, *shape))
    with pytest.raises(ValueError, match="this one predicts numbers"):
        run.predict_proba(XS[:5])


def test_numbers_of_steps():
    run = untrained("numbers of steps")
    want = np.stack([in_units(run, by_hand(run, x))[:, 0] for x in EQUAL[:5]])
    assert run.predict(EQUAL[:5]).shape == (5, 3)
    close(run.predict(EQUAL[:5]), want)


def test_a_forecast_has_the_axes_of_the_series():
    run = untrained("windows")
    windows = np.stack([SERIES[i : i + 12] for i in range(4)])
    said = run.predict(windows)
    assert said.shape == (4, 3, 2)
    want = np.stack([in_units(run, by_hand(run, x)[-1]) for x in windows])
    close(said.reshape(4, 6), want)
    ahead = np.stack([SERIES[i + 12 : i + 15] for i in range(4)])
    figures = run.evaluate(windows, ahead)
    errors = said - ahead
    close(figures["MAE"], np.abs(errors).mean())
    close(figures["RMSE"], np.sqrt((errors**2).mean()))
    scaled = errors.reshape(4, 6) / np.array(run.task.encoding.targets.deviation)
    close(figures["loss"], (scaled**2).sum(-1).mean())


def scaled_by_hand(errors, series, which, season, held_out):
    """MASE: each error over the mean change after a season of its series' training part."""
    parts = (a[: len(a) - round(held_out * len(a))] for a in series)
    naive = np.stack([np.abs(a[season:] - a[:-season]).mean(0) for a in parts])
    return np.mean([np.abs(e) / naive[i] for e, i in zip(errors, which, strict=True)])


def ends(series, T, ahead):
    """The last windows of series, with what comes after."""
    xs = np.stack([a[-T - ahead : -ahead] for a in series])
    return xs, np.stack([a[-ahead:] for a in series])


def test_a_forecast_has_its_scaled_error_without_its_data(tmp_path):
    """Also out of its folder; one of an older version's leaves it out."""
    task = tasks.windows(SERIES, T=12, horizon=3, batch=8, held_out=0.25, season=4)
    run = trained(task, tmp_path)
    xs, ys = ends([SERIES, SERIES[:-5]], 12, 3)
    want = scaled_by_hand(run.predict(xs) - ys, [SERIES], [0, 0], 4, 0.25)
    found = train.load(tmp_path)
    for one in run, found:
        figures = one.evaluate(xs, ys)
        assert list(figures) == ["loss", "MAE", "RMSE", "MASE"]
        close(figures["MASE"], want)
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    del record["about"]["encoding"]["naive"]
    path.write_text(json.dumps(record))
    older = train.load(tmp_path)
    assert list(older.evaluate(xs, ys)) == ["loss", "MAE", "RMSE"]
    with pytest.raises(ValueError, match="series: the run is no forecast, or an older"):
        older.evaluate(xs, ys, series=[0, 0])


@pytest.mark.parametrize("season", [None, 4])
def test_several_series_are_scaled_each_by_its_own(season):
    """In all held-out windows it is the figure that the training tells."""
    series = [SERIES, 7 * SERIES[:90] ** 1.2, 30 - SERIES[:100]]
    task = tasks.windows(series, T=12, horizon=3, batch=8, season=season, held_out=0.25)
    model = model_of(task)
    best = train.Best(model.init(jax.random.key(0)), 0, 0.0)
    run = train.Run(None, 0.0, False, best, model=model, task=task)
    xs, ys, which = [], [], []
    for i, a in enumerate(series):
        for start in range(len(a) - round(0.25 * len(a)) - 12, len(a) - 14):
            xs.append(a[start : start + 12])
            ys.append(a[start + 12 : start + 15])
            which.append(i)
    figures = run.evaluate(np.stack(xs), np.stack(ys), series=which)
    errors = run.predict(np.stack(xs)) - ys
    close(figures["MASE"], scaled_by_hand(errors, series, which, season or 1, 0.25))
    told = train.evaluate(task, model, run.params)
    assert list(figures) == list(told)
    for name, figure in told.items():
        np.testing.assert_allclose(figures[name], figure, rtol=1e-4)
    assert "MASE" not in run.evaluate(np.stack(xs), np.stack(ys))
    with pytest.raises(
        ValueError, match="series: 3 is no series of the run's training"
    ):
        run.evaluate(xs[:2], np.stack(ys[:2]), series=[0, 3])
    with pytest.raises(
        ValueError, match=r"series: expected 2, one for each .* got \[1\]"
    ):
        run.evaluate(xs[:2], np.stack(ys[:2]), series=[0])


def test_figures_of_labels():
    run = untrained("labels")
    figures = run.evaluate(XS, text_labels())
    right = run.predict(XS) == np.array(text_labels())
    assert figures["accuracy"] == right.mean()
    odds = run.predict_proba(XS)
    of_right = odds[np.arange(30), np.arange(30) % 3]
    close(figures["loss"], -np.log(of_right).mean())


def test_figures_of_what_comes_next():
    """Of the outputs at all steps but the last of each sequence."""
    run = untrained("next features")
    errors = [run.predict([x])[0][:-1] - x[1:] for x in XS]
    close(run.evaluate(XS)["MAE"], np.abs(np.concatenate(errors)).mean())
    run = untrained("next symbols")
    xs = np.random.default_rng(5).integers(0, 5, (4, 6))
    right = run.predict(xs)[:, :-1] == xs[:, 1:]
    close(run.evaluate(xs)["accuracy"], right.mean())


def test_figures_of_all_that_is_held_out_are_those_of_the_loop():
    """Nothing is padded, nothing weighed: a mean over sequences."""
    run = untrained("truths")
    item = jax.tree.map(lambda a: a[0], run.task.held_out.read(0, 1))
    real = item.lengths > 0
    xs = np.swapaxes(item.inputs, 0, 1)[real]
    given = xs * np.array(run.task.encoding.inputs.deviation) + np.array(
        run.task.encoding.inputs.mean
    )
    figures = run.evaluate(given, np.asarray(item.targets)[real] > 0.5)
    close(figures["loss"], train.evaluate(run.task, run.model, run.params)["loss"])


def test_outputs_do_not_depend_on_what_else_is_asked():
    """Bit for bit: alone, in another order, and among many."""
    run = untrained("numbers")
    many = [*XS, *features(n=41)]
    whole = run.predict(many)
    np.testing.assert_array_equal(run.predict(many[::-1])[::-1], whole)
    for i in (0, 7, 40):
        np.testing.assert_array_equal(run.predict([many[i]])[0], whole[i])


def test_one_program_for_like_lengths():
    run = untrained("labels")
    x = np.ones((100, 3))
    run.predict([x[:50], x[:20]])
    with compilations() as programs:
        run.predict([x[:n] for n in (49, 64, 17, 24, 33)] + [x[:52]] * 40)
    assert len(programs) == 1  # of 33 to 48 steps
    with compilations() as programs:
        run.predict([x[:40], x[:55]])
    assert programs == []


@pytest.mark.parametrize(
    ("xs", "message"),
    [
        (np.ones((2, 5, 4)), "xs: expected 3 features a step, got 4"),
        (np.ones(5), r"xs: expected \[N, T, ...\] or a list"),
        ([np.ones((5, 3)), np.ones((0, 3))], "xs: .*sequence 1 has none"),
        ([], "xs: expected at least one sequence, got none"),
        (np.full((1, 5, 3), np.nan), "xs: nan at sequence 0, step 0, feature 0"),
        (np.full((1, 5, 3), "a"), "xs: expected numbers, got text"),
    ],
)
def test_bad_inputs_are_refused_in_a_line(xs, message):
    with pytest.raises((TypeError, ValueError), match=message):
        untrained("labels").predict(xs)


def test_bad_targets_are_refused_in_a_line():
    run = untrained("labels")
    with pytest.raises(ValueError, match="'sideways' is no class of the run"):
        run.evaluate(XS[:2], ["up", "sideways"])
    with pytest.raises(ValueError, match="ys: expected 2, one for each"):
        run.evaluate(XS[:2], ["up"])
    with pytest.raises(ValueError, match="the next inputs are no targets"):
        run.evaluate(XS[:2])
    with pytest.raises(ValueError, match="expected symbols from 0 to 4, got 7"):
        untrained("next symbols").predict(np.full((1, 5), 7))
    with pytest.raises(TypeError, match="expected symbols, integers"):
        untrained("next symbols").predict(np.ones((1, 5)))
    with pytest.raises(ValueError, match=r"ys: expected \[N, 3, 2\], got \[4, 2\]"):
        untrained("windows").evaluate(np.ones((4, 12, 2)), np.ones((4, 2)))


# What is in the folder


def changed(out, **record):
    path = out / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | record))


@pytest.fixture
def folder(kept, tmp_path):
    """A copy of one, to be damaged."""
    return shutil.copytree(kept[1], tmp_path / "run")


@pytest.mark.slow
def test_data_of_the_library_are_there_again(tmp_path):
    """A drawn task by its recipe; one's own arrays are in no file."""
    job = adding()
    run = job.run(tmp_path, OPTIONS)
    found = bptt_jax.load(tmp_path)
    assert found.task == job.task
    want = train.evaluate(job.task, job.model, run.params, batches=3)
    assert train.evaluate(found.task, found.model, found.params, batches=3) == want


def test_data_of_ones_own_are_not(kept, found):
    run, out = kept
    with pytest.raises(ValueError, match=r"are not here; .* load\(…, task=\)"):
        train.evaluate(found.task, found.model, found.params)
    again = train.load(out, task=run.task)
    want = train.evaluate(run.task, run.model, run.params)
    assert train.evaluate(again.task, again.model, again.params) == want


def own(x):
    return jnp.tanh(x)


@pytest.mark.slow
def test_a_model_of_ones_own_functions_is_handed_in(tmp_path):
    task = DATA["labels"]()
    cell = cells.elman(3, UNITS, activation=own)
    model = layers.stack(cell, layers.dense(UNITS, 3))
    estimator = estimators.exact(model, task.objective)
    run = train.run(task, model, estimator, optax.sgd(0.1), OPTIONS, tmp_path)
    with pytest.raises(ValueError, match="activation: the function own is one's own"):
        train.load(tmp_path)
    found = train.load(tmp_path, model=model)
    np.testing.assert_array_equal(found.predict(XS), run.predict(XS))
    other = layers.stack(cells.elman(3, 7, activation=own), layers.dense(7, 3))
    with pytest.raises(ValueError, match="is sound, and of another model"):
        train.load(tmp_path, model=other)


@pytest.mark.slow
def test_an_older_record_says_so_and_goes_on(tmp_path):
    """Which names no model: the same run goes on, and names it from then on."""
    task = DATA["labels"]()
    first = trained(task, tmp_path)
    path = tmp_path / "run.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({k: whole[k] for k in whole if k not in ABOUT}))
    with pytest.raises(ValueError, match="does not say how its model is made"):
        train.load(tmp_path)
    with pytest.raises(ValueError, match="does not say what its task is"):
        train.load(tmp_path, model=first.model)
    found = train.load(tmp_path, model=first.model, task=task)
    np.testing.assert_array_equal(found.predict(XS), first.predict(XS))
    again = trained(task, tmp_path)
    assert outcome(tmp_path, again.state) == outcome(tmp_path, first.state)
    assert json.loads(path.read_text()) == whole


ABOUT = ("model", "about")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            dict(model=dict(format=1, recipe=dict(call="os.system", args=["true"]))),
            "run.json: model: 'os.system' is no name that this version knows; hand",
        ),
        (dict(model=dict(format=7, recipe=3)), "a recipe of format 7"),
        (dict(about=dict(n_in=3)), "run.json is damaged: about: KeyError"),
        (dict(made=dict(seed=0)), "run.json is damaged .it is no record of a run"),
        (dict(earlier=[3]), "damaged .it is no record of a run"),
    ],
)
def test_a_record_that_cannot_be_read(folder, record, message):
    before = listing(folder)
    changed(folder, **record)
    with pytest.raises(ValueError, match=message):
        train.load(folder)
    after = listing(folder)
    assert {k for k in before if before[k] != after[k]} == {"run.json"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.pop("recipe"), "about: KeyError"),
        (
            lambda about: about["encoding"].update(classes="up"),
            "as many classes as out",
        ),
    ],
)
def test_what_a_record_says_of_its_task(folder, change, message):
    about = json.loads((folder / "run.json").read_text())["about"]
    change(about)
    changed(folder, about=about)
    with pytest.raises(ValueError, match=message):
        train.load(folder)


def test_what_is_no_run(tmp_path, folder):
    with pytest.raises(ValueError, match="holds no run"):
        train.load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (folder / "checkpoint").rename(folder / "elsewhere")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        train.load(folder)


def test_loading_changes_nothing(folder):
    before = listing(folder)
    train.load(folder).predict(XS[:2])
    assert listing(folder) == before


@pytest.mark.slow
def test_a_run_that_has_not_ended(tmp_path):
    """The newest checkpoint, and the best so far."""
    job = adding()
    stops = iter([False, True])
    progress = train.Progress(interrupted=lambda: next(stops))
    with pytest.raises(KeyboardInterrupt):
        job.run(tmp_path, OPTIONS._replace(updates=8), progress=progress)
    found = train.load(tmp_path)
    assert found.state.position == 4
    assert found.best.position == 2
    assert np.isnan(found.held_out)
    assert not found.stopped_early


class Letters:
    """A tokenizer that has no form to be kept in."""

    vocab_size = 256

    def encode(self, text):
        return list(text.encode())

    def decode(self, tokens):
        return bytes(tokens).decode("latin-1")


@pytest.mark.slow
def test_a_tokenizer_is_handed_in(tmp_path):
    """The task's own text is not in a file; what writes it is given."""
    task = tasks.text("to be or not to be, " * 90, batch=2, T=6, tokenizer=Letters())
    model = models.symbols(task.n_in, 4, cells.elman(4, UNITS), task.n_out, UNITS)
    estimator = estimators.stream(model, task.objective)
    run = train.run(task, model, estimator, optax.adam(1e-2), OPTIONS, tmp_path)
    want = run.generate("to be", 5, temperature=0)
    found = train.load(tmp_path, tokenizer=Letters())
    assert found.generate("to be", 5, temperature=0) == want
    with pytest.raises(ValueError, match=r"load\(…, tokenizer=\)"):
        train.load(tmp_path).generate("to be", 5)
