"""Lyapunov exponents of a cell along a run.

With Q_0 of n orthonormal columns,

    (1)  Z_t = J_t Q_{t-1}                  J_t = ∂s_t/∂s_{t-1}, applied to n tangents
    (2)  Z_t = Q_t R_t                      every few steps; else Q_t = Z_t
    (3)  λ_i = (1/T) Σ_t log |R_t,ii|

Benettin, Galgani, Giorgilli, Strelcyn (1980); for recurrent networks: Vogt, Puelma
Touzel, Shlizerman, Lajoie (2022); Engelken, Wolf, Abbott (2023).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax._factory import expect
from bptt_jax.diagnose._jacobians import one_sequence
from bptt_jax.types import Cell, PyTree


class Lyapunov(NamedTuple):
    """Exponents per step, in nats.

    exponents: `[n]`, from the largest.
    history: `[T // every, n]`, their values so far at each orthonormalisation: how far
        they have converged.
    carry: the state after the last step.
    """

    exponents: Array
    history: Array
    carry: PyTree


@functools.partial(jax.jit, static_argnames=("cell", "length", "n", "every", "discard"))
def lyapunov(
    cell: Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    *,
    n: int | None = None,
    every: int = 1,
    discard: int = 0,
    length: int | None = None,
    key: Array | None = None,
) -> Lyapunov:
    """The Lyapunov spectrum: the mean rates at which small deviations grow or fade.

    Args:
      cell: a recurrent cell.
      params: its parameters.
      carry: the state before the first step, leaves `[H]`, of one sequence.
      xs: inputs, leaves `[T, I]`; None: none, with `length`.
      n: how many exponents, the largest; None: all, of a complex unit two.
      every: steps between two orthonormalisations; more is faster, until the columns
        are parallel to rounding.
      discard: steps before the first that counts, a multiple of `every`, in which state
        and directions settle.
      length: the number of steps, where `xs` is None.
      key: of the first directions; None: `jax.random.key(0)`.

    Returns:
      A `Lyapunov`. The sum of all exponents is the mean of log |det J_t|.

    Cost: n tangents through each step and a QR of `[N, n]` every `every` steps; memory
    does not grow with T but for the history.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose
    >>> cell = cells.elman(1, 8)
    >>> params = cell.init(jax.random.key(0))
    >>> found = diagnose.lyapunov(cell, params, jnp.zeros(8), jnp.zeros((50, 1)), n=2)
    >>> found.exponents.shape, found.history.shape
    ((2,), (50, 2))
    """
    expect(Cell, cell=cell)
    carry, xs = one_sequence(carry, xs, length)
    T, (state, unravel) = trees.length(xs), trees.as_reals(carry)
    n = state.size if n is None else n
    if not 1 <= n <= state.size:
        raise ValueError(f"n: expected 1 to {state.size}, the units, got {n}")
    if every < 1 or T // every < 1:
        raise ValueError(f"every: expected 1 to {T} steps, got {every}")
    if discard % every or not 0 <= discard < T // every * every:
        raise ValueError(
            f"discard: expected a multiple of {every} below the {T} steps, got {discard}"
        )

    def step(at, x):
        state, Z = at

        def after(s):
            return trees.as_reals(cell.step(params, unravel(s), x)[0])[0]

        state, push = jax.linearize(after, state)
        return (state, jax.vmap(push, 1, 1)(Z)), None  # (1)

    def piece(at, xs):
        (state, Z), _ = lax.scan(step, at, xs)
        Q, R = jnp.linalg.qr(Z)  # (2)
        return (state, Q), jnp.log(jnp.abs(jnp.diagonal(R)))

    key = jax.random.key(0) if key is None else key
    Q, _ = jnp.linalg.qr(jax.random.normal(key, (state.size, n), state.dtype))
    pieces = trees.fold(trees.cut(xs, 0, T // every * every), T // every)
    (state, _), logs = lax.scan(piece, (state, Q), pieces)
    logs = logs[discard // every :]
    counts = every * jnp.arange(1, logs.shape[0] + 1, dtype=logs.dtype)
    history = jnp.cumsum(logs, 0) / counts[:, None]  # (3)
    return Lyapunov(history[-1], history, unravel(state))
