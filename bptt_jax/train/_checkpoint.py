"""Checkpoints by orbax: written aside and renamed, the last few kept, and checked."""

import contextlib
import pathlib
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from bptt_jax import _files
from bptt_jax.train._fingerprint import changes, digest, shapes
from bptt_jax.train._step import TrainState
from bptt_jax.types import PyTree


class Best(NamedTuple):
    """Where the held-out loss was least, or `score` of `train.run` best.

    params: of the model, after so many updates.
    position: updates done by then.
    held_out: mean loss of a step: in a checkpoint over the batches of an evaluation, by
        which the best is found; as `Run.best` over `RunOptions.final_batches`.
    since: evaluations after it, none of which was better.
    score: the figure by which it was found, over the same batches; None where that is the
        loss, and where it was not finite.
    """

    params: PyTree
    position: int
    held_out: float
    since: int = 0
    score: float | None = None


class Checkpoints:
    """The checkpoints of one run, by position.

    A save is complete or not there: a process that is killed while it saves leaves the
    one before. Each has digests of its arrays, which are compared when it is read, and
    the best parameters up to then, so that whichever is gone on with has its own.

    Args:
      folder: made where it is missing.
      keep: how many are kept, the newest.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 3):
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        items = ("params", "rest", "best", "digests")
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_names=items
        )

    def save(
        self,
        state: TrainState,
        best: Best | None = None,
        place: dict[str, Any] | None = None,
    ) -> None:
        """Saves in the background; waits for the save before.

        Args:
          state: of the run.
          best: up to there.
          place: of the training stream, where it has one to be kept (`types.StreamPlace`).
        """
        # A copy: the next update is given the state's own buffers to write into.
        parts = _parts(copied(state)) | ({} if best is None else dict(best=best.params))
        about: dict[str, Any] = dict(
            digests={name: digest(part) for name, part in parts.items()},
            shapes={name: shapes(part) for name, part in parts.items()},
        )
        if best is not None:
            about["best"] = best._replace(params=None)._asdict()
        if place is not None:
            about["place"] = place
        items = {k: ocp.args.StandardSave(part) for k, part in parts.items()}
        items = ocp.args.Composite(digests=ocp.args.JsonSave(about), **items)
        with _files.naming(self.folder):
            self._manager.save(int(state.position), args=items)

    def close(self) -> None:
        """Waits for what is being saved."""
        with _files.naming(self.folder):
            try:
                self._manager.wait_until_finished()
            finally:  # after a failure, too: it has threads
                self._manager.close()

    def position(self) -> int | None:
        """Updates of the newest; None where there is none."""
        return self._manager.latest_step()

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest state, in arrays of its own; None where there is none at all.

        Raises:
          ValueError: it cannot be read, is not what was saved, or is of another model,
            optimizer or estimator. Nothing on disk is changed.
        """
        found = self._newest(_parts(like))
        if found is None:
            return None
        rest = found["rest"]
        rest["estimator_state"] = rest.pop("carry")
        return TrainState(params=found["params"], **rest)

    def restore_params(self, like: PyTree) -> PyTree | None:
        """The newest parameters alone; otherwise as `restore`."""
        found = self._newest(dict(params=like))
        return None if found is None else found["params"]

    def restore_best(self, like: PyTree) -> Best | None:
        """The best parameters up to the newest state; otherwise as `restore`.

        None also where nothing had been evaluated by then.
        """
        found = self._newest(dict(best=like))
        if found is None or "best" not in found:
            return None
        return Best(**found["about"]["best"] | dict(params=found["best"]))

    def restore_place(self) -> dict[str, Any] | None:
        """The training stream's, before the newest state; None where none was kept."""
        found = self._newest({})
        return None if found is None else found["about"].get("place")

    def _newest(self, like: dict[str, PyTree]) -> dict[str, Any] | None:
        step = self._manager.latest_step()
        if step is None:
            return None
        try:
            with _no_late_reports():
                return self._read(step, like)
        except _OfAnother as error:
            raise ValueError(
                f"checkpoint {self.folder / str(step)} is sound, and of another model, "
                f"optimizer or estimator: {error}; nothing was changed"
            ) from None
        except Exception as error:  # orbax raises whatever its formats raise
            older = [s for s in self._manager.all_steps() if s < step]
            instead = f"continue from step {max(older)}" if older else "begin anew"
            reason = " ".join(str(error).split())[:160]
            raise ValueError(
                f"checkpoint {self.folder / str(step)} is damaged ({reason}); nothing was "
                f"changed; move that folder away to {instead}"
            ) from error

    def _read(self, step: int, like: dict[str, PyTree]) -> dict[str, Any]:
        """What there is of the parts of `like`, and what is said about all."""
        about = self._items(step, digests=ocp.args.JsonRestore())["digests"]
        like = {name: part for name, part in like.items() if name in about["digests"]}
        for name, part in like.items():
            _same_shapes(name, about["shapes"][name], shapes(part))
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        wanted = {k: ocp.args.StandardRestore(part) for k, part in abstract.items()}
        read = self._items(step, **wanted) if wanted else {}
        for name in like:
            if digest(read[name]) != about["digests"][name]:
                raise ValueError(f"its {name} are not those that were saved")
        # Copies of our own: what a checkpoint library hands out is not to be donated.
        return {k: jax.tree.map(jnp.copy, read[k]) for k in like} | dict(about=about)

    def _items(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**items))


class _OfAnother(Exception):
    """Its arrays have other names, shapes or dtypes than are wanted."""


@jax.jit
def copied(tree: PyTree) -> PyTree:
    """Compiled: arrays of several processes are no operands of single operations."""
    return jax.tree.map(jnp.copy, tree)


LATE = 0.3
"""Seconds in which the reads that go on after a failed one end."""


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
    try:
        yield
    except BaseException:
        time.sleep(LATE)
        raise
    finally:
        sys.unraisablehook = former


def _parts(state: TrainState) -> dict[str, PyTree]:
    """Parameters by themselves: they can be read without knowing the rest."""
    rest = state._asdict()
    rest["carry"] = rest.pop(
        "estimator_state"
    )  # as files have had it from the first on
    return dict(params=rest.pop("params"), rest=rest)


def _same_shapes(name: str, saved: dict[str, str], wanted: dict[str, str]) -> None:
    if changed := changes(saved, wanted, name):
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise _OfAnother(", ".join(changed[:3]) + more)
