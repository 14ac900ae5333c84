"""Checkpoints by orbax: written aside and renamed, the last few kept."""

import logging
import pathlib

import jax
import orbax.checkpoint as ocp

from bptt_jax.train._step import TrainState

# orbax reports each save at level INFO and each slow one as a warning
logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints of one run, by position.

    A save is complete or not there: a process that is killed while it saves leaves the
    one before. A checkpoint that cannot be read is set aside (`damaged-…`), not removed.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 3):
        self.folder = folder.absolute()
        self.keep = keep
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(max_to_keep=self.keep, create=True)
        return ocp.CheckpointManager(self.folder, options=options)

    def save(self, state: TrainState) -> None:
        """Saves in the background; waits for the save before."""
        self._manager.save(int(state.position), args=ocp.args.StandardSave(state))

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def restore(self, like: TrainState, warn=print) -> TrainState | None:
        """The newest checkpoint that can be read; None where there is none at all.

        Raises:
          ValueError: there are checkpoints, and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._read(step, like)
            except Exception as error:  # orbax raises whatever its formats raise
                reason = str(error).split("\n")[0][:120]
                warn(f"checkpoint {step} cannot be read, set aside: {reason}")
                self._set_aside(step)
        if steps:
            raise ValueError(
                f"no checkpoint in {self.folder} can be read; none was removed"
            )
        return None

    def _read(self, step: int, like: TrainState) -> TrainState:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        for (path, want), got in zip(
            jax.tree_util.tree_leaves_with_path(like),
            jax.tree.leaves(state),
            strict=True,
        ):
            if (want.shape, want.dtype) != (got.shape, got.dtype):
                name = jax.tree_util.keystr(path)
                raise ValueError(f"{name}: expected {want.dtype}{list(want.shape)}")
        # Copies of our own: what a checkpoint library hands out is not to be donated.
        return jax.tree.map(lambda a: a.copy(), state)

    def _set_aside(self, step: int) -> None:
        self._manager.close()
        place = self.folder / str(step)
        place.rename(self.folder.parent / f"damaged-{self.folder.name}-{step}")
        self._manager = self._open()
