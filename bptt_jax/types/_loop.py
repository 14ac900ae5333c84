"""How a stretch of time is run."""

from typing import NamedTuple, Protocol

from bptt_jax.types._cell import Cell
from bptt_jax.types._pytree import PyTree
from bptt_jax.types._save import Save


class LoopKeep(Protocol):
    """What a loop is told to keep of one step.

    Args:
      params: of the cell.
      carry, after: before and after the step, leaves `[..., H]`.
      u, gates: of the step.

    Returns:
      Any tree of arrays.
    """

    def __call__(
        self, params: PyTree, carry: PyTree, u: PyTree, gates: PyTree, after: PyTree, /
    ) -> PyTree: ...


class LoopForward(Protocol):
    """K steps.

    Args:
      cell: as the stretch runs it.
      params: of the cell.
      carry: before the first step, leaves `[..., H]`.
      inputs: as the cell takes them, leaves `[K, ..., I]`.
      keep: what is kept of each step.
      length: K.

    Returns:
      `(carry, ys, kept)`: after the last step; outputs `[K, ..., O]`; the trees of `keep`,
      leaves `[K, ...]`.
    """

    def __call__(
        self,
        cell: Cell,
        params: PyTree,
        carry: PyTree,
        inputs: PyTree,
        keep: LoopKeep,
        length: int,
        /,
    ) -> tuple[PyTree, PyTree, PyTree]: ...


class LoopBackward(Protocol):
    """K steps back, from the last, and the sums over them.

    Args:
      cell: as the stretch runs it.
      save: what was kept, and how coefficients come of it.
      params: of the cell.
      inputs: as the cell takes them, leaves `[K, ..., I]`.
      carry: before the first step, leaves `[..., H]`.
      nexts: the carries after each step, leaves `[K, ..., H]`.
      kept: of each step, what `save` says, leaves `[K, ...]`.
      d_carry: cotangent of the carry after the last step.
      d_ys: cotangents of the outputs, leaves `[K, ..., O]`.

    Returns:
      `(d_params, d_carry, d_inputs)`: summed over the steps; of the carry before the first
      step; of the inputs. None at leaves that are not floating.
    """

    def __call__(
        self,
        cell: Cell,
        save: Save,
        params: PyTree,
        inputs: PyTree,
        carry: PyTree,
        nexts: PyTree,
        kept: PyTree,
        d_carry: PyTree,
        d_ys: PyTree,
        /,
    ) -> tuple[PyTree, PyTree, PyTree]: ...


class LoopSupports(Protocol):
    """Whether a loop can run a stretch.

    Args:
      cell: as the stretch runs it.
      save: what is kept.
      shapes: of `(params, carry, inputs)` of a stretch, shapes and dtypes alone.
      platform: "cpu", "gpu", "tpu".

    Returns:
      The reason why it cannot; None where it can.
    """

    def __call__(
        self,
        cell: Cell,
        save: Save,
        shapes: tuple[PyTree, PyTree, PyTree],
        platform: str,
        /,
    ) -> str | None: ...


class Loop(NamedTuple):
    """How a stretch of time is run, forward and back. Provisional: fields may still change.

    A loop takes the cell's own functions; masks, resets, zoneout and hooks are wrapped
    around the cell, so no loop knows of them. Every loop returns the same trees.

    name: shown in its place, "loops.step_by_step".
    forward: a `LoopForward`.
    backward: a `LoopBackward`.
    supports: a `LoopSupports`.
    whole: whether a stretch takes no memory beside what it is given and returns, so that
      one of all steps is best.
    """

    name: str
    forward: LoopForward
    backward: LoopBackward
    supports: LoopSupports
    whole: bool = False

    def __repr__(self) -> str:
        return self.name
