"""A stretch of time."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from bptt_jax._factory import record
from bptt_jax.types._init import Init, InitCarry
from bptt_jax.types._pytree import PyTree
from bptt_jax.types._recurrent import Recurrent
from bptt_jax.types._side import Side


class LayerFwd(Protocol):
    """K steps.

    Args:
      params: of the layer.
      carry: at the start of the stretch, leaves `[..., H]`.
      xs: inputs, leaves `[K, ..., I]`.
      side: of the stretch.

    Returns:
      `(carry, ys, residuals)`: at the end of the stretch; outputs `[K, ..., O]`; what
      `bwd` needs beside its other arguments.
    """

    def __call__(
        self, params: PyTree, carry: PyTree, xs: PyTree, side: Side, /
    ) -> tuple[PyTree, PyTree, PyTree]: ...


class LayerBwd(Protocol):
    """The transpose of the derivative of `fwd`.

    Args:
      params, carry, xs, side: as `fwd` had them.
      ys, residuals: as `fwd` gave them.
      d_carry: cotangent of the carry at the end of the stretch.
      d_ys: cotangents of the outputs, leaves `[K, ..., O]`.

    Returns:
      `(d_params, d_carry, d_xs, d_targets)`: cotangents of the parameters, of the carry
      at the start, of the inputs, and of `side.targets`, None as a whole where the layer
      reads none.
    """

    def __call__(
        self,
        params: PyTree,
        carry: PyTree,
        xs: PyTree,
        side: Side,
        ys: PyTree,
        residuals: PyTree,
        d_carry: PyTree,
        d_ys: PyTree,
        /,
    ) -> tuple[PyTree, PyTree, PyTree, PyTree]: ...


class LayerOver(Protocol):
    """The same layer with other recurrent parts.

    Args:
      f: what is in the place of a part, by how that is made.

    Returns:
      A layer with parameters and a carry of the same structure.
    """

    def __call__(self, f: "Callable[[Recurrent], Layer]", /) -> "Layer": ...


class LayerRefuse(Protocol):
    """Raises where inputs or targets whose values are known (outside of `jit`) are none of
    the layer's, a symbol that is not in its table, say.

    Args:
      params, carry, xs, side: as of `fwd`, of any length; leaves may be traced or shapes
        alone, and are passed over then.
    """

    def __call__(
        self, params: PyTree, carry: PyTree, xs: PyTree, side: Side, /
    ) -> None: ...


@record
class Layer(NamedTuple):
    """A stretch of time (K steps), forward and back. Provisional: fields may still change.

    init: an `Init`, of the parameters.
    init_carry: an `InitCarry`, of the state.
    fwd: a `LayerFwd`.
    bwd: a `LayerBwd`.
    over: a `LayerOver`; None: it has no recurrent part.
    refuse: a `LayerRefuse`; None: it takes any inputs and targets.
    only_recurrent: whether a stretch of it takes memory for its recurrent parts alone.
    """

    init: Init
    init_carry: InitCarry
    fwd: LayerFwd
    bwd: LayerBwd
    over: LayerOver | None = None
    refuse: LayerRefuse | None = None
    only_recurrent: bool = False
