"""`flax.nnx.RNN` and `Bidirectional` on this project's engine: change the import.

from bptt_jax.interop.nnx import RNN            # in place of flax.nnx
ys = RNN(nnx.LSTMCell(32, 64, rngs=rngs))(xs)
"""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx
from flax.nnx.nn import dtypes
from jax import Array, lax

from bptt_jax import unrolls
from bptt_jax.interop import _flax
from bptt_jax.interop._layouts import LAYOUTS
from bptt_jax.types import PyTree, Unroll

Bidirectional = nnx.Bidirectional
"""flax's own: it runs the two `RNN`s that it is given, whosever they are."""


class RNN(nnx.RNN):
    """`flax.nnx.RNN`, with the derivative of `bptt_jax`.

    Constructor, call, state and results are flax's. `SimpleCell` (tanh, relu or σ; also
    residual), `LSTMCell`, `OptimizedLSTMCell` and `GRUCell`, with σ and tanh, plain
    `nnx.Linear` inside and one dtype for arithmetic and state, have the hand-derived
    backward, on flax's parameters. Any other cell has that of `cells.from_step`; what it
    changes beside its `Param`s (counts of random streams, statistics) is carried from
    step to step, as in flax, so dropout draws what it draws there. With `state_axes` or
    `broadcast_rngs` of your own, or `seq_lengths` and a cell that changes its state, time
    is flax's own scan.

    Differs from flax in this:

    - with `seq_lengths` nothing of the padding is read, NaN included, and outputs there
      are the last real ones (zero with a cell without a hand-derived backward), so a
      loss over the padding is another one; in flax they are what the cell made of the
      padding. A sequence of length 0 returns its initial carry;
    - `seq_lengths` go with any number of batch axes, or none;
    - forward mode (`jax.jvp`) needs `through=unrolls.both_modes`.

    Args:
      cell: an `nnx.RNNCellBase`.
      through: the unroll that runs the cell: `unrolls.bptt`, `unrolls.checkpointed`,
        `functools.partial(unrolls.bptt, chunk=8)`, ….
      options: `time_major`, `return_carry`, `reverse`, `keep_order`, `unroll`,
        `state_axes`, `broadcast_rngs`, `rngs`, as in flax; `unroll` is that of flax's own
        scan and without effect elsewhere.

    Raises:
      ValueError, TypeError: an argument does not fit, or `through` is not the default
        where time is flax's own scan; the message names it.

    Cost: as `unrolls.bptt`; inputs and outputs that are not `time_major` are transposed,
    as by flax.

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> from bptt_jax.interop.nnx import RNN
    >>> rnn = RNN(nnx.LSTMCell(32, 64, rngs=nnx.Rngs(0)))
    >>> rnn(jnp.ones((10, 50, 32))).shape
    (10, 50, 64)
    """

    def __init__(self, cell: Any, *, through: Unroll = unrolls.bptt, **options: Any):
        super().__init__(cell, **options)
        self.through = through

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: PyTree = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> Any:
        """As `flax.nnx.RNN.__call__`, argument by argument.

        Args:
          inputs: `[*batch, T, *features]`, with `time_major` `[T, *batch, *features]`.
          initial_carry: the state before the first step; None: the cell's own.
          seq_lengths: integers `[*batch]`, steps of each sequence.
          return_carry, time_major, reverse, keep_order: in place of the attributes.
          rngs: what the cell draws its initial state from; None: the module's own.

        Returns:
          The outputs, or with `return_carry` the last real state and the outputs.
        """
        if rngs is None:
            rngs = self.rngs
        if isinstance(rngs, nnx.Rngs):
            rngs = rngs.carry.fork()
        return _flax.call(
            self, inputs, initial_carry, seq_lengths,
            begin=lambda shape: self.cell.initialize_carry(shape, rngs),
            unrolled=functools.partial(_unrolled, self, seq_lengths is not None),
            otherwise=super().__call__, return_carry=return_carry,
            time_major=time_major, reverse=reverse, keep_order=keep_order,
        )  # fmt: skip


