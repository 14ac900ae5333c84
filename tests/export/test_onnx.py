"""A run as ONNX: checked by `onnx`, run by `onnxruntime`, on real steps what the run predicts."""

import functools
import sys

import jax
import numpy as np
import pytest

from bptt_jax import cells, export, layers, models, tasks, train
from bptt_jax.export import _onnx

onnx = pytest.importorskip("onnx", reason="the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="what runs ONNX")

H, N, T = 5, 4, 9
RNG = np.random.default_rng(0)
XS = 5 + 3 * RNG.normal(size=(30, 6, 3))
TASKS = {
    "texts": lambda: tasks.arrays(XS, ["no", "maybe", "yes"] * 10, batch=8),
    "bytes": lambda: tasks.arrays(XS, np.array([b"a", b"bc"] * 15), batch=8),
    "labels of steps": lambda: tasks.arrays(
        XS, np.arange(180).reshape(30, 6) % 2 + 3, batch=8
    ),
    "truths": lambda: tasks.arrays(XS, XS[:, 0, :2] > 5, batch=8),
    "numbers": lambda: tasks.arrays(XS, 300 + 9 * XS[:, 0, 0], batch=8),
    "windows": lambda: tasks.windows(XS[0].repeat(9, 0), T=9, horizon=4, batch=4),
    "symbols": lambda: tasks.arrays(RNG.integers(0, 5, (20, 6)), batch=8),
}
CELLS = {
    "elman": cells.elman,
    "elman, relu": functools.partial(cells.elman, activation=jax.nn.relu),
    "lstm": cells.lstm,
    "gru": cells.gru,
    "gru, reset before": functools.partial(cells.gru, reset_after=False),
}


@functools.cache
def run(name="texts", cell="lstm", depth=1, dropout=0.0) -> train.Run:
    """With parameters of which none is zero, biases among them."""
    task = TASKS[name]()
    sizes = [4 if task.tokens else task.n_in] + [H] * depth
    each = tuple(CELLS[cell](a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    if task.tokens:
        model = models.symbols(task.n_in, 4, each, task.n_out, H, dropout=dropout)
    else:
        model = models.features(each, task.n_out, H, dropout=dropout)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda a: a + 0.5 * rng.normal(size=a.shape).astype(a.dtype),
        model.init(jax.random.key(0)),
    )
    best = train.Best(params, 0, 0.0)
    return train.Run(None, 0.0, False, best, model=model, task=task)


def inputs(made):
    """Of another number of sequences and of steps than anything was made with."""
    rng, lengths = np.random.default_rng(2), np.array([T, 1, 5, 2], np.int32)
    if made.task.tokens:
        return rng.integers(0, 5, (N, T)).astype(np.int32), lengths
    return (5 + 3 * rng.normal(size=(N, T, 3))).astype(np.float32), lengths


def said(made, path):
    """What onnxruntime makes of a file, by name."""
    export.onnx(made, path)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path))
    xs, lengths = inputs(made)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, dict(inputs=xs, lengths=lengths))
    return dict(zip(names, found, strict=True))


def real(made, a):
    """Of outputs of steps those that are real, one after another."""
    if not made.task.encoding.per_step:
        return np.asarray(a)
    _, lengths = inputs(made)
    return np.concatenate([np.asarray(x)[:n] for x, n in zip(a, lengths, strict=True)])


def wanted(made, f):
    xs, lengths = inputs(made)
    return real(made, f([x[:n] for x, n in zip(xs, lengths, strict=True)]))


def error(made, found) -> float:
    return np.abs(
        real(made, found["probabilities"]) - wanted(made, made.predict_proba)
    ).max()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("depth", [1, 2])
def test_every_cell_and_a_stack(cell, depth, tmp_path):
    made = run("texts", cell, depth)
    found = said(made, tmp_path / "run.onnx")
    assert error(made, found) <= 1e-5
    assert found["label"].tolist() == wanted(made, made.predict).tolist()


@pytest.mark.parametrize("name", TASKS)
def test_labels_truths_and_numbers_in_their_units(name, tmp_path):
    made = run(name, "gru", dropout=0.2)
    found = said(made, tmp_path / "run.onnx")
    want = wanted(made, made.predict)
    if "number" in found:
        assert np.abs(real(made, found["number"]) - want).max() <= 1e-5 * want.max()
        assert found["number"].shape[1:] == want.shape[1:]
        return
    key = "label" if "label" in found else "truth"
    labels = real(made, found[key])
    if name == "bytes":
        labels = np.array([word.encode() for word in labels])
    assert labels.tolist() == want.tolist()
    odds = "probabilities" if "label" in found else "probability"
    want = wanted(made, made.predict_proba)
    assert np.abs(real(made, found[odds]) - want).max() <= 1e-5


@pytest.mark.parametrize(("kind", "cell"), [("LSTM", "lstm"), ("GRU", "gru")])
def test_gates_in_another_order_are_seen(kind, cell, monkeypatch, tmp_path):
    """The comparison is one that a mistake does not pass."""
    made, order = run("texts", cell), _onnx.ORDER[kind]
    for i in range(len(order) - 1):
        swapped = order[:i] + order[i + 1] + order[i] + order[i + 2 :]
        monkeypatch.setitem(_onnx.ORDER, kind, swapped)
        assert error(made, said(made, tmp_path / f"{i}.onnx")) > 1e-3


@pytest.mark.parametrize("cell", ["gru", "gru, reset before"])
def test_a_reset_at_the_other_side_is_seen(cell, monkeypatch, tmp_path):
    made, make = run("texts", cell), onnx.helper.make_node

    def flipped(*arguments, **options):
        if "linear_before_reset" in options:
            options["linear_before_reset"] = 1 - options["linear_before_reset"]
        return make(*arguments, **options)

    monkeypatch.setattr(onnx.helper, "make_node", flipped)
    assert error(made, said(made, tmp_path / "run.onnx")) > 1e-3


def of(*parts):
    model = layers.stack(*parts)
    best = train.Best(model.init(jax.random.key(0)), 0, 0.0)
    return run()._replace(model=model, best=best)


D = layers.dense(H, 3)
OTHERS = {
    "cells.mgu": lambda: of(cells.mgu(3, H), D),
    "cells.zoneout": lambda: of(cells.zoneout(cells.lstm(3, H), 0.1), D),
    "cells.lstm with peepholes": lambda: of(cells.lstm(3, H, peepholes=True), D),
    "cells.lstm with projection": lambda: of(cells.lstm(3, H, projection=2), D),
    "cells.gru with gate_axis": lambda: of(cells.gru(3, H, gate_axis=True), D),
    "cells.elman with activation": lambda: of(
        cells.elman(3, H, activation=jax.nn.softplus), D
    ),
    "layers.residual": lambda: of(cells.gru(3, H), layers.residual(cells.gru(H, H)), D),
    "layers.layer_norm": lambda: of(cells.gru(3, H), layers.layer_norm(H), D),
    "layers.dense in place 0": lambda: of(layers.dense(3, 3), cells.gru(3, H), D),
    "expected a recurrent part": lambda: of(layers.dense(3, 3)),
    "is one's own": lambda: of(cells.elman(3, H, activation=own), D),
}


def own(x):
    return x


@pytest.mark.parametrize("name", OTHERS)
def test_all_else_is_refused_by_name(name, tmp_path):
    with pytest.raises(ValueError, match=name) as raised:
        export.onnx(OTHERS[name](), tmp_path / "run.onnx")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "run.onnx").write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        export.onnx(run(), tmp_path / "run.onnx")


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bptt-jax\[onnx\]'"):
        export.onnx(run(), tmp_path / "run.onnx")
