"""A run as the state dict of a PyTorch module."""

import json
import os

import numpy as np

from bptt_jax import layers
from bptt_jax.export._parts import parts_of
from bptt_jax.interop import files, weights
from bptt_jax.interop import torch as of_torch
from bptt_jax.train import Run, about


def torch(run: Run, out: str | os.PathLike[str]) -> None:
    """Writes `torch_state` of a run as safetensors, which `module.load_state_dict` takes.

    The file's metadata have what `safetensors` has there: scales, classes and units.

    Args:
      run: of `train.run` or `train.load`.
      out: a new file; nothing is overwritten.

    Raises:
      ValueError: as `torch_state`; there is something of that name already, or no such folder.
    """
    metadata = {"bptt_jax": json.dumps(about(run.task, run.model))}
    files.write(out, torch_state(run), metadata)


def torch_state(run: Run) -> dict[str, np.ndarray]:
    """The best parameters by the names of a module with these parts, as far as there are such:

        embedding = nn.Embedding(…)
        rnn = nn.LSTM(…), nn.GRU(…) or nn.RNN(…), of one direction
        readout = nn.Linear(…)

    Args:
      run: of `train.run` or `train.load`, whose model is an embedding or none, a stack of
        cells of one kind that PyTorch has (`interop.torch`), and a dense layer or none.

    Raises:
      ValueError: the model has another part, or a cell is none of PyTorch's.

    >>> import jax, numpy as np
    >>> from bptt_jax import cells, export, models, tasks, train
    >>> task = tasks.arrays(np.ones((9, 4, 3)), np.arange(9) % 2, batch=2)
    >>> model = models.features(cells.gru(3, 8), 2, 8)
    >>> best = train.Best(model.init(jax.random.key(0)), 0, 0.0)
    >>> run = train.Run(None, 0.0, False, best, model=model, task=task)
    >>> [name for name in sorted(export.torch_state(run)) if name.startswith("readout")]
    ['readout.bias', 'readout.weight']
    """
    parts = parts_of(run, "PyTorch")
    cells = tuple((part.recurrent.cell,) for part in layers.parts(run.model))
    params = tuple((part.params,) for part in parts.recurrent)
    found = of_torch.to_state_dict(weights.Network(cells, params), prefix="rnn.")
    if parts.embedding is not None:
        found["embedding.weight"] = parts.embedding["embedding"]
    if parts.dense is not None:
        found["readout.weight"] = np.asarray(parts.dense["kernel"]).T
        if "bias" in parts.dense:
            found["readout.bias"] = parts.dense["bias"]
    return {name: np.asarray(a) for name, a in found.items()}
