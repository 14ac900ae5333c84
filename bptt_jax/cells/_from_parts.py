"""A cell from a derivative whose products are not cut apart."""

from collections.abc import Callable

import jax

from bptt_jax._factory import factory
from bptt_jax.cells._from_step import refuse_arrays
from bptt_jax.types import (
    Cell,
    CellCouplings,
    CellOutput,
    Init,
    InitCarry,
    PyTree,
    StepBackward,
    StepProject,
    StepVJP,
    Summed,
    Unsaid,
)


@factory
def from_parts(
    init: Init,
    init_carry: InitCarry,
    *,
    project: StepProject,
    forward: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]],
    linearize: Callable[[PyTree, PyTree, PyTree, PyTree], PyTree],
    backward: StepBackward,
    contract: Callable[[PyTree, PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]],
    output: CellOutput | Unsaid | None = Unsaid(),
    keyed: bool = False,
    name: str = "",
    pointwise: bool = False,
    affine: bool = False,
    couplings: CellCouplings | None = None,
) -> Cell:
    """A cell from a step and its derivative in five functions.

    For equations that do not show a product with the state apart from what is pointwise,
    or whose author does not care to: `StepVJP` with gates that are the projected inputs,
    and gradients of which no factors are known.

    Args:
      init: `(key) -> params`.
      init_carry: `(params, batch_shape) -> carry`.
      project: `(params, xs) -> us`, all times at once.
      forward: `(params, carry, u) -> (carry, y)`, one step.
      linearize: `(params, carries, us, nexts) -> coeffs`, all times at once, from the
        carries before and after each step; O(state) for each example and step.
      backward: `(params, coeffs, d_carry, d_y) -> (d_carry, delta)`, one step.
      contract: `(params, xs, carries, coeffs, deltas) -> (d_params, d_xs)`, all times at
        once.
      output, keyed, name: as of `from_step`.
      pointwise: whether `forward` and `linearize` work unit by unit.
      affine, couplings: see `types.Cell`.

    Raises:
      TypeError: a function closes over an array.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells
    >>> total = cells.from_parts(
    ...     lambda key: jnp.ones(()), lambda p, batch_shape: jnp.zeros((*batch_shape, 1)),
    ...     project=lambda p, xs: p * xs,
    ...     forward=lambda p, s, u: (s + u, s + u),
    ...     linearize=lambda p, ss, us, nexts: (),
    ...     backward=lambda p, _, d_s, d_y: (d_s + d_y, d_s + d_y),
    ...     contract=lambda p, xs, ss, _, ds: ((xs * ds).sum(), p * ds),
    ...     output=lambda s: s)
    """
    refuse_arrays(
        init=init, init_carry=init_carry, project=project, forward=forward,
        linearize=linearize, backward=backward, contract=contract, couplings=couplings,
    )  # fmt: skip

    def step(params, carry, x):
        return forward(params, carry, project(params, x))

    def gates(params, carry, u):
        del params, carry
        return u

    def move(params, u, carry):
        return forward(params, carry, u)

    def local(params, us, carries, nexts):
        return linearize(params, carries, us, nexts)

    def factors(params, xs, carries, coeffs, deltas):
        d_params, d_xs = contract(params, xs, carries, coeffs, deltas)
        return jax.tree.map(Summed, d_params), d_xs

    vjp = StepVJP(project, gates, move, local, backward, factors)
    return Cell(
        init, init_carry, step, vjp, output, keyed, name, pointwise, affine, couplings
    )
