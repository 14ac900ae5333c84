"""Three known miscompilations of XLA on CPUs: wrong numbers, and no error.

    A  a vmapped product reduced over its rows: the last entry is wrong (jaxlib 0.10.2)
    B  a batched product with a broadcast operand, as in the derivative of a sum
    C  `jax.grad` of an ordinary float64 GRU, on CPUs with AVX-512 (jaxlib 0.10.2)

A gradient check that compares two compiled programs can be deceived by each of them;
hence the third arm of `verify.check`, which is NumPy.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_jax._jax import enable_x64

WITHOUT_REDUCE = "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=-reduce"
WITHOUT_AVX512 = "XLA_FLAGS=--xla_cpu_max_isa=AVX2"


class Finding(NamedTuple):
    """One reproduction: was it right here, by how much wrong, and what helps."""

    name: str
    right: bool
    error: float
    remedy: str

    def __str__(self) -> str:
        if self.right:
            return f"{self.name}: right (error {self.error:.1e})"
        return f"{self.name}: WRONG (error {self.error:.1e}); remedy: {self.remedy}"


def canary() -> list[Finding]:
    """Runs the three reproductions on this machine, with the flags of this process.

    Returns:
      A `Finding` each; never raises because a result is wrong. XLA reads `XLA_FLAGS`
      once, so a remedy is set before Python starts.

    Cost: about two seconds.
    """
    with enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return [
            _finding("A, rows reduced in float64", _rows, (16385, np.float64)),
            _finding("A, rows reduced in float32", _rows, (32769, np.float32)),
            _finding("B, product with a broadcast operand", _broadcast, ()),
            _finding(
                "C, jax.grad of a GRU in float64", _gru_gradient, (), WITHOUT_AVX512
            ),
        ]


def _finding(
    name: str, error_of: Callable, arguments: tuple, remedy: str = WITHOUT_REDUCE
) -> Finding:
    error = error_of(*arguments)
    return Finding(name, bool(error < 1e-6), float(error), remedy)


def _relative(got, want) -> float:
    got, want = np.asarray(got), np.asarray(want)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.max(np.abs(got - want)) / np.max(np.abs(want))
    return float(error) if np.isfinite(error) else float("inf")


def _rows(n: int, dtype) -> float:
    m = jnp.eye(3, dtype=dtype)
    x = np.zeros((n, 3), dtype)
    x[:, 0] = np.arange(n)
    got = jax.jit(jax.vmap(lambda row: jnp.sum((m @ row) ** 2)))(x)
    return _relative(got[-1], float(n - 1) ** 2)


def _broadcast() -> float:
    a = np.random.default_rng(0).normal(size=(5, 60, 60))
    e = a @ a.transpose(0, 2, 1)
    got = jax.jit(lambda e, c: jnp.sum((e @ jnp.full_like(e, c)) * e, -1))(e, 0.37)
    return _relative(got, np.sum((e @ np.full_like(e, 0.37)) * e, -1))


def _gru_step(xp, sigmoid: Callable, w: dict, h, x):
    """With the namespace `xp` of NumPy or of JAX, so that both compute one thing."""
    a, q = x @ w["x"], h @ w["h"]
    H = h.shape[-1]
    rz = sigmoid(a[..., : 2 * H] + q[..., : 2 * H])
    n = xp.tanh(a[..., 2 * H :] + rz[..., :H] * q[..., 2 * H :])
    return (1 - rz[..., H:]) * n + rz[..., H:] * h


def _gru_gradient() -> float:
    """The worst of T = 2, 3, 7 at (B, H) = (4, 5), against complex steps in NumPy."""
    rng = np.random.default_rng(0)
    B, H, I = 4, 5, 3
    w = dict(x=rng.normal(size=(I, 3 * H)), h=rng.normal(size=(H, 3 * H)))
    h0 = rng.normal(size=(B, H))

    def loss(w, xs):
        def step(h, x):
            h = _gru_step(jnp, jax.nn.sigmoid, w, h, x)
            return h, h

        return jnp.sum(lax.scan(step, h0, xs)[1] ** 2)

    def loss_np(w, xs):
        h, total = h0, 0.0
        for x in xs:
            h = _gru_step(np, lambda a: 1 / (1 + np.exp(-a)), w, h, x)
            total = total + (h**2).sum()
        return total

    def error(T):
        xs = rng.normal(size=(T, B, I))
        got = jax.jit(jax.grad(loss))(w, xs)
        return max(
            _relative(
                got[k], _complex_step(lambda a, k=k: loss_np({**w, k: a}, xs), w[k])
            )
            for k in w
        )

    return max(map(error, (2, 3, 7)))


def _complex_step(f: Callable, at: np.ndarray) -> np.ndarray:
    found = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        moved = at.astype(complex)
        moved[i] += 1e-30j
        found[i] = f(moved).imag / 1e-30
    return found