def _unrolled(rnn: RNN, masked: bool, inputs: Array, carry: PyTree):
    """`(xs, side) -> (carry, ys)`; None: flax's own scan is to be taken."""
    params = params_of(rnn.cell) if inputs.size and _whole(rnn) else None
    by_hand = _flax.hand_derived(rnn, known_cell, params, inputs, carry)
    if by_hand is not None:
        return by_hand
    graph, params, rest = nnx.split(rnn.cell, nnx.Param, ...)
    (leaves, structure), (state, rest) = map(jax.tree.flatten, (params, rest))
    why = _why_not_carried(rnn, inputs, bool(state), masked)
    if why is None:
        step, carry = _Step(graph, structure, rest), (carry, state)
        cell = _flax.generic(step, leaves, carry)
        if cell is not None:
            return lambda xs, side: _carried(rnn, cell, leaves, carry, xs, side, rest)
        why = "the cell has an attribute without a hash"
    _flax.refuse(rnn.through, why)
    return None


def _carried(rnn: RNN, cell, leaves, carry, xs, side, rest):
    """The cell through time; what it changed of its state is written back to it."""
    (carry, state), ys = rnn.through(cell, leaves, carry, xs, side)
    nnx.update(rnn.cell, rest.unflatten(state))
    return carry, ys


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step of a module of flax on the leaves of its `Param`s, and of the rest."""

    graph: Any
    params: Any
    rest: Any

    def __call__(self, leaves, carry, x):
        carry, state = carry
        parts = self.params.unflatten(leaves), self.rest.unflatten(state)
        cell = nnx.merge(self.graph, *parts)
        carry, y = cell(carry, x)
        graph, params, rest = nnx.split(cell, nnx.Param, ...)
        same = zip(jax.tree.leaves(params), leaves, strict=True)
        if graph != self.graph or not all(a is b for a, b in same):
            raise ValueError(
                "cell: expected one whose Params and attributes stay as they are, got "
                f"{type(cell).__name__}, which changes them in a step; take flax.nnx.RNN"
            )
        return (carry, jax.tree.leaves(rest)), y


def _why_not_carried(rnn: RNN, inputs, has_state: bool, masked: bool) -> str | None:
    """Why the cell's state cannot go from step to step; None: it can."""
    axes = dict(rnn.state_axes)
    if not _whole(rnn) or (has_state and axes != {...: nnx.Carry}):
        return "state_axes are given"
    if has_state and rnn.broadcast_rngs is not None:
        return "broadcast_rngs is given"
    if has_state and masked:
        return "seq_lengths are given for a cell that has state beside its Params"
    if _flax.closes_over_arrays(vars(rnn.cell).values()):
        return "a function that the cell holds closes over an array"
    return None if inputs.size else "the inputs are empty"


def _whole(rnn: RNN) -> bool:
    """Whether all steps see the same parameters."""
    return all(axis is None or axis is nnx.Carry for axis in rnn.state_axes.values())


def params_of(cell: Any) -> dict | None:
    """The parameters of a cell of flax by its names; None: of another cell, or with
    another linear map in it.
    """
    layout = _KNOWN.get(type(cell))
    if layout is None:
        return None
    names = dict.fromkeys(name.split("/")[0] for name in layout.w_x + layout.w_h)
    linears = {name: getattr(cell, name) for name in names}
    if not (_promotes_plainly(cell) and all(_plain(a, cell) for a in linears.values())):
        return None
    return {name: _weights(linear) for name, linear in linears.items()}


def known_cell(cell: Any, params: dict, dtype) -> _flax.Known | None:
    """The cell as one of ours; None: it is none."""
    return _flax.known(cell, _KNOWN[type(cell)], params, dtype)


def _plain(linear: Any, cell: Any) -> bool:
    """Whether it is a linear map as flax's cell makes it."""
    return (
        type(linear) is nnx.Linear
        and linear.dtype == cell.dtype
        and linear.precision is None
        and linear.dot_general is lax.dot_general
        and _promotes_plainly(linear)
        and linear.preferred_element_type is None
    )


def _promotes_plainly(module: Any) -> bool:
    """Whether dtypes are joined as flax does it; before 0.12.1 cells had no choice."""
    own = getattr(module, "promote_dtype", dtypes.promote_dtype)
    return own is dtypes.promote_dtype


def _weights(linear: Any) -> dict:
    """The kernel, and the bias where there is one."""
    weights = dict(kernel=linear.kernel[...])
    return weights if linear.bias is None else weights | dict(bias=linear.bias[...])


_KNOWN = {getattr(nnx, layout.name): layout for layout in LAYOUTS["flax.nnx"]}
CELLS = tuple(_KNOWN)
"""Those with a hand-derived backward."""
