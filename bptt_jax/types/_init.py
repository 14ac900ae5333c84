"""How parameters and a first carry are made, of cells and of layers."""

from typing import Protocol

from jax import Array

from bptt_jax.types._pytree import PyTree


class Init(Protocol):
    """Makes parameters.

    Args:
      key: a PRNG key.

    Returns:
      params, any tree.
    """

    def __call__(self, key: Array, /) -> PyTree: ...


class InitCarry(Protocol):
    """Makes the carry before the first step.

    Args:
      params: it may be learned.
      batch_shape: the batch axes, `()` where there are none.

    Returns:
      carry, leaves `[*batch_shape, H]`; `()` where there is no state.
    """

    def __call__(self, params: PyTree, batch_shape: tuple[int, ...], /) -> PyTree: ...
