"""All of time."""

from typing import Any, Protocol

from bptt_jax.types._cell import Cell
from bptt_jax.types._layer import Layer
from bptt_jax.types._pytree import PyTree
from bptt_jax.types._side import Side


class Unroll(Protocol):
    """Runs a layer through all of time, and fixes how its gradient is computed.

    Args:
      layer: a layer or a cell; of those whose gradient is not cut `models.sections`, too.
      params: of it.
      carry: before the first step, leaves `[..., H]`.
      xs: inputs, leaves `[T, ..., I]`.
      side: what goes beside them; it may be left out.
      options: keywords of an unroll's own.

    Returns:
      `(carry, ys)`: after the last step, and the outputs, `[T, ..., O]`.
    """

    def __call__(
        self,
        layer: Layer | Cell,
        params: PyTree,
        carry: PyTree,
        xs: PyTree,
        side: Side = ...,
        /,
        *args: Any,  # with the next: whatever else there is, as `...` of a Callable
        **options: Any,
    ) -> tuple[PyTree, PyTree]: ...


class BoundUnroll(Protocol):
    """An unroll that has its layers already, as `models.bidirectional` makes one.

    Arguments and results are those of `Unroll` without the layer.
    """

    def __call__(
        self,
        params: PyTree,
        carry: PyTree,
        xs: PyTree,
        side: Side = ...,
        /,
        *args: Any,
        **options: Any,
    ) -> tuple[PyTree, PyTree]: ...
