"""Checkpoints by orbax: written aside and renamed, the last few kept, and checked."""

import contextlib
import logging
import pathlib
import sys

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from bptt_jax.train._fingerprint import digest
from bptt_jax.train._step import TrainState
from bptt_jax.types import PyTree

# orbax reports each save at level INFO and each slow one as a warning
logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints of one run, by position.

    A save is complete or not there: a process that is killed while it saves leaves the
    one before. Each has digests of its arrays, which are compared when it is read.

    Args:
      folder: made where it is missing.
      keep: how many are kept, the newest.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 3):
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_names=("params", "rest", "digests")
        )

    def save(self, state: TrainState) -> None:
        """Saves in the background; waits for the save before."""
        # A copy: the next step is given the state's own buffers to write into.
        parts = _parts(_copied(state))
        digests = {name: digest(part) for name, part in parts.items()}
        self._manager.save(
            int(state.position),
            args=ocp.args.Composite(
                digests=ocp.args.JsonSave(digests),
                **{k: ocp.args.StandardSave(part) for k, part in parts.items()},
            ),
        )

    def close(self) -> None:
        """Waits for what is being saved."""
        self._manager.wait_until_finished()
        self._manager.close()

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest state, in arrays of its own; None where there is none at all.

        Raises:
          ValueError: it cannot be read, or is not what was saved. Nothing on disk is
            changed.
        """
        found = self._newest(_parts(like))
        if found is None:
            return None
        return TrainState(params=found["params"], **found["rest"])

    def restore_params(self, like: PyTree) -> PyTree | None:
        """The newest parameters alone; otherwise as `restore`."""
        found = self._newest(dict(params=like))
        return None if found is None else found["params"]

    def _newest(self, like: dict[str, PyTree]) -> dict[str, PyTree] | None:
        step = self._manager.latest_step()
        if step is None:
            return None
        try:
            with _no_late_reports():
                return self._read(step, like)
        except Exception as error:  # orbax raises whatever its formats raise
            older = [s for s in self._manager.all_steps() if s < step]
            instead = f"continue from step {max(older)}" if older else "begin anew"
            reason = " ".join(str(error).split())[:160]
            raise ValueError(
                f"checkpoint {self.folder / str(step)} is damaged ({reason}); nothing was "
                f"changed; move that folder away to {instead}"
            ) from error

    def _read(self, step: int, like: dict[str, PyTree]) -> dict[str, PyTree]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                digests=ocp.args.JsonRestore(),
                **{k: ocp.args.StandardRestore(part) for k, part in abstract.items()},
            ),
        )
        for name, part in like.items():
            _same_shapes(name, part, read[name])
            if digest(read[name]) != read["digests"][name]:
                raise ValueError(f"its {name} are not those that were saved")
        # Copies of our own: what a checkpoint library hands out is not to be donated.
        return {name: jax.tree.map(jnp.copy, read[name]) for name in like}


@jax.jit
def _copied(state):
    """Compiled: arrays of several processes are no operands of single operations."""
    return jax.tree.map(jnp.copy, state)


@contextlib.contextmanager
def _no_late_reports():
    """Where one array cannot be read, the reads of others end with nobody to tell.

    They say so in tracebacks on stderr, some of them after the failure is known.
    """
    former = sys.unraisablehook

    def hook(found):
        if str(found.exc_value) != "Event loop is closed":
            former(found)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = former  # not where the read has failed


def _parts(state: TrainState) -> dict[str, PyTree]:
    """Parameters by themselves: they can be read without knowing the rest."""
    rest = state._asdict()
    return dict(params=rest.pop("params"), rest=rest)


def _same_shapes(name: str, like: PyTree, found: PyTree) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(like)
    for (path, want), got in zip(leaves, jax.tree.leaves(found), strict=True):
        if (want.shape, want.dtype) != (got.shape, got.dtype):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: expected {want.dtype}"
                f"{list(want.shape)}, got {got.dtype}{list(got.shape)}"
            )
