"""Three known miscompilations of XLA on CPUs: wrong numbers, and no error.

    A  a vmapped product reduced over its rows, in float64 and in float32: the last entry
       is wrong (jaxlib 0.10.2)
    B  a batched product with a broadcast operand, as in the derivative of a sum
    C  `jax.grad` of an ordinary float64 GRU, on CPUs with AVX-512 (jaxlib 0.10.2)

They are four programs, written in JAX alone; beside each this library computes something
of the same kind in its own way, which is right where the program is wrong. A gradient
check that compares two compiled programs can be deceived by each of them; hence the third
arm of `verify.check`, which is NumPy.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_jax import cells, layers, objectives, unrolls
from bptt_jax._jax import enable_x64
from bptt_jax.types import Side
from bptt_jax.verify import _numpy_cells as in_numpy

WITHOUT_REDUCE = "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=-reduce"
WITHOUT_AVX512 = "XLA_FLAGS=--xla_cpu_max_isa=AVX2"


LIMIT = 1e-6


class Finding(NamedTuple):
    """One program: is it compiled rightly here, and is this library right beside it?

    name: which, and in what precision.
    right: whether the compiler is right.
    error: of the program, relative.
    remedy: for programs of one's own that are of this kind.
    ours: the error of this library where it computes something of the kind.
    """

    name: str
    right: bool
    error: float
    remedy: str
    ours: float = 0.0

    @property
    def avoided(self) -> bool:
        """Whether this library is right, be the compiler wrong or not."""
        return bool(self.ours < LIMIT)

    def __str__(self) -> str:
        if not self.avoided:
            return (
                f"{self.name}: WRONG in this library (error {self.ours:.1e}); remedy: "
                f"{self.remedy}"
            )
        if self.right:
            return f"{self.name}: right (error {self.error:.1e})"
        return (
            f"{self.name}: the compiler is wrong (error {self.error:.1e}), this library "
            f"avoids it (error {self.ours:.1e}); for code of your own: {self.remedy}"
        )


def canary() -> list[Finding]:
    """Runs the four programs on this machine, with the flags of this process.

    Returns:
      A `Finding` each; never raises because a result is wrong. XLA reads `XLA_FLAGS`
      once, so a remedy is set before Python starts.

    Cost: about five seconds.
    """
    with enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return [
            _finding("A, rows reduced in float64", _rows, _our_rows, 16385, np.float64),
            _finding("A, rows reduced in float32", _rows, _our_rows, 32769, np.float32),
            _finding(
                "B, product with a broadcast operand", _broadcast, _our_sum_over_nets
            ),
            _finding(
                "C, jax.grad of a GRU in float64", _gru_gradient, _our_gru_gradient
            )._replace(remedy=WITHOUT_AVX512),
        ]


def _finding(name: str, error_of: Callable, our_error: Callable, *arguments) -> Finding:
    error, ours = float(error_of(*arguments)), float(our_error(*arguments))
    return Finding(name, error < LIMIT, error, WITHOUT_REDUCE, ours)


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


def _our_rows(n: int, dtype) -> float:
    """A: the squared error of as many outputs, a product and its rows reduced."""
    readout = layers.dense(3, 3, param_dtype=dtype)
    layer = layers.with_loss(readout, objectives.squared_error)
    params = dict(kernel=np.eye(3, dtype=dtype), bias=np.zeros(3, dtype))
    xs = np.zeros((1, n, 3), dtype)
    xs[0, :, 0] = np.arange(n)
    side = Side(targets=np.zeros_like(xs))
    got = unrolls.bptt(layer, params, layer.init_carry(params, (n,)), xs, side)[1]
    return _relative(got, [np.sum(np.arange(n, dtype=np.float64) ** 2)])


def _our_sum_over_nets() -> float:
    """B: the gradient of a sum of outputs, of five nets at once."""
    return _our_gradient(cells.elman, in_numpy.elman(), (2, 60, 60, 60), nets=5)


def _our_gru_gradient() -> float:
    """C: at the sizes at which `jax.grad` is wrong."""
    sizes = ((T, 4, 3, 5) for T in (2, 3, 7))
    return max(_our_gradient(cells.gru, in_numpy.gru(), s, nets=1) for s in sizes)


def _our_gradient(
    make: Callable, reference: Callable, sizes: tuple, nets: int
) -> float:
    """Of the sum of all outputs, along a random direction, by a complex step in NumPy."""
    rng, (T, B, I, H) = np.random.default_rng(0), sizes
    cell = make(I, H, param_dtype=np.float64)
    shapes = jax.eval_shape(cell.init, jax.random.key(0))
    draw = lambda a: rng.normal(size=(nets, *a.shape)) / H**0.5
    params, v = (jax.tree.map(draw, shapes) for _ in range(2))
    xs, h0 = rng.normal(size=(T, B, I)), rng.normal(size=(B, H))

    def loss(p):
        return unrolls.bptt(cell, p, h0, xs)[1].sum()

    def slope(p, v):
        moved = {k: p[k] + 1e-30j * v[k] for k in p}
        return reference(moved, h0, xs, Side())[1].sum().imag / 1e-30

    grads = jax.jit(jax.vmap(jax.grad(loss)))(params)
    got = [sum(np.vdot(grads[k][i], v[k][i]) for k in v) for i in range(nets)]
    at = lambda tree, i: {k: a[i] for k, a in tree.items()}
    return _relative(got, [slope(at(params, i), at(v, i)) for i in range(nets)])


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
