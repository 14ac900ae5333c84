"""A run as ONNX, by the standard's own RNN, LSTM and GRU: data in, labels and units out."""

import importlib
import os
import pathlib
from typing import Any

import numpy as np

from bptt_jax import _files, tasks
from bptt_jax.export._parts import Parts, Recurrent, parts_of
from bptt_jax.interop import files
from bptt_jax.train import Run
from bptt_jax.types import Scale

OPSET, IR = 17, 8
"""Of 2022, which every runtime of today reads."""
OPERATORS = {"cells.elman": "RNN", "cells.gru": "GRU", "cells.lstm": "LSTM"}
ORDER = {"RNN": "h", "GRU": "zrh", "LSTM": "iofc"}
"""Gates as ONNX has them."""
OURS = {"RNN": "h", "GRU": "rzh", "LSTM": "ifco"}
"""The same gates as our parameters have them."""
TAKEN = {
    "n_in", "n_hidden", "forget_bias", "chrono", "kernel_init", "bias_init",
    "recurrent_kernel_init", "param_dtype", "activation", "reset_after",
}  # fmt: skip
"""Options of cells that ONNX's operators have, too, or that make parameters alone."""
ACTIVATIONS = {
    "jnp.tanh": "Tanh", "lax.tanh": "Tanh", "jax.nn.tanh": "Tanh", "jax.nn.relu": "Relu",
}  # fmt: skip


def onnx(run: Run, out: str | os.PathLike[str]) -> None:
    """Writes a run as an ONNX model in float32, of any number of sequences and of steps.

    Its inputs are `inputs`, float32 `[N, T, features]` in the data's own unit, or symbols,
    int32 `[N, T]`, and `lengths`, int32 `[N]`. Its outputs are those of `program`, `label` with
    text as text; after the end of a sequence they mean nothing.

    Args:
      run: of `train.run` or `train.load`, whose model is an embedding or none, cells of
        `cells.elman` (tanh, relu), `gru` or `lstm` without further options in a row, and a
        dense layer or none.
      out: a new file; nothing is overwritten.

    Raises:
      ModuleNotFoundError: the package `onnx` is not here, `pip install bptt-jax[onnx]`.
      ValueError: the model has another part, which is named, or there is something of that
        name already, or no such folder.
    """
    out = pathlib.Path(out)
    files.check_new(out)
    parts = parts_of(run, "ONNX")
    for part in parts.recurrent:
        _refuse(part)
    whole = _Graph(_library()).of(run, parts)
    _files.create(out, lambda new: new.write_bytes(whole))


def _library() -> Any:
    try:
        return importlib.import_module("onnx")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "an ONNX file needs onnx: pip install 'bptt-jax[onnx]'"
        ) from None


def _refuse(part: Recurrent) -> None:
    """Refuses a cell that computes what no operator of ONNX does."""
    if part.name not in OPERATORS:
        raise ValueError(
            f"model: expected cells that ONNX has, {', '.join(OPERATORS)}, got {part.name}"
        )
    for name, value in part.options.items():
        if name not in TAKEN and value not in (None, False):
            raise ValueError(f"model: {part.name} with {name} is none of ONNX's")
    if _activation(part) is None:
        raise ValueError(
            f"model: {part.name} with activation {part.options['activation']}: ONNX's has "
            "tanh or relu here"
        )


def _activation(part: Recurrent) -> str | None:
    said = part.options.get("activation", dict(name="jnp.tanh"))
    return ACTIVATIONS.get(said.get("name", "")) if isinstance(said, dict) else None


