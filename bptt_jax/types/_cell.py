"""One recurrent step."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from jax import Array

from bptt_jax._factory import record
from bptt_jax.types._init import Init, InitCarry
from bptt_jax.types._pytree import PyTree
from bptt_jax.types._step_vjp import StepVJP


class Unsaid(NamedTuple):
    """In the place of `Cell.output` where nobody said whether the output is a part of the
    state: a layer asks a trace of one step. False as a condition, for it is empty.
    """


class CellStep(Protocol):
    """One step: the definition of a cell.

    Args:
      params: of the cell.
      carry: before the step, leaves `[..., H]`.
      x: inputs, leaves `[..., I]`; `(x, key)` of a cell that is `keyed`; None where there
        are none.

    Returns:
      `(carry, y)`: after the step, like the one before in structure, shapes and dtypes,
      and the output, leaves `[..., O]`.
    """

    def __call__(
        self, params: PyTree, carry: PyTree, x: PyTree, /
    ) -> tuple[PyTree, PyTree]: ...


class CellOutput(Protocol):
    """The output as the part of the state that it is.

    Args:
      carry: after a step.

    Returns:
      y, a selection of the leaves of the carry as they are.
    """

    def __call__(self, carry: PyTree, /) -> PyTree: ...


class CellCouplings(Protocol):
    """Changes the matrices through which a unit sees the past of others.

    Args:
      f: for each of these matrices another of its shape.
      params: of the cell.

    Returns:
      params with f over them; as they are where a cell has no such matrix.
    """

    def __call__(self, f: Callable[[Array], Array], params: PyTree, /) -> PyTree: ...


@record
class Cell(NamedTuple):
    """One recurrent step, as pure functions.

    init: an `Init`, of the parameters.
    init_carry: an `InitCarry`, of the state.
    step: a `CellStep`: the definition of the cell.
    vjp: its derivative, a `StepVJP`.
    output: a `CellOutput`, where the output is a part of the state (it is then stored
        once); None where it is not; `Unsaid()` where that is still to be found out
        (`cells.from_step`).
    keyed: whether `x` is `(x, key)`; a layer hands such a cell the keys of `Side`.
    name: of the equations, "lstm"; "" where they have none.
    pointwise: whether `move` and `local` work unit by unit; False where they mix units, or
        where nobody has said.
    affine: whether the new state is an affine function of the one before.
    couplings: a `CellCouplings`; None: not known.
    """

    init: Init
    init_carry: InitCarry
    step: CellStep
    vjp: StepVJP
    output: CellOutput | Unsaid | None = None
    keyed: bool = False
    name: str = ""
    pointwise: bool = False
    affine: bool = False
    couplings: CellCouplings | None = None
