"""What a gradient is a sum of, over steps and examples."""

from typing import NamedTuple

from jax import Array


class Outer(NamedTuple):
    """The gradient of a weight, Σ a ⊗ d over steps and examples.

    a: `[K, ..., I]`, what the weight was multiplied with.
    d: `[K, ..., O]`, the cotangent of the product; `[K, ..., n, H]` for `[I, n, H]`.
    """

    a: Array
    d: Array


class Sum(NamedTuple):
    """The gradient of a bias, Σ d over steps and examples of d `[K, ..., O]`."""

    d: Array


class Blocks(NamedTuple):
    """A gradient in blocks side by side along an axis, `Outer`s or `Sum`s."""

    blocks: tuple
    axis: int


class Terms(NamedTuple):
    """A gradient that is the sum of several factors."""

    terms: tuple


class Summed(NamedTuple):
    """A gradient that is there already, of which no factors are known."""

    d: Array
