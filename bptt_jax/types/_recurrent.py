"""How a recurrent part of a layer is made, and who looks at it."""

from typing import NamedTuple, Protocol

from bptt_jax.types._cell import Cell
from bptt_jax.types._loop import Loop
from bptt_jax.types._pytree import PyTree
from bptt_jax.types._save import Save
from bptt_jax.types._side import Side


class Seen(NamedTuple):
    """What a recurrent layer has in hand over a stretch before it sums over its steps.

    cell: as the stretch runs it, masks and resets included.
    params: its parameters.
    xs: inputs, as `cell` takes them.
    carries: before each step.
    coeffs, deltas: of each step, as `contract` takes them.
    d_states: dL/ds_t of the state after each step, from later steps and from the output
        where it is a part of the state; from later steps alone where `cell.output` is
        None, or still `Unsaid()`.
    side: of the stretch.
    """

    cell: Cell
    params: PyTree
    xs: PyTree
    carries: PyTree
    coeffs: PyTree
    deltas: PyTree
    d_states: PyTree
    side: Side


class Watched(NamedTuple):
    """A recurrent layer's gradient, and what its watch showed, leaves `[K, ...]`."""

    d_params: PyTree
    shown: PyTree


class Watch(Protocol):
    """Does the last part of the backward pass, `contract`, and shows what it likes. The
    layer's `bwd` then has a `Watched` in the place of its d_params.

    Args:
      seen: of a stretch.

    Returns:
      `((d_params, d_xs), shown)`, leaves of the last `[K, ...]`.
    """

    def __call__(self, seen: Seen, /) -> tuple[tuple[PyTree, PyTree], PyTree]: ...


class OnDCarry(Protocol):
    """Edits the cotangent of the state before a step is pulled back (to clip, detach or
    scale it). A function that closes over no arrays.

    Args:
      d_carry: from later steps alone, without what the step's own output adds.
      aux: `side.aux` at that step; None where there is none.

    Returns:
      d_carry, like the one given.
    """

    def __call__(self, d_carry: PyTree, aux: PyTree, /) -> PyTree: ...


class Recurrent(NamedTuple):
    """How a recurrent part of a layer is made: what `Layer.over` hands out, and what
    `layers.made` takes.

    cell: the recurrent step.
    on_d_carry: an `OnDCarry`, see `layers.recurrent`; None: the gradient as it is.
    loop: a `Loop`; None: the first of `loops` that supports the case.
    save: a `Save`; None: by the rule of `layers.recurrent`.
    watch: a `Watch`; None: nobody looks.
    """

    cell: Cell
    on_d_carry: OnDCarry | None = None
    loop: Loop | None = None
    save: Save | None = None
    watch: Watch | None = None
