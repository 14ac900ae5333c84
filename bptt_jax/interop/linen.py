"""`flax.linen.RNN` and `Bidirectional` on this project's engine: change the import.

from bptt_jax.interop.linen import RNN          # in place of flax.linen
ys = RNN(nn.LSTMCell(64)).apply(variables, xs)  # variables as they were
"""

import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core.scope import in_filter
from jax import Array

from bptt_jax import unrolls
from bptt_jax.interop import _flax
from bptt_jax.interop._layouts import LAYOUTS
from bptt_jax.types import PyTree, Unroll

Bidirectional = nn.Bidirectional
"""flax's own: it runs the two `RNN`s that it is given, whosever they are."""


class RNN(nn.RNN):
    """`flax.linen.RNN`, with the derivative of `bptt_jax`.

    Constructor, call, variables, initial values and results are flax's, and so are
    checkpoints. `SimpleCell` (tanh, relu or σ; also residual), `LSTMCell`,
    `OptimizedLSTMCell`, `GRUCell` and `MGUCell`, with σ and tanh and one dtype for
    arithmetic and state, have the hand-derived backward, on flax's parameters. Any other
    cell has that of `cells.from_step`: `ConvLSTMCell`, other functions, `MGUCell` with
    `reset_gate=False`, your own. Where a cell draws random numbers or changes
    variables (`split_rngs`, `variable_axes`, `variable_carry`) and while parameters are
    initialised, time is flax's own scan.

    Differs from flax in this:

    - with `seq_lengths` nothing of the padding is read, NaN included, and outputs there
      are the last real ones (zero with a cell without a hand-derived backward), so a
      loss over the padding is another one; in flax they are what the cell made of the
      padding. A sequence of length 0 returns its initial carry;
    - `seq_lengths` go with any number of batch axes, or none;
    - forward mode (`jax.jvp`) needs `through=unrolls.both_modes`;
    - method interceptors (`nn.intercept_methods`) do not see a cell with a hand-derived
      backward.

    Attributes:
      cell, time_major, return_carry, reverse, keep_order, variable_axes,
      variable_broadcast, variable_carry, split_rngs: as in flax.
      unroll: of flax's own scan; without effect elsewhere.
      through: the unroll that runs the cell: `unrolls.bptt`, `unrolls.checkpointed`,
        `functools.partial(unrolls.bptt, chunk=8)`, ….

    Raises:
      ValueError, TypeError: an argument does not fit, or `through` is not the default
        where time is flax's own scan; the message names it.

    Cost: as `unrolls.bptt`; inputs and outputs that are not `time_major` are transposed,
    as by flax.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> from bptt_jax.interop.linen import RNN
    >>> xs = jnp.ones((10, 50, 32))
    >>> variables = nn.RNN(nn.LSTMCell(64)).init(jax.random.key(0), xs)
    >>> RNN(nn.LSTMCell(64)).apply(variables, xs).shape
    (10, 50, 64)
    """

    through: Unroll = unrolls.bptt

    def __call__(
        self,
        inputs: Array,
        *,
        initial_carry: PyTree = None,
        init_key: Array | None = None,
        seq_lengths: Array | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
    ) -> Any:
        """As `flax.linen.RNN.__call__`, argument by argument.

        Args:
          inputs: `[*batch, T, *features]`, with `time_major` `[T, *batch, *features]`.
          initial_carry: the state before the first step; None: the cell's own.
          init_key: what the cell draws its own from; None: `jax.random.key(0)`.
          seq_lengths: integers `[*batch]`, steps of each sequence.
          return_carry, time_major, reverse, keep_order: in place of the attributes.

        Returns:
          The outputs, or with `return_carry` the last real state and the outputs.
        """

        def begin(shape):
            key = jax.random.key(0) if init_key is None else init_key
            return self.cell.initialize_carry(key, shape)

        return _flax.call(
            self, inputs, initial_carry, seq_lengths, begin=begin,
            unrolled=functools.partial(_unrolled, self),
            otherwise=functools.partial(_of_flax, self), return_carry=return_carry,
            time_major=time_major, reverse=reverse, keep_order=keep_order,
        )  # fmt: skip


