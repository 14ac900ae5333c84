"""A run as a file: used in a process that cannot import this package."""

import functools
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export as jax_export

from bptt_jax import (
    Side,
    cells,
    export,
    layers,
    loops,
    models,
    recipes,
    tasks,
    train,
    unrolls,
)
from bptt_jax.interop import files

H = 6
RNG = np.random.default_rng(0)
XS = 5 + 3 * RNG.normal(size=(30, 6, 3))
TEXTS = ["no", "maybe", "yes"] * 10
DATA = {
    "texts": lambda: tasks.arrays(XS, TEXTS, batch=8),
    "bytes": lambda: tasks.arrays(XS, np.array([b"a", b"bc", b"d"] * 10), batch=8),
    "whole numbers": lambda: tasks.arrays(XS, np.arange(30) % 2 - 7, batch=8),
    "of steps": lambda: tasks.arrays(XS, np.arange(180).reshape(30, 6) % 2, batch=8),
    "truths": lambda: tasks.arrays(XS, XS[:, 0, :2] > 5, batch=8),
    "numbers": lambda: tasks.arrays(XS, 300 + 9 * XS[:, 0, 0], batch=8),
    "next": lambda: tasks.arrays(XS, batch=8),
    "windows": lambda: tasks.windows(XS[0].repeat(9, 0), T=9, horizon=4, batch=4),
    "symbols": lambda: tasks.arrays(RNG.integers(0, 5, (20, 6)), batch=8),
}


def model_of(task):
    cell = layers.recurrent(
        cells.lstm(4 if task.tokens else task.n_in, H), loop=loops.native
    )
    if task.tokens:
        return models.symbols(task.n_in, 4, cell, task.n_out, H)
    return models.features(cell, task.n_out, H)


@functools.cache
def run(name) -> train.Run:
    task = DATA[name]()
    model = model_of(task)
    best = train.Best(model.init(jax.random.key(0)), 7, 0.0)
    return train.Run(None, 0.0, False, best, model=model, task=task)


def inputs(made, n=5, T=8):
    """Padded sequences and their lengths, of other sizes than anything was made with."""
    rng = np.random.default_rng(3)
    lengths = np.array([T, 1, 3, T - 1, 2][:n], np.int32)
    if made.task.tokens:
        return rng.integers(0, 5, (n, T)).astype(np.int32), lengths
    return (5 + 3 * rng.normal(size=(n, T, 3))).astype(np.float32), lengths


def said(found):
    """The one of the outputs that is a prediction, in its own type."""
    for name in ("label", "truth", "number"):
        if name in found:
            return np.asarray(found[name])


def as_text(labels, kind):
    return np.ascontiguousarray(labels).view(kind)[..., 0]


def same(made, found, xs, lengths):
    """What the file says is what the run predicts."""
    want = made.predict([x[:n] for x, n in zip(xs, lengths, strict=True)])
    labels = said(found)
    classes = made.task.encoding.classes
    if classes is not None and isinstance(classes[0], str | bytes):
        labels = as_text(labels, np.array(classes).dtype)
    if made.task.encoding.per_step:
        labels = np.concatenate([a[:n] for a, n in zip(labels, lengths, strict=True)])
        want = np.concatenate(want)
    if labels.dtype.kind == "f":
        np.testing.assert_allclose(labels, want, rtol=1e-5, atol=1e-4)
    else:
        assert labels.tolist() == want.tolist()


@pytest.mark.parametrize("name", DATA)
def test_the_program_says_what_the_run_predicts(name):
    made = run(name)
    xs, lengths = inputs(made)
    found = jax.jit(export.program(made))(xs, lengths)
    same(made, found, xs, lengths)


def test_probabilities_are_those_of_the_run():
    for name, key in (("texts", "probabilities"), ("truths", "probability")):
        made = run(name)
        xs, lengths = inputs(made)
        found = jax.jit(export.program(made))(xs, lengths)[key]
        want = made.predict_proba([x[:n] for x, n in zip(xs, lengths, strict=True)])
        np.testing.assert_allclose(found, want, atol=1e-6)


def test_what_is_after_the_end_is_not_read():
    made = run("numbers")
    xs, lengths = inputs(made)
    program = jax.jit(export.program(made))
    want = program(xs, lengths)["number"]
    for x, n in zip(xs, lengths, strict=True):
        x[n:] = np.nan
    np.testing.assert_array_equal(program(xs, lengths)["number"], want)


@pytest.mark.parametrize("name", ["texts", "symbols"])
def test_it_holds_no_custom_call(name):
    """Though the model's own loop is one; for three platforms, of any sizes."""
    made = run(name)
    xs, lengths = inputs(made)
    params, carry = made.params, made.model.init_carry(made.params, (5,))

    @jax.jit
    def of_run(xs):
        return made.model.fwd(params, carry, xs.swapaxes(0, 1), Side())[1]

    assert "custom_call" in of_run.lower(xs).as_text()
    found = export.exported(made)
    calls = re.findall(r"stablehlo\.custom_call @([\w.]+)", found.mlir_module())
    assert set(calls) == {"shape_assertion"}
    assert found.platforms == ("cpu", "cuda", "tpu")


ELSEWHERE = """
import sys
sys.modules["bptt_jax"] = None  # as if it were not installed
import jax, numpy as np
from jax import export
data = np.load("arrays.npz")
program = export.deserialize(bytearray(open("run.stablehlo", "rb").read()))
found = program.call(data["xs"], data["lengths"])
np.savez("found.npz", **found)
again = program.call(data["xs"][:2, :3], np.array([3, 1], np.int32))
np.savez("again.npz", **again)
assert not [m for m in sys.modules if m.startswith("bptt_jax.")]
print("done")
"""


