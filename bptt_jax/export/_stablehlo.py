"""A run as a StableHLO program, by `jax.export`: data in, labels and units out."""

import inspect
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from bptt_jax import _files, layers, loops, tasks, unrolls
from bptt_jax import _pytrees as trees
from bptt_jax.interop import files
from bptt_jax.train import Run
from bptt_jax.types import Layer, PyTree, Scale, Sections, Side, Task, Whole

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
      ValueError: there is something of that name already, or no such folder; or the run is
        none that `program` takes; or its model sees a context, and the task's data, which say
        of what form, are not here.
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
    run_program = jax.jit(program(run))
    at = _arguments(run, *export.symbolic_shape("b, t"))
    made = export.export(run_program, platforms=PLATFORMS)(*at)
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


def _arguments(run: Run, b: Any, t: Any) -> tuple:
    """Shapes and dtypes of what the program of a run is called with."""
    inputs, lengths = _inputs(run.task, b, t), jax.ShapeDtypeStruct((b,), jnp.int32)
    if not layers.context_of(run.params):
        return inputs, lengths
    stream = run.task.held_out
    try:
        item = jax.tree.map(lambda a: a[0], stream.read(0, 1))
    except ValueError as error:  # of a run that was loaded
        raise ValueError(f"context: of what shape is in the data: {error}") from None
    context = jax.eval_shape(stream.batch, item, jax.random.key(0)).context
    row = lambda a: jax.ShapeDtypeStruct((b, *a.shape[1:]), a.dtype)
    return inputs, lengths, jax.tree.map(row, context)


def _inputs(task: Task, b: Any, t: Any) -> PyTree:
    def one(n: int, tokens: bool):
        shape, dtype = ((b, t), jnp.int32) if tokens else ((b, t, n), jnp.float32)
        return jax.ShapeDtypeStruct(shape, dtype)

    return _each_input(one, task, task.n_in)


def _each_input(f: Callable, task: Task, inputs: PyTree) -> PyTree:
    """`f(input, whether it is symbols)` of the one, or of each of a dictionary."""
    if not isinstance(task.n_in, Mapping):
        return f(inputs, bool(task.tokens))
    names = task.tokens if isinstance(task.tokens, tuple) else ()
    return {name: f(inputs[name], name in names) for name in task.n_in}


def program(run: Run) -> Callable:
    """`(inputs, lengths) -> outputs`, in the data's own units, with the parameters inside.

    Args:
      run: of `train.run` or `train.load`.

    Returns:
      A function of `inputs`, float32 `[N, T, features]` or symbols, int32 `[N, T]` (or a
      dictionary of these, where the run's are), and `lengths`, int32 `[N]`: steps of each
      sequence that are there; and, where the model sees one, of its `context`, leaves
      `[N, ...]`, as `tasks.arrays` had it. It gives arrays by name, `[N, ...]` of the last step
      that is there, or `[N, T, ...]` where each step has a target:

      - classes: `label` and `probabilities [..., C]`; labels that are text are UTF-32,
        `np.asarray(label).view("<U5")[..., 0]` where `label` is `[N, 5]`
      - truths: `truth`, bool, and `probability`
      - numbers: `number`, float32, in its unit

    Raises:
      ValueError: each step has a target, and the model says one thing of a sequence; or
        labels are whole numbers that are none of int32.

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
    task, model, params = run.task, _by_steps(run.model), run.params
    per_step, told = tasks.encoding_of(task).per_step, _outputs(task)

    def outputs(inputs, lengths, context=()):
        xs = jax.tree.map(lambda a: jnp.swapaxes(jnp.asarray(a), 0, 1), inputs)
        xs = _seen(task, xs)
        steps = jnp.arange(trees.length(xs), dtype=lengths.dtype)[:, None]
        p = layers.with_context(params, context)
        carry = model.init_carry(p, lengths.shape)
        return unrolls.scan(model, p, carry, xs, Side(mask=steps < lengths))[1]

    pooled = isinstance(model, Sections) and _steps_of(outputs, run) == 1
    if pooled and per_step:
        raise ValueError(
            "model: expected outputs of each step, as each has a target, its sections make "
            "one of a sequence"
        )

    def predict(inputs, lengths, context=()):
        ys = outputs(inputs, lengths, context)
        if per_step:
            return told(jnp.swapaxes(ys, 0, 1))
        if pooled:
            return told(ys[0])
        last = jnp.maximum(lengths - 1, 0)[None, :, None]
        return told(jnp.take_along_axis(ys, last, 0)[0])

    return predict


def _steps_of(outputs: Callable, run: Run) -> int:
    """How many steps the outputs of a sequence of two have."""
    return jax.eval_shape(outputs, *_arguments(run, 1, 2)).shape[0]


def _by_steps(model: Layer | Sections) -> Layer | Sections:
    """The model without kernels and without stretches, which are of known lengths."""
    if model.over is not None:
        part_of = lambda part: layers.made(part._replace(loop=loops.step_by_step))
        model = model.over(part_of)
    if isinstance(model, Layer):
        return model
    return layers.sections(*map(_scanned, model.parts))


def _scanned(part: Layer | Whole) -> Layer | Whole:
    """A `Whole` that is made with an unroll, with `unrolls.scan`."""
    made = getattr(part, "made", None)
    if made is None or "unroll" not in inspect.signature(made.func).parameters:
        return part
    return made.func(*made.args, **made.keywords | dict(unroll=unrolls.scan))


def _seen(task: Task, xs: PyTree) -> PyTree:
    """Inputs as the model sees them."""
    scale = tasks.encoding_of(task).inputs
    if isinstance(task.n_in, Mapping):
        scales = scale or {}
        return {name: _scaled(a, scales.get(name)) for name, a in xs.items()}
    return xs if task.tokens else _scaled(xs, scale)


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
