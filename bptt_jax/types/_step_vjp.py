"""The derivative of one recurrent step, in parts."""

from typing import NamedTuple, Protocol

from jax import Array

from bptt_jax.types._pytree import PyTree


class Gates(NamedTuple):
    """Gates of which some have names.

    named: `{name: [..., H]}`, shown to those who look (`diagnose.activity`).
    rest: what `move` and `local` take besides.
    """

    named: dict[str, Array]
    rest: PyTree = None


class StepProject(Protocol):
    """The product with the inputs.

    Args:
      params: of the cell.
      xs: inputs, leaves `[K, ..., I]`; None where there are none.

    Returns:
      us, leaves `[K, ...]`.
    """

    def __call__(self, params: PyTree, xs: PyTree, /) -> PyTree: ...


class StepGates(Protocol):
    """The product with the state, and what else of a step does not need the new state.

    Args:
      params: of the cell.
      carry: before the step, leaves `[..., H]`, or before all steps, `[K, ..., H]`.
      u: projected inputs, of the same steps.

    Returns:
      gates, any tree; `Gates` where some of it has a name.
    """

    def __call__(self, params: PyTree, carry: PyTree, u: PyTree, /) -> PyTree: ...


class StepMove(Protocol):
    """The new state.

    Args:
      params: of the cell.
      gates: of the step.
      carry: before the step, leaves `[..., H]`.

    Returns:
      `(carry, y)`: after the step, like the one before in structure, shapes and dtypes,
      and the output, leaves `[..., O]`.
    """

    def __call__(
        self, params: PyTree, gates: PyTree, carry: PyTree, /
    ) -> tuple[PyTree, PyTree]: ...


class StepLocal(Protocol):
    """The local derivatives.

    Args:
      params: of the cell.
      gates: of each step, leaves `[K, ...]`.
      carries, nexts: before and after each step, leaves `[K, ..., H]`.

    Returns:
      coeffs, leaves `[K, ...]`, O(state) for each example and step; a weight among them
      would be copied T times.
    """

    def __call__(
        self, params: PyTree, gates: PyTree, carries: PyTree, nexts: PyTree, /
    ) -> PyTree: ...


class StepBackward(Protocol):
    """The transposed derivative of a step, linear in `(d_carry, d_y)`.

    Args:
      params: of the cell.
      coeffs: of the step.
      d_carry: cotangent of the carry after the step, from later steps; like a carry.
      d_y: cotangent of the output, like an output.

    Returns:
      `(d_carry, delta)`: the cotangent of the carry before the step, and what `factors`
      needs of this step.
    """

    def __call__(
        self, params: PyTree, coeffs: PyTree, d_carry: PyTree, d_y: PyTree, /
    ) -> tuple[PyTree, PyTree]: ...


class StepFactors(Protocol):
    """What the gradients of the parameters are sums of, and those of the inputs.

    Args:
      params: of the cell.
      xs: inputs, leaves `[K, ..., I]`.
      carries: before each step, leaves `[K, ..., H]`.
      coeffs, deltas: of each step, leaves `[K, ...]`.

    Returns:
      `(factors, d_xs)`: a tree like params with an `Outer`, `Sum`, `Blocks`, `Terms` or
      `Summed` at each floating leaf; and the cotangents of the inputs, like xs.
    """

    def __call__(
        self,
        params: PyTree,
        xs: PyTree,
        carries: PyTree,
        coeffs: PyTree,
        deltas: PyTree,
        /,
    ) -> tuple[PyTree, PyTree]: ...


class StepVJP(NamedTuple):
    """BPTT of one cell, cut where time is parallel and where it is not, and the products
    with the state apart from what is pointwise. Provisional: fields may still change.

    project: a `StepProject`, all times at once.
    gates: a `StepGates`, one step, or all times at once.
    move: a `StepMove`, one step, pointwise.
    local: a `StepLocal`, all times at once, pointwise.
    backward: a `StepBackward`, one step.
    factors: a `StepFactors`, all times at once.

    What is made of these is in `cells`: `forward` is `move` of `gates`, `linearize`
    `local` of `gates`, `contract` the sum of `factors`. Leaves of `us`, `gates` and
    `coeffs` have the batch axes or none of them.
    """

    project: StepProject
    gates: StepGates
    move: StepMove
    local: StepLocal
    backward: StepBackward
    factors: StepFactors
