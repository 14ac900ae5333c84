"""A run out of its folder."""

import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bptt_jax import layers
from bptt_jax.train import _about, _record
from bptt_jax.train._checkpoint import Best, Checkpoints
from bptt_jax.train._evaluate import LOSS
from bptt_jax.train._metrics import MetricsFile
from bptt_jax.train._run import Run
from bptt_jax.train._step import TrainState
from bptt_jax.types import Cell, Layer, Sections, Task


def load(
    out: str | os.PathLike[str],
    *,
    model: Layer | Cell | Sections | None = None,
    task: Task | None = None,
    tokenizer: Any = None,
) -> Run:
    """A run of `train.run` or of the command line, from its folder, which is not changed.

    The model is made anew from what `run.json` says of it, factories of this library and
    their arguments; nothing that a file names is imported or run. A training that goes on,
    or that was killed, is loaded as its newest checkpoint has it.

    Args:
      out: the folder.
      model: needed where it has functions of one's own in it, which are in no file.
      task: what it was trained on, where its streams are needed (`train.evaluate`) and are
        none of this library's own.
      tokenizer: by which it was trained on text, where the folder does not have it (see
        `tasks.read_tokenizer`) and text is to be written or read.

    Returns:
      What `train.run` has returned, but for the states of optimizer and estimator, which need
      both to be known: `train.run` in the folder goes on with them. Without `task` the
      streams of the run's raise, unless the library has the data.

    Raises:
      ValueError: the folder holds no run, no checkpoint yet, or one that is damaged or of
        another model; or `run.json` does not have the model.

    >>> import pathlib, tempfile, numpy as np, optax
    >>> from bptt_jax import cells, estimators, models, tasks, train
    >>> waves = np.sin(np.arange(40)[:, None] * np.linspace(0.1, 1, 30)).T
    >>> task = tasks.arrays(waves, np.arange(30) > 15, batch=9)
    >>> model = models.features((cells.gru(task.n_in, 8),), task.n_out, 8)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = train.run(task, model, estimators.exact(model, task.objective),
    ...               optax.adam(1e-2), train.RunOptions(updates=10), folder)
    >>> run = train.load(folder)
    >>> run.model == model, run.predict(waves[:3]).shape
    (True, (3,))
    """
    out = pathlib.Path(out)
    saved = _record.read(out)
    if saved is None:
        raise ValueError(f"{out} holds no run")
    where = out / _record.FILE
    found = _about.model_of(saved, where) if model is None else model
    whole = layers.model_of(found)
    task = _about.task_of(saved, where, tokenizer) if task is None else task
    if task is None:
        raise ValueError(
            f"{where} does not say what its task is (an older version's); hand the task "
            "in: load(…, task=)"
        )
    last, position, best = _restored(out, whole)
    lines = MetricsFile(out / "metrics.jsonl").lines()
    ended = next(
        (x for x in lines if "final_held_out" in x and x["step"] == position), {}
    )
    best, figures = _told(best or Best(last, position, math.nan), ended, saved)
    patience = saved["made"]["plan"].get("patience")
    return Run(
        _state(last, position, saved["made"]),
        ended.get("final_held_out", math.nan),
        patience is not None and best.since >= patience,
        best,
        figures,
        whole,
        task,
        config(out, saved),
        lines,
    )


def found(
    saved: dict[str, Any],
    where: pathlib.Path,
    params: Callable[[Layer | Sections], Any],
    position: int,
    metrics: dict[str, float],
    *,
    model: Layer | Cell | Sections | None = None,
    task: Task | None = None,
    tokenizer: Any = None,
) -> Run:
    """A run of which there are parameters alone, those of a sweep.

    Args:
      saved: of `described`, and what `Run.config` is to have.
      where: the file that has it.
      params: `model -> parameters`.
      position: updates done.
      metrics: of them, `loss` among them.
      model, task, tokenizer: as of `load`.
    """
    model = _about.model_of(saved, where) if model is None else model
    model = layers.model_of(model)
    task = _about.task_of(saved, where, tokenizer) if task is None else task
    assert task is not None  # what is described has a task
    best = Best(params(model), position, metrics.get(LOSS, math.nan))
    options = {name: getattr(jax.config, name) for name in _record.OPTIONS}
    made = dict(seed=saved["made"]["seed"], options=options)
    state = _state(best.params, position, made)
    return Run(
        state,
        best.held_out,
        False,
        best,
        metrics,
        model,
        task,
        config=saved,
        history=[],
    )


def _told(
    best: Best, ended: dict[str, Any], saved: dict[str, Any]
) -> tuple[Best, dict[str, float]]:
    """The best and its figures over the batches of the end, if there has been one."""
    if ended.get("best_step") != best.position:
        return best, {}
    others = ended.get("best_metrics", {})
    found = {LOSS: ended["best_held_out"]}
    found |= {name: math.nan if a is None else a for name, a in others.items()}
    _, _, score = saved["made"].get("score", "").partition(" ")
    return best._replace(held_out=found[LOSS], score=others.get(score)), found


def record(out: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What a run's folder says of it: `Run.config`, without its checkpoints; None: no run.

    Raises:
      ValueError: it is damaged.
    """
    saved = _record.read(pathlib.Path(out))
    return None if saved is None else config(pathlib.Path(out), saved)


def config(out: pathlib.Path, saved: dict[str, Any]) -> dict[str, Any]:
    """`run.json`, and the settings of the command line."""
    path = out / "config.json"
    if not path.exists():
        return saved
    try:
        return saved | dict(settings=json.loads(path.read_text())["settings"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from None


def _restored(out: pathlib.Path, model: Layer | Sections):
    """`(last parameters, position, best or None)`."""
    folder = out / "checkpoint"
    if not folder.is_dir():
        raise ValueError(f"{out} has no checkpoint yet")
    like = jax.eval_shape(model.init, jax.random.key(0))
    checkpoints = Checkpoints(folder)
    try:
        last, best = checkpoints.restore_params(like), checkpoints.restore_best(like)
        position = checkpoints.position()
    finally:
        checkpoints.close()
    if last is None or position is None:
        raise ValueError(f"{out} has no checkpoint yet")
    return last, position, best


def _state(params, position: int, made: dict[str, Any]) -> TrainState:
    """Its key is that which `train.init` draws."""
    impl = made["options"]["jax_default_prng_impl"]
    _, key = jax.random.split(jax.random.key(made["seed"], impl=impl))
    at = jnp.asarray(position, jnp.int32)
    return TrainState(params, None, None, at, key, jnp.full((), -1, jnp.int32))