def test_it_runs_where_this_package_is_not(tmp_path):
    """Any number of sequences and of steps; labels, scales and units are inside."""
    pytest.importorskip("flatbuffers", reason="JAX writes exported programs with it")
    made = run("texts")
    xs, lengths = inputs(made)
    export.stablehlo(made, tmp_path / "run.stablehlo")
    np.savez(tmp_path / "arrays.npz", xs=xs, lengths=lengths)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr[-3000:]
    same(made, np.load(tmp_path / "found.npz"), xs, lengths)
    same(made, np.load(tmp_path / "again.npz"), xs[:2, :3], [3, 1])
    whole = bytearray((tmp_path / "run.stablehlo").read_bytes())
    with pytest.raises(ValueError, match="[Ii]nconsisten"):
        jax_export.deserialize(whole).call(xs, lengths[:3])


def test_safetensors_have_all_that_the_arrays_are_of(tmp_path):
    made = run("texts")
    export.safetensors(made, tmp_path / "run.safetensors")
    kept = files.read(tmp_path / "run.safetensors")
    assert len(kept) == len(jax.tree.leaves(made.params))
    for name, a in kept.items():
        leaf = functools.reduce(
            lambda tree, k: tree[int(k) if k.isdigit() else k],
            name.split("/"),
            made.params,
        )
        np.testing.assert_array_equal(a, leaf)
    about = files.stored(tmp_path / "run.safetensors")[1]["bptt_jax"]
    about = json.loads(about)
    assert recipes.read(about["model"]) == made.model
    assert about["about"]["encoding"]["classes"] == ["maybe", "no", "yes"]
    assert tuple(about["about"]["encoding"]["inputs"]["mean"]) == (
        made.task.encoding.inputs.mean
    )


def in_torch(state, symbols, torch):
    """The module of `torch_state`'s page, by its own shapes."""
    nn = torch.nn
    sizes = state["rnn.weight_hh_l0"].shape
    depth = sum(name.startswith("rnn.weight_ih") for name in state)
    kind = {4: nn.LSTM, 3: nn.GRU, 1: nn.RNN}[sizes[0] // sizes[1]]
    module = nn.Module()
    if symbols:
        module.embedding = nn.Embedding(*state["embedding.weight"].shape)
    module.rnn = kind(state["rnn.weight_ih_l0"].shape[1], sizes[1], depth)
    module.readout = nn.Linear(*state["readout.weight"].shape[::-1])
    module.load_state_dict({k: torch.tensor(np.array(a)) for k, a in state.items()})
    return module


TORCH = {
    "lstm": lambda: models.features((cells.lstm(3, H), cells.lstm(H, H)), 2, H),
    "gru": lambda: models.symbols(5, 4, cells.gru(4, H), 5, H, dropout=0.2),
    "elman": lambda: models.features(cells.elman(3, H), 2, H),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_module_of_torch_computes_the_same(name):
    torch = pytest.importorskip("torch", reason="compared with PyTorch where it is")
    model = TORCH[name]()
    params = jax.tree.map(lambda a: a + 0.1, model.init(jax.random.key(0)))
    best = train.Best(params, 0, 0.0)
    made = run("texts")._replace(model=model, best=best)
    module = in_torch(export.torch_state(made), name == "gru", torch)
    rng = np.random.default_rng(1)
    xs = rng.integers(0, 5, (7, 2)) if name == "gru" else rng.normal(size=(7, 2, 3))
    xs = xs.astype(np.int32 if name == "gru" else np.float32)
    with torch.no_grad():
        hidden = torch.tensor(xs)
        hidden = module.embedding(hidden) if name == "gru" else hidden
        found = module.readout(module.rnn(hidden)[0]).numpy()
    want = unrolls.bptt(model, params, model.init_carry(params, (2,)), xs)[1]
    np.testing.assert_allclose(found, want, atol=1e-5)


OTHERS = {
    "zoneout": lambda: models.features(cells.zoneout(cells.lstm(3, H), 0.1), 2, H),
    "indrnn": lambda: models.features(cells.indrnn(3, H), 2, H),
    "inside of another": lambda: models.features(
        (cells.gru(3, H), layers.residual(layers.stack(cells.gru(H, H)))), 2, H
    ),
    "a norm": lambda: layers.stack(cells.gru(3, H), layers.layer_norm(H)),
    "nothing recurrent": lambda: layers.stack(layers.dense(3, 2)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_torch_has_not_is_refused(name):
    model = OTHERS[name]()
    best = train.Best(model.init(jax.random.key(0)), 0, 0.0)
    with pytest.raises(ValueError, match="(cells|model): "):
        export.torch_state(run("texts")._replace(model=model, best=best))


@pytest.mark.parametrize("write", [export.safetensors, export.stablehlo, export.torch])
def test_nothing_is_overwritten(write, tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ValueError, match="is there already"):
        write(run("texts"), tmp_path / "there")
    with pytest.raises(ValueError, match="no such folder"):
        write(run("texts"), tmp_path / "a" / "b")
    assert (tmp_path / "there").read_text() == "mine"


def test_labels_that_no_program_has():
    task = tasks.arrays(XS, np.arange(30) % 2 + 2**40, batch=8)
    made = run("texts")._replace(task=task)
    with pytest.raises(ValueError, match="expected texts, truths or whole numbers of"):
        export.program(made)


def test_without_the_package_that_writes(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    monkeypatch.setitem(sys.modules, "jax._src.export.serialization", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bptt-jax\[export\]'"):
        export.stablehlo(run("texts"), tmp_path / "a.stablehlo")
    assert list(tmp_path.iterdir()) == []
