"""A run as a StableHLO program, by `jax.export`: data in, labels and units out."""

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from bptt_jax import _files, layers, loops, tasks, unrolls
from bptt_jax.interop import files
from bptt_jax.train import Run
from bptt_jax.types import Layer, Scale, Sections, Side, Task

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(run: Run, out: str | os.PathLike[str]) -> None:
    """Writes what `program` is of a run, for CPUs, CUDA and TPUs, any number of sequences and
    of steps, with the best parameters inside.

    Who reads it needs JAX alone:

        program = jax.export.deserialize(bytearray(open("run.stablehlo", "rb").read()))
        found = program.call(inputs, lengths)

    Whatever loop the model was trained with, it holds StableHLO's own operations alone, which
    JAX promises to read for six months: no custom call but JAX's comparisons of shapes.

    Args:
      run: of `train.run` or `train.load`.
      out: a new file; nothing is overwritten.

    Raises:
      ModuleNotFoundError: the package `flatbuffers` is not here, `pip install
        bptt-jax[export]`.
      ValueError: there is something of that name already, or no such folder; or labels are
        whole numbers that are none of int32.
    """
    out = pathlib.Path(out)
    files.check_new(out)
    found = exported(run)
    try:
        whole = bytes(found.serialize())
    except ImportError:
        raise ModuleNotFoundError(
            "a StableHLO file needs flatbuffers: pip install 'bptt-jax[export]'"
        ) from None
    _files.create(out, lambda new: new.write_bytes(whole))


def exported(run: Run) -> export.Exported:
    """`program` with any number of sequences, b, and of steps, t."""
    b, t = export.symbolic_shape("b, t")
    run_program = program(run)
    shape, dtype = ((b, t), jnp.int32) if run.task.tokens else _features(run, b, t)
    inputs = jax.ShapeDtypeStruct(shape, dtype)
    lengths = jax.ShapeDtypeStruct((b,), jnp.int32)
    made = export.export(jax.jit(run_program), platforms=PLATFORMS)(inputs, lengths)
    others = calls(made) - {"shape_assertion"}  # gone where shapes are known
    if others:
        raise ValueError(
            f"model: a part of it is an operation of one platform ({', '.join(others)}), "
            "which no other place could run"
        )
    return made


def calls(program: export.Exported) -> set[str]:
    """Custom calls in a program, by their names."""
    return set(re.findall(r"stablehlo\.custom_call @([\w.]+)", program.mlir_module()))


def _features(run: Run, b: Any, t: Any) -> tuple[tuple, Any]:
    return (b, t, run.task.n_in), jnp.float32


def program(run: Run) -> Callable:
    """`(inputs, lengths) -> outputs`, in the data's own units, with the parameters inside.

    Args:
      run: of `train.run` or `train.load`.

    Returns:
      A function of `inputs`, float32 `[N, T, features]` or symbols, int32 `[N, T]`, and
      `lengths`, int32 `[N]`: steps of each sequence that are there. It gives arrays by name,
      `[N, ...]` of the last step that is there, or `[N, T, ...]` where each step has a target:

      - classes: `label` and `probabilities [..., C]`; labels that are text are UTF-32,
        `np.asarray(label).view("<U5")[..., 0]` where `label` is `[N, 5]`
      - truths: `truth`, bool, and `probability`
      - numbers: `number`, float32, in its unit

    >>> import jax, numpy as np
    >>> from bptt_jax import cells, export, models, tasks, train
    >>> task = tasks.arrays(np.ones((9, 4, 3)), ["no", "yes", "no"] * 3, batch=2)
    >>> model = models.features(cells.gru(3, 8), 2, 8)
    >>> best = train.Best(model.init(jax.random.key(0)), 0, 0.0)
    >>> run = train.Run(None, 0.0, False, best, model=model, task=task)
    >>> found = export.program(run)(np.ones((2, 4, 3), np.float32), np.array([4, 2]))
    >>> found["label"].shape, found["probabilities"].shape
    ((2, 3), (2, 2))
    """
    task, params = run.task, run.params
    if isinstance(task.n_in, dict):
        raise ValueError(
            "run: expected one array of inputs, as a file's program takes, got a dictionary "
            f"of {', '.join(task.n_in)}"
        )
    model, encoding = _by_steps(run.model), tasks.encoding_of(task)
    told = _outputs(task)

    def predict(inputs, lengths):
        xs = jnp.swapaxes(jnp.asarray(inputs), 0, 1)
        xs = xs if task.tokens else _scaled(xs, encoding.inputs)
        steps = jnp.arange(xs.shape[0], dtype=lengths.dtype)[:, None]
        mask = steps < lengths
        carry = model.init_carry(params, (xs.shape[1],))
        _, ys = unrolls.scan(model, params, carry, xs, Side(mask=mask))
        if encoding.per_step:
            return told(jnp.swapaxes(ys, 0, 1))
        if isinstance(len_ys := ys.shape[0], int) and len_ys == 1:  # after a pool
            return told(ys[0])
        last = jnp.maximum(lengths - 1, 0)[None, :, None]
        return told(jnp.take_along_axis(ys, last, 0)[0])

    return predict


def _by_steps(model: Layer | Sections) -> Layer | Sections:
    if model.over is None:
        return model
    return model.over(lambda part: layers.made(part._replace(loop=loops.step_by_step)))


def _scaled(xs, scale: Scale | None):
    if scale is None:
        return xs
    mean, deviation = (np.array(a, np.float32) for a in scale)
    return (xs - mean) / deviation


def _outputs(task: Task) -> Callable:
    """`ys [..., O] -> arrays by name`."""
    form, encoding = tasks.form_of(task), tasks.encoding_of(task)
    shape = (task.n_out,) if encoding.shape is None else encoding.shape
    if form is tasks.LABELS:
        of_class = _labels(task)
        return lambda ys: dict(
            label=jnp.asarray(of_class)[ys.argmax(-1)],
            probabilities=jax.nn.softmax(ys, -1),
        )
    if form is tasks.TRUTHS:

        def truths(ys):
            ys = ys.reshape(*ys.shape[:-1], *shape)
            return dict(truth=ys > 0, probability=jax.nn.sigmoid(ys))

        return truths

    def numbers(ys):
        if encoding.targets is not None:
            mean, deviation = (np.array(a, np.float32) for a in encoding.targets)
            ys = ys * deviation + mean
        return dict(number=ys.reshape(*ys.shape[:-1], *shape))

    return numbers


def _labels(task: Task) -> np.ndarray:
    """The label of each class: numbers `[C]`, or the characters of texts `[C, longest]`."""
    classes = tasks.encoding_of(task).classes
    labels = np.arange(task.n_out) if classes is None else np.array(classes)
    if labels.dtype.kind == "U":
        return np.ascontiguousarray(labels).view(np.uint32).reshape(len(labels), -1)
    if labels.dtype.kind == "S":
        return np.ascontiguousarray(labels).view(np.uint8).reshape(len(labels), -1)
    if labels.dtype == bool:
        return labels
    if labels.dtype.kind != "i" or np.abs(labels).max() >= 2**31:
        raise ValueError(
            f"classes: expected texts, truths or whole numbers of int32, got "
            f"{labels.dtype} {labels.tolist()[:3]}"
        )
    return labels.astype(np.int32)
