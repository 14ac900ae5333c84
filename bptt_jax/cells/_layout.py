"""Where the gates of a cell are in its weights: side by side, or along an axis."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from bptt_jax.types import Gates


class Layout(NamedTuple):
    """How n gates of H units each make up an array.

    axis: False: side by side, `[..., nH]`. True: along an axis of their own,
        `[..., n, H]`, so that units can be spread over devices with all their gates.
    """

    n: int
    units: int
    axis: bool

    @property
    def rank(self) -> int:
        """Axes that gates and units take."""
        return 2 if self.axis else 1

    def of(self, a: Any) -> Any:
        """An array (JAX's or NumPy's) with gates side by side, in this layout."""
        return a.reshape(*a.shape[:-1], self.n, self.units) if self.axis else a

    def split(self, a: Array) -> list[Array]:
        """The gates, `[..., H]` each."""
        if self.axis:
            return [a[..., i, :] for i in range(self.n)]
        return jnp.split(a, self.n, -1)

    def each(self, values: tuple[float, ...], dtype: Any) -> Array:
        """An array with one value a gate (made where it is used: no constant to close over)."""
        return self.of(
            jnp.concatenate([jnp.full(self.units, v, dtype) for v in values])
        )

    def named(self, names: str, a: Array) -> Gates:
        """The gates by their names."""
        return Gates(dict(zip(names, self.split(a), strict=True)))

    def join(self, gates: list[Array]) -> Array:
        return jnp.stack(gates, -2) if self.axis else jnp.concatenate(gates, -1)

    def cut(self, a: Array, m: int) -> tuple[Array, Array]:
        """The first m gates, and the others."""
        if self.axis:
            return a[..., :m, :], a[..., m:, :]
        return a[..., : m * self.units], a[..., m * self.units :]
