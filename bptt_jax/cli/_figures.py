"""Figures of what a model predicts of held-out data, where they fit the task."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import _files, estimators, layers, plots, unrolls
from bptt_jax._processes import first
from bptt_jax.types import Encoding, Layer, PyTree, Scale, Sections, Task, Weighted

_MOST_BATCHES = 200
_MOST_CLASSES = 100


class Predicted(NamedTuple):
    """Of the held-out steps that count, one after another.

    outputs: `[n, O]`.
    targets: leaves `[n, ...]`.
    inputs: of the sequences that they are of, `[N, T, ...]`.
    """

    outputs: np.ndarray
    targets: Any
    inputs: np.ndarray


def write(
    out: pathlib.Path, task: Task, model: Layer | Sections, params: PyTree, batches: int
) -> list[str]:
    """Draws those that fit into the run's folder; their names."""
    if task.stateful or task.encoding is None:
        return []
    if not (_is_of_classes(task) or "MAE" in task.metrics):
        return []
    found = predicted(task, model, params, min(batches, _MOST_BATCHES))
    drawn = _drawn(task, task.encoding, found)
    for name, figure in drawn.items():
        if first():
            draw = functools.partial(figure.savefig, dpi=130, format="png")
            _files.replace(out / name, draw)
    return list(drawn)


def _is_of_classes(task: Task) -> bool:
    classes = task.encoding and task.encoding.classes
    return classes is not None and len(classes) <= _MOST_CLASSES


def _drawn(task: Task, encoding: Encoding, found: Predicted) -> dict[str, Any]:
    if _is_of_classes(task):
        return {"confusion.png": _confusion(encoding, found)}
    if task.record.get("task") != "windows":
        values, truth = (_in_data(encoding.targets, a)[:, 0] for a in found[:2])
        output = "" if task.n_out == 1 else f"output 1 of {task.n_out}"
        unit = output or "target"
        return {"residuals.png": plots.residuals(values, truth, unit=unit)}
    horizon = task.record["horizon"]
    outputs, truth = (
        _in_data(encoding.targets, a).reshape(len(a), horizon, -1)
        for a in (found.outputs, found.targets.values)
    )
    O = outputs.shape[-1]
    unit = "value" if O == 1 else f"feature 1 of {O}"
    values, truth = outputs[..., 0], truth[..., 0]
    history = _history(encoding, found.inputs, O)
    return {
        "forecast.png": _forecast(values, truth, history, unit),
        "residuals.png": plots.residuals(values.ravel(), truth.ravel(), unit=unit),
    }


def _confusion(encoding: Encoding, found: Predicted) -> Any:
    classes = encoding.classes
    assert classes is not None
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (found.targets, found.outputs.argmax(-1)), 1)
    unit = f"held-out {'steps' if encoding.per_step else 'sequences'}"
    return plots.confusion(counts, labels=classes, unit=unit)


def _forecast(values, truth, history, unit: str) -> Any:
    """The window whose error is the median one: neither the best nor the worst."""
    errors = abs(values - truth).mean(1)
    chosen = np.argsort(errors, kind="stable")[len(errors) // 2]
    forecasts = {"model": values[chosen]}
    known = None if history is None else history[chosen]
    if known is not None:
        forecasts["last value"] = np.full(truth.shape[1], known[-1])
    return plots.forecast(truth[chosen], forecasts, history=known, unit=unit)


def _history(encoding: Encoding, inputs: np.ndarray, O: int) -> np.ndarray | None:
    """`[N, T]`, what a model saw of the first feature that it predicts, if it did."""
    scale, F = encoding.inputs, inputs.shape[-1]
    if scale is None or encoding.targets is None:
        return inputs[..., 0] if O == F else None
    of_target = encoding.targets.mean[0], encoding.targets.deviation[0]
    columns = [
        i for i, pair in enumerate(zip(*scale, strict=True)) if pair == of_target
    ]
    return _in_data(scale, inputs)[..., columns[0]] if columns else None


def _in_data(scale: Scale | None, a: np.ndarray) -> np.ndarray:
    """Numbers in the unit of the data."""
    return a if scale is None else a * np.array(scale.deviation) + np.array(scale.mean)


def predicted(
    task: Task, model: Layer | Sections, params: PyTree, batches: int
) -> Predicted:
    """What a model gives for the first held-out batches, each from a fresh state."""
    stream, found = task.held_out, []
    one = jax.jit(functools.partial(_outputs, model, stream.batch))
    for i in range(min(stream.length or batches, batches)):
        item = jax.tree.map(lambda a: a[0], stream.read(i, 1))
        ys, targets, counts, inputs = jax.tree.map(np.asarray, one(params, item))
        of_rows = jax.tree.map(lambda a, rows=counts: a[rows], (ys, targets))
        found.append((*of_rows, inputs.swapaxes(0, 1)[counts.any(0)]))
    return Predicted(*jax.tree.map(lambda *each: np.concatenate(each), *found))


def _outputs(model: Layer | Sections, batch_of, params: PyTree, item: PyTree):
    """`(ys, targets, which steps count [T, B], inputs)`, the leaves `[T, B, ...]`."""
    batch = batch_of(item, jax.random.key(0))
    carry = estimators.init_carry(model, params, batch)
    params = layers.with_context(params, batch.context)
    at = params, carry, batch.inputs, batch.side
    (_, ys), side = unrolls.through(unrolls.bptt, model, *at)
    targets, counts = side.targets, jnp.ones(ys.shape[:2], bool)
    if isinstance(targets, Weighted):
        counts = jnp.broadcast_to(targets.weights != 0, counts.shape)
        targets = targets.targets
    if side.mask is not None:
        counts &= side.mask
    return ys, targets, counts, batch.inputs
