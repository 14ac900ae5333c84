"""What is kept for the way back."""

from typing import NamedTuple, Protocol

from bptt_jax._factory import record
from bptt_jax.types._cell import Cell
from bptt_jax.types._pytree import PyTree


class SaveKeep(Protocol):
    """What is kept of one step, beside its state.

    Args:
      cell: as the stretch runs it.
      params: of the cell.
      carry, after: before and after the step, leaves `[..., H]`.
      u, gates: of the step.

    Returns:
      kept, any tree of arrays.
    """

    def __call__(
        self,
        cell: Cell,
        params: PyTree,
        carry: PyTree,
        u: PyTree,
        gates: PyTree,
        after: PyTree,
        /,
    ) -> PyTree: ...


class SaveCoeffs(Protocol):
    """The coefficients of all steps at once, from what was kept.

    Args:
      cell: as the stretch runs it.
      params: of the cell.
      xs: inputs, leaves `[K, ..., I]`.
      carries, nexts: before and after each step, leaves `[K, ..., H]`.
      kept: of each step, leaves `[K, ...]`.

    Returns:
      coeffs, leaves `[K, ...]`, those of `cell.vjp.local`.
    """

    def __call__(
        self,
        cell: Cell,
        params: PyTree,
        xs: PyTree,
        carries: PyTree,
        nexts: PyTree,
        kept: PyTree,
        /,
    ) -> PyTree: ...


@record
class Save(NamedTuple):
    """What is kept of each step for the way back, beside its state.

    name: shown in its place, "layers.GATES".
    keep: a `SaveKeep`, of one step.
    coeffs: a `SaveCoeffs`, of all steps at once.
    """

    name: str
    keep: SaveKeep
    coeffs: SaveCoeffs

    def __repr__(self) -> str:
        return self.name
