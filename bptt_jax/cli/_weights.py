"""`--init-from RUN`: a run that begins with the weights of another one.

They are kept in the new run's folder: it goes on whatever becomes of the other.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from bptt_jax import _files, sweep, train
from bptt_jax._processes import first
from bptt_jax.types import Layer, PyTree, Sections

KEPT = "initial.safetensors"


def started(
    model: Layer | Sections, run: pathlib.Path | None, out: pathlib.Path
) -> Layer | Sections:
    """The model whose first parameters are the best of a run; `out` may have them already.

    Raises:
      ValueError: there is no such run, or its parameters are of another model.
    """
    if run is None:
        return model
    like = jax.eval_shape(model.init, jax.random.key(0))
    kept = out / KEPT
    found = sweep.parameters(kept, like) if kept.exists() else of_run(run, like)
    params = jax.tree.map(jnp.asarray, found)
    return model._replace(init=lambda key: params)


def of_run(run: pathlib.Path, like: PyTree) -> PyTree:
    """The best parameters of a run; the last where none were evaluated yet."""
    folder = run / "checkpoint"
    if not folder.is_dir():
        raise ValueError(f"--init-from {run}: no run with a checkpoint is there")
    checkpoints = train.Checkpoints(folder)
    try:
        best = checkpoints.restore_best(like)
        params = checkpoints.restore_params(like) if best is None else best.params
    except ValueError as error:
        raise ValueError(f"--init-from {run}: {error}") from None
    finally:
        checkpoints.close()
    if params is None:
        raise ValueError(f"--init-from {run}: no run with a checkpoint is there")
    return params


def keep(model: Layer | Sections, run: pathlib.Path | None, out: pathlib.Path) -> None:
    """Writes the first parameters into the run's folder, if they are another run's."""
    path = out / KEPT
    if run is None or path.exists() or not first():
        return
    host = jax.tree.map(np.asarray, model.init(jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(host)
    named = {jax.tree_util.keystr(at) or "value": a for at, a in leaves}
    arrays, about = _files.apart(named)
    about["sha256"] = train.digest(host)
    _files.replace(path, lambda new: save_file(arrays, new, metadata=about))
