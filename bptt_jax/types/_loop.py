"""How the recurrences of a stretch are run."""

from typing import NamedTuple, Protocol

from bptt_jax.types._cell import Cell
from bptt_jax.types._pytree import PyTree


class LoopPrepare(Protocol):
    """What does not depend on the step (a weight in another layout, say): a compiler moves
    it out of the loop over stretches.

    Args:
      cell: as the stretch runs it.
      params: of the cell.

    Returns:
      ready, any tree of arrays.
    """

    def __call__(self, cell: Cell, params: PyTree, /) -> PyTree: ...


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
      ready: what `prepare` made.
      carry: before the first step, leaves `[..., H]`.
      us: projected inputs, leaves `[K, ...]`.
      keep: what is kept of each step.
      length: K.

    Returns:
      `(carry, ys, kept)`: after the last step; outputs `[K, ..., O]`; the trees of `keep`,
      leaves `[K, ...]`.
    """

    def __call__(
        self,
        cell: Cell,
        ready: PyTree,
        carry: PyTree,
        us: PyTree,
        keep: LoopKeep,
        length: int,
        /,
    ) -> tuple[PyTree, PyTree, PyTree]: ...


class LoopBackward(Protocol):
    """K steps back, from the last.

    Args:
      cell: as the stretch runs it.
      ready: what `prepare` made.
      coeffs: of each step, leaves `[K, ...]`.
      d_carry: cotangent of the carry after the last step.
      d_ys: cotangents of the outputs, leaves `[K, ..., O]`.

    Returns:
      `(d_carry, deltas)`: the cotangent of the carry before the first step, and the
      deltas, leaves `[K, ...]`.
    """

    def __call__(
        self,
        cell: Cell,
        ready: PyTree,
        coeffs: PyTree,
        d_carry: PyTree,
        d_ys: PyTree,
        /,
    ) -> tuple[PyTree, PyTree]: ...


class LoopSupports(Protocol):
    """Whether a loop can run a stretch.

    Args:
      cell: as the stretch runs it.
      shapes: of `(params, carry, xs)` of a stretch, shapes and dtypes alone.
      platform: "cpu", "gpu", "tpu".

    Returns:
      The reason why it cannot; None where it can.
    """

    def __call__(
        self, cell: Cell, shapes: tuple[PyTree, PyTree, PyTree], platform: str, /
    ) -> str | None: ...


class Loop(NamedTuple):
    """How the two recurrences of a stretch are run. Provisional: fields may still change.

    A loop takes the cell's own functions; masks, resets, zoneout and hooks are wrapped
    around the cell, so no loop knows of them. Every loop returns the same trees.

    name: shown in its place, "loops.step_by_step".
    prepare: a `LoopPrepare`, once before the steps.
    forward: a `LoopForward`.
    backward: a `LoopBackward`.
    supports: a `LoopSupports`.
    """

    name: str
    prepare: LoopPrepare
    forward: LoopForward
    backward: LoopBackward
    supports: LoopSupports

    def __repr__(self) -> str:
        return self.name
