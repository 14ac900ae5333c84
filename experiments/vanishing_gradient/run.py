"""How fast does the gradient vanish or explode, cell by cell?

    python experiments/vanishing_gradient/run.py            about two minutes on a core
    python experiments/vanishing_gradient/run.py --quick    seconds, writes nothing

The Jacobian of the state at step t in that k steps before, at initialisation, for random
inputs: every unit cotangent is pulled back through the cell's hand-derived backward, so
the matrix is exact. Its spectral norm is the most that a gradient can grow by, its
Frobenius norm over the root of the number of its rows what a random one grows by.
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

sys.path.append(str(pathlib.Path(__file__).parent.parent))

import _results

from bptt_jax import cells, diagnose, plots, unrolls

HERE = pathlib.Path(__file__).parent
I, H, BEFORE, LAGS, SEEDS, T_MAX = 8, 64, 100, 100, 5, 100
FIRST = 20  # rates are those from this lag to the last
DTYPE = np.float64


@functools.cache
def of_radius(radius: float):
    """Gaussian weights scaled to a spectral radius."""

    def init(key, shape, dtype):
        w = jax.random.normal(key, shape, dtype)
        return w * (radius / jnp.abs(jnp.linalg.eigvals(w)).max()).astype(dtype)

    return init


def linear(z):
    return z


def gate(bias: float) -> float:
    return float(1 / (1 + np.exp(-bias)))


elman = functools.partial(cells.elman, I, H, param_dtype=DTYPE)
lstm = functools.partial(cells.lstm, I, H, param_dtype=DTYPE)
irnn = elman(activation=jax.nn.relu, recurrent_kernel_init=cells.identity)
PLAIN = {
    f"{name}, ρ = {radius}": (
        elman(activation=activation, recurrent_kernel_init=of_radius(radius)),
        radius if activation is linear else None,
    )
    for name, activation, radii in (
        ("linear", linear, (0.9, 1.1)),
        ("tanh", jnp.tanh, (0.9, 1.1, 2.0)),
    )
    for radius in radii
} | {
    "linear, orthogonal": (elman(activation=linear), 1.0),
    "tanh, orthogonal": (elman(), None),
}
GATED = {
    "LSTM, forget bias 0": (lstm(forget_bias=0.0), gate(0)),
    "LSTM, forget bias 1": (lstm(), gate(1)),
    f"LSTM, chrono, T_max {T_MAX}": (lstm(chrono=T_MAX), 1 - 1 / T_MAX),
    "GRU": (cells.gru(I, H, param_dtype=DTYPE), gate(0)),
    "IRNN": (irnn, 1.0),
}
CELLS = PLAIN | GATED  # with what theory says a step does, where it says something


def drawn(cell, key, steps: int):
    k_params, k_inputs = jax.random.split(key)
    return cell.init(k_params), jax.random.normal(k_inputs, (steps, I), DTYPE)


def sizes(rows):
    """Spectral norm, and Frobenius norm over the root of the rows."""
    scale = jnp.abs(rows).max() + np.finfo(DTYPE).tiny
    gram = (rows / scale) @ (rows / scale).T
    squares = jnp.stack([jnp.linalg.eigvalsh(gram)[-1], jnp.trace(gram) / len(rows)])
    return scale * jnp.sqrt(squares)


def measured(cell, seeds: int, before: int, lags: int) -> dict:
    """Norms over the lag, `[seeds][K]`, and what a step does to them in the mean."""

    @jax.jit
    def norms(key):
        params, xs = drawn(cell, key, before + lags)
        carry, _ = unrolls.bptt(cell, params, cell.init_carry(params, ()), xs[:before])
        Js = diagnose.jacobians(cell, params, carry, xs[before:])

        def back(rows, J):
            return rows @ J, sizes(rows @ J)

        one = jnp.eye(Js.shape[-1], dtype=DTYPE)
        found = lax.scan(back, one, Js, reverse=True)[1]
        return jnp.concatenate([sizes(one)[None], found[::-1]]).T

    found = np.array([norms(jax.random.key(seed)) for seed in range(seeds)])
    first = min(FIRST, lags // 2)
    rates = (found[..., -1] / found[..., first]) ** (1 / (lags - first))
    spectral, frobenius = np.median(rates, 0)
    return dict(
        spectral=rounded(found[:, 0]), frobenius=rounded(found[:, 1]),
        rate=round(float(spectral), 4), frobenius_rate=round(float(frobenius), 4),
        rates=[round(float(r), 4) for r in rates[:, 0]],
    )  # fmt: skip


def rounded(norms: np.ndarray) -> list[list[float]]:
    return [[float(f"{a:.4g}") for a in each] for each in norms]


def difference(cell, steps: int = 10) -> float:
    """From `jax.jacfwd` through a plain loop of the cell's steps: the largest, relative."""
    params, xs = drawn(cell, jax.random.key(0), steps)
    carry = jax.tree.map(lambda a: a + 0.1, cell.init_carry(params, ()))
    flat, unravel = ravel_pytree(carry)

    def after(flat):
        def body(carry, x):
            return cell.step(params, carry, x)[0], None

        return ravel_pytree(lax.scan(body, unravel(flat), xs)[0])[0]

    @jax.jit
    def apart(flat):
        Js = diagnose.jacobians(cell, params, unravel(flat), xs)
        ours, want = diagnose.products(Js, steps)[0], jax.jacfwd(after)(flat)
        return jnp.abs(ours - want).max() / jnp.abs(want).max()

    return float(apart(flat))


def main():
    quick = _results.quick(__doc__, "2 cells, a seed, 10 lags")
    jax.config.update("jax_enable_x64", True)
    seeds, before, lags, shown = SEEDS, BEFORE, LAGS, CELLS
    if quick:
        seeds, before, lags = 1, 5, 10
        few = "linear, ρ = 0.9", "LSTM, forget bias 1"
        shown = {name: CELLS[name] for name in few}
    settings = dict(
        inputs=I, hidden=H, seeds=seeds, before=before, lags=lags, t_max=T_MAX
    )
    results = _results.Results(HERE, settings, 2 * len(shown), quick)
    found = {}
    for name, (cell, _) in shown.items():
        apart = results.part(
            f"{name}, from jax.jacfwd", functools.partial(difference, cell), "{:.1e}"
        )
        assert apart < 1e-12, name
        found[name] = results.part(
            name, functools.partial(measured, cell, seeds, before, lags),
            "x {rate} a step (spectral), x {frobenius_rate} (Frobenius)",
        )  # fmt: skip
    results.finish(theory={name: rate for name, (_, rate) in shown.items()})
    if quick:
        return
    for file, group in (("plain", PLAIN), ("gated", GATED)):
        plots.by_lag(
            {name: np.median(found[name]["spectral"], 0) for name in group},
            rates={name: (0, rate) for name, (_, rate) in group.items() if rate},
            unit="spectral norm of ∂s_t/∂s_{t−k}",
        ).savefig(HERE / f"{file}.png", dpi=120)


if __name__ == "__main__":
    main()
