"""A run whose model has parts with names: masks, checkpoints and files speak in words."""

import jax
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from bptt_jax import cells, estimators, export, layers, models, tasks, train


def test_a_run_with_names_is_there_again(tmp_path):
    task = tasks.adding(batch=4, T=6)
    layer = layers.stack(
        second=cells.elman(2, 4), first=cells.elman(4, 4), dense=layers.dense(4, 1)
    )
    mask = dict(second=False, first=True, dense=False)
    optimizer = optax.chain(optax.sgd(0.1), optax.masked(optax.set_to_zero(), mask))
    estimator = estimators.exact(layer, task.objective)
    found = train.run(
        task,
        layer,
        estimator,
        optimizer,
        train.RunOptions(updates=2, per_dispatch=2, evaluate_every=2),
        tmp_path / "run",
    )
    begun = train.init(
        layer, estimator, optimizer, task.train, jax.random.key(0)
    ).params
    moved = {
        name: not jax.tree.all(jax.tree.map(np.array_equal, begun[name], part))
        for name, part in found.state.params.items()
    }
    assert moved == dict(second=True, first=False, dense=True)
    loaded = train.load(tmp_path / "run")
    assert loaded.model == layer
    assert layers.keys_of(loaded.model) == ("second", "first", "dense")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, found.params)
    export.safetensors(loaded, tmp_path / "weights.safetensors")
    names = set(load_file(tmp_path / "weights.safetensors"))
    assert {"second/w_x", "first/w_x", "dense/kernel"} < names


def test_it_is_exported_as_the_model_without_names(tmp_path):
    pytest.importorskip("onnx")
    task = tasks.arrays(np.ones((8, 5, 3)), np.arange(8.0), batch=4)
    named = layers.stack(
        second=cells.elman(3, 4), first=cells.elman(4, 4), dense=layers.dense(4, 1)
    )
    params = named.init(jax.random.key(0))
    files = []
    for model, of in (
        (named, params),
        (
            models.features((cells.elman(3, 4), cells.elman(4, 4)), 1, 4),
            tuple(params[name] for name in ("second", "first", "dense")),
        ),
    ):
        best = train.Best(of, 0, 0.0)
        run = train.Run(None, 0.0, False, best, model=model, task=task)
        files.append(tmp_path / f"{len(files)}.onnx")
        export.onnx(run, files[-1])
    one, other = (file.read_bytes() for file in files)
    assert one == other