def operands(part: Recurrent) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W `[1, G·H, I]`, R `[1, G·H, H]` and B `[1, 2·G·H]` of its operator, in float32.

    Of a GRU whose reset comes after the product the second half of B has `b_n`, which is
    multiplied by r; all other biases are in the first.
    """
    kind = OPERATORS[part.name]
    places = [OURS[kind].index(gate) for gate in ORDER[kind]]

    def ordered(a: Any) -> np.ndarray:
        a = np.asarray(a, np.float32)
        each = np.split(a, len(places), -1)
        return np.concatenate([each[i] for i in places], -1)

    params = part.params
    w_x, w_h, b = (ordered(params[name]) for name in ("w_x", "w_h", "b"))
    second = np.zeros_like(b)
    if "b_n" in params:
        second[-len(params["b_n"]) :] = np.asarray(params["b_n"], np.float32)
    return w_x.T[None], w_h.T[None], np.concatenate([b, second])[None]


class _Graph:
    """Nodes and constants, in the order in which they are made."""

    def __init__(self, library: Any):
        self.onnx, self.nodes, self.constants = library, [], []

    def add(
        self, operator: str, *inputs: str, out: str | None = None, **options
    ) -> str:
        name = out or f"{operator.lower()}{len(self.nodes)}"
        node = self.onnx.helper.make_node(operator, list(inputs), [name], **options)
        self.nodes.append(node)
        return name

    def constant(self, a: Any) -> str:
        name = f"constant{len(self.constants)}"
        if a.dtype.kind in "US":
            make = self.onnx.helper.make_tensor
            words = [w if isinstance(w, bytes) else w.encode() for w in a.tolist()]
            tensor = make(name, self.onnx.TensorProto.STRING, a.shape, words)
        else:
            tensor = self.onnx.numpy_helper.from_array(a, name)
        self.constants.append(tensor)
        return name

    def of(self, run: Run, parts: Parts) -> bytes:
        """The model as a file has it."""
        encoding = tasks.encoding_of(run.task)
        xs = self._first(run, parts)
        for i, part in enumerate(parts.recurrent):
            top = i + 1 == len(parts.recurrent)
            xs = self._recurrent(part, xs, last=top and not encoding.per_step)
        if encoding.per_step:
            xs = self.add("Transpose", xs, perm=[1, 0, 2])
        if parts.dense is not None:
            xs = self._dense(parts.dense, xs)
        return self._model(run, self._outputs(run, xs))

    def _first(self, run: Run, parts: Parts) -> str:
        """What the first cell sees, `[T, N, I]`."""
        if parts.embedding is not None:
            table = np.asarray(parts.embedding["embedding"], np.float32)
            xs = self.add("Gather", self.constant(table), "inputs")
        else:
            scale = tasks.encoding_of(run.task).inputs
            xs = "inputs" if scale is None else self._scaled("inputs", scale)
        return self.add("Transpose", xs, perm=[1, 0, 2])

    def _scaled(self, xs: str, scale: Scale) -> str:
        mean, deviation = (self.constant(np.array(a, np.float32)) for a in scale)
        return self.add("Div", self.add("Sub", xs, mean), deviation)

    def _recurrent(self, part: Recurrent, xs: str, last: bool) -> str:
        """Outputs `[T, N, H]`, or that of the last step `[N, H]`."""
        kind = OPERATORS[part.name]
        arrays = [self.constant(a) for a in operands(part)]
        options: dict[str, Any] = dict(hidden_size=np.shape(part.params["w_h"])[0])
        if kind == "GRU":
            options["linear_before_reset"] = int(part.options.get("reset_after", True))
        if kind == "RNN":
            options["activations"] = [_activation(part)]
        name = f"{kind.lower()}{len(self.nodes)}"
        outputs = ["", name] if last else [name]
        node = self.onnx.helper.make_node(
            kind, [xs, *arrays, "lengths"], outputs, **options
        )
        self.nodes.append(node)
        axis = self.constant(np.array([0 if last else 1], np.int64))
        return self.add("Squeeze", name, axis)

    def _dense(self, params: dict[str, Any], xs: str) -> str:
        kernel = self.constant(np.asarray(params["kernel"], np.float32))
        ys = self.add("MatMul", xs, kernel)
        if "bias" not in params:
            return ys
        return self.add(
            "Add", ys, self.constant(np.asarray(params["bias"], np.float32))
        )

    def _outputs(self, run: Run, ys: str) -> list[str]:
        """Of `ys [N, O]` or `[N, T, O]` the names of what they mean."""
        task, form = run.task, tasks.form_of(run.task)
        encoding = tasks.encoding_of(task)
        if form is tasks.LABELS:
            classes = encoding.classes
            labels = np.arange(task.n_out) if classes is None else np.array(classes)
            at = self.add("ArgMax", ys, axis=-1, keepdims=0)
            return [
                self.add("Gather", self.constant(labels), at, out="label"),
                self.add("Softmax", ys, axis=-1, out="probabilities"),
            ]
        if form is not tasks.TRUTHS and encoding.targets is not None:
            mean, deviation = (
                self.constant(np.array(a, np.float32)) for a in encoding.targets
            )
            ys = self.add("Add", self.add("Mul", ys, deviation), mean)
        if encoding.shape is not None:
            leading = [0, 0] if encoding.per_step else [0]
            shape = np.array([*leading, *encoding.shape], np.int64)
            ys = self.add("Reshape", ys, self.constant(shape))
        if form is tasks.TRUTHS:
            zero = self.constant(np.zeros((), np.float32))
            return [
                self.add("Greater", ys, zero, out="truth"),
                self.add("Sigmoid", ys, out="probability"),
            ]
        return [self.add("Identity", ys, out="number")]

    def _model(self, run: Run, outputs: list[str]) -> bytes:
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        task, encoding = run.task, tasks.encoding_of(run.task)
        info = helper.make_tensor_value_info
        inputs = (
            info("inputs", kinds.INT32, ["n", "t"])
            if task.tokens
            else info("inputs", kinds.FLOAT, ["n", "t", task.n_in])
        )
        leading = ["n", "t"] if encoding.per_step else ["n"]
        labels = np.array(encoding.classes or [0])
        types = dict.fromkeys(("probabilities", "probability", "number"), kinds.FLOAT)
        text = labels.dtype.kind in "US"
        types |= dict(truth=kinds.BOOL)
        types["label"] = (
            kinds.STRING if text else helper.np_dtype_to_tensor_dtype(labels.dtype)
        )
        shape = (task.n_out,) if encoding.shape is None else encoding.shape
        shapes = dict.fromkeys(("truth", "probability", "number"), [*leading, *shape])
        shapes |= dict(label=leading, probabilities=[*leading, task.n_out])
        graph = helper.make_graph(
            self.nodes,
            "run",
            [inputs, info("lengths", kinds.INT32, ["n"])],
            [info(name, types[name], shapes[name]) for name in outputs],
            initializer=self.constants,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], producer_name="bptt_jax"
        )
        model.ir_version = IR
        self.onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()
