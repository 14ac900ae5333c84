"""The Jacobian of one step, along a run: J_t = ∂s_t/∂s_{t-1}.

The backward of a step is linear, d s_{t-1} = J_tᵀ d s_t. Its images of the N unit vectors
are the rows of J_t, for all t at once from the coefficients of the stored states.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import cells
from bptt_jax._factory import expect
from bptt_jax.types import Cell, PyTree

if TYPE_CHECKING:
    from jaxtyping import Float, Inexact


def one_sequence(
    carry: PyTree, xs: PyTree, length: int | None
) -> tuple[PyTree, PyTree]:
    """Carry and inputs as arrays, refused where they are more than one sequence."""
    carry = jax.tree.map(jnp.asarray, carry)
    shapes = [list(a.shape) for a in jax.tree.leaves(carry)]
    if any(len(shape) != 1 for shape in shapes):
        raise ValueError(
            "carry: expected leaves [H], those of one sequence (vmap over examples), "
            f"got {shapes}"
        )
    if xs is None:
        if length is None or length < 1:
            raise ValueError(f"length: expected steps where xs is None, got {length!r}")
        dtype = jax.tree.leaves(carry)[0].dtype
        return carry, jnp.zeros((length, 0), dtype)
    return carry, jax.tree.map(jnp.asarray, xs)


@functools.partial(jax.jit, static_argnames=("cell", "length"))
def jacobians(
    cell: Cell, params: PyTree, carry: PyTree, xs: PyTree, *, length: int | None = None
) -> Float[Array, "T N N"]:
    """∂s_t/∂s_{t-1} of every step of one sequence, from the cell's own backward.

    Args:
      cell: a recurrent cell.
      params: its parameters.
      carry: the state before the first step, leaves `[H]`.
      xs: inputs, leaves `[T, I]`; None: none, with `length`.
      length: the number of steps, where `xs` is None.

    Returns:
      `[T, N, N]`, N all units of the state, the carry's leaves one after another; a
      complex leaf is two real ones, its real and its imaginary parts.

    Cost: N backward steps for each step, O(T·N²) memory.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose
    >>> cell = cells.lstm(3, 4)
    >>> params = cell.init(jax.random.key(0))
    >>> Js = diagnose.jacobians(cell, params, cell.init_carry(params, ()), jnp.ones((5, 3)))
    >>> Js.shape, diagnose.singular_values(Js).shape
    ((5, 8, 8), (5, 8))
    """
    expect(Cell, cell=cell)
    carry, xs = one_sequence(carry, xs, length)
    us = cell.vjp.project(params, xs)

    def step(carry, u):
        after, y = cells.forward(cell, params, carry, u)
        return after, (after, y)

    _, (nexts, ys) = lax.scan(step, carry, us)
    coeffs = cells.linearize(cell, params, trees.before(carry, nexts), us, nexts)
    units, unravel = trees.as_reals(carry)
    d_y = jax.tree.map(lambda a: jnp.zeros_like(a[0]), ys)

    def row(coeff, unit):
        d_state = trees.conjugate(unravel(unit))  # JAX's: ∂L/∂x - i ∂L/∂y
        d_before, _ = cell.vjp.backward(params, coeff, d_state, d_y)
        return trees.as_reals(trees.conjugate(d_before))[0]

    rows = jax.vmap(row, (None, 0))
    basis = jnp.eye(units.size, dtype=units.dtype)
    return lax.map(lambda coeff: rows(coeff, basis), coeffs)


def singular_values(Js: Inexact[Array, "*B N N"]) -> Float[Array, "*B N"]:
    """Of each matrix, from the largest: `[..., N, N]` -> `[..., N]`."""
    return jnp.linalg.svd(Js, compute_uv=False)


def spectral_radius(Js: Inexact[Array, "*B N N"]) -> Float[Array, "*B"]:
    """The largest modulus of an eigenvalue of each matrix: `[..., N, N]` -> `[...]`.

    JAX has eigenvalues of general matrices on the CPU (and on newer GPU builds).
    """
    return jnp.abs(jnp.linalg.eigvals(Js)).max(-1)


def products(
    Js: Inexact[Array, "T N N"], window: int
) -> Inexact[Array, "T//{window} N N"]:
    """∂s_t/∂s_{t-window} for t = window, 2·window, …: J_t … J_{t-window+1}.

    Args:
      Js: `[T, N, N]`, as of `jacobians`.
      window: steps of a product, at most T; what is left over at the end is not used.

    Returns:
      `[T // window, N, N]`.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import diagnose
    >>> diagnose.products(2.0 * jnp.ones((6, 1, 1)), 3).ravel().tolist()
    [8.0, 8.0]
    """
    T = Js.shape[0]
    if not 1 <= window <= T:
        raise ValueError(f"window: expected 1 to {T} steps, got {window}")
    n = T // window
    by_window = Js[: n * window].reshape(n, window, *Js.shape[1:])

    def one(product, at):
        return at @ product, None

    eye = jnp.broadcast_to(jnp.eye(Js.shape[-1], dtype=Js.dtype), by_window[:, 0].shape)
    return lax.scan(one, eye, jnp.swapaxes(by_window, 0, 1))[0]