_of_flax = inspect.unwrap(nn.RNN.__call__)  # not once more a method of the module


def _unrolled(rnn: RNN, inputs: Array, carry: PyTree):
    """`(xs, side) -> (carry, ys)`; None: flax's own scan is to be taken."""
    if rnn.is_initializing():
        return None
    params = params_of(rnn.cell) if inputs.size and _broadcast(rnn) else None
    by_hand = _flax.hand_derived(rnn, known_cell, params, inputs, carry)
    if by_hand is not None:
        return by_hand
    why = _why_not_pure(rnn, inputs)
    if why is None:
        module, variables = rnn.cell.unbind()
        variables = {
            name: collection
            for name, collection in variables.items()
            if in_filter(rnn.variable_broadcast, name)
        }
        leaves, structure = jax.tree.flatten(variables)
        cell = _flax.generic(_Step(module, structure), leaves, carry)
        if cell is not None:
            return lambda xs, side: rnn.through(cell, leaves, carry, xs, side)
        why = "the cell has a field without a hash"
    _flax.refuse(rnn.through, why)
    return None


@dataclasses.dataclass(frozen=True)
class _Step:
    """A step of a module of flax on the leaves of its variables."""

    module: nn.Module
    structure: Any

    def __call__(self, leaves, carry, x):
        return self.module.apply(self.structure.unflatten(leaves), carry, x)


def _why_not_pure(rnn: RNN, inputs: Array) -> str | None:
    """Why a step is no function of variables that stay as they are; None: it is one."""
    scope: Any = rnn.cell.scope
    if rnn.variable_axes or rnn.variable_carry:
        return "variable_axes or variable_carry are given"
    for name in scope.rngs:
        if any(in_filter(stream, name) for stream in rnn.split_rngs):
            return f"the cell can draw random numbers from {name!r}"
    for name in rnn.cell.variables:
        mutable = scope.is_mutable_collection(name)
        if mutable and in_filter(rnn.variable_broadcast, name):
            return f"the cell can change its variables {name!r}"
    if _flax.closes_over_arrays(vars(rnn.cell).values()):
        return "a function that the cell holds closes over an array"
    if not _owns_its_modules(rnn.cell, scope.path):
        return "the cell holds a module whose variables are not within its own"
    return None if inputs.size else "the inputs are empty"


def _owns_its_modules(module: nn.Module, path: tuple) -> bool:
    for field in dataclasses.fields(module):
        if field.name in ("parent", "name"):
            continue
        for held in jax.tree.leaves(getattr(module, field.name, None)):
            if isinstance(held, nn.Module):
                scope = held.scope
                if scope is not None and scope.path[: len(path)] != path:
                    return False
                if not _owns_its_modules(held, path):
                    return False
    return True


def _broadcast(rnn: RNN) -> bool:
    """Whether all steps see the same parameters."""
    others = rnn.variable_carry, *rnn.variable_axes
    return in_filter(rnn.variable_broadcast, "params") and not any(
        in_filter(other, "params") for other in others
    )


def params_of(cell: nn.Module) -> dict | None:
    """The parameters of a cell of flax by its names; None: of another cell, or of none."""
    params = cell.variables.get("params")
    if type(cell) not in _KNOWN or params is None:
        return None
    return jax.tree.map(jnp.asarray, nn.unbox(params))


def known_cell(cell: nn.Module, params: dict, dtype) -> _flax.Known | None:
    """The cell as one of ours; None: it is none."""
    return _flax.known(cell, _KNOWN[type(cell)], params, dtype)


_KNOWN = {getattr(nn, layout.name): layout for layout in LAYOUTS["flax.linen"]}
CELLS = tuple(_KNOWN)
"""Those with a hand-derived backward."""
