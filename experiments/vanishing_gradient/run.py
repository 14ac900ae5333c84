"""How fast does the gradient vanish or explode, cell by cell?

    python experiments/vanishing_gradient/run.py            a few minutes on a core
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
    return round(float(1 / (1 + np.exp(-bias))), 4)


elman = functools.partial(cells.elman, I, H, param_dtype=DTYPE)
lstm = functools.partial(cells.lstm, I, H, param_dtype=DTYPE)
irnn = elman(activation=jax.nn.relu, recurrent_kernel_init=cells.identity)


def gaussian(activation, radius: float):
    return elman(activation=activation, recurrent_kernel_init=of_radius(radius))


def mean_field(cell) -> float:
    """√χ of a wide tanh network with inputs of variance 1 to each unit.

    q = σ² E tanh²(√q z) + 1 and χ = σ² E tanh'(√q z)² (Chen, Pennington, Schoenholz 2018),
    σ² the squares of the recurrent weights that reach a unit, those that were drawn.
    """
    each = [drawn(cell, jax.random.key(seed), 1)[0]["w_h"] for seed in range(SEEDS)]
    deviation = float(np.mean([np.sqrt((w * w).sum() / H) for w in each]))
    z, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    q = 1.0
    for _ in range(200):
        q = deviation**2 * weights @ np.tanh(np.sqrt(q) * z) ** 2 + 1
    slopes = 1 - np.tanh(np.sqrt(q) * z) ** 2
    return round(float(deviation * np.sqrt(weights @ slopes**2)), 4)


LINEAR = {
    **{f"linear, ρ = {r}": (gaussian(linear, r), r) for r in (0.9, 1.1)},
    "linear, orthogonal": (elman(activation=linear), 1.0),
}
TANH = {  # theory needs the weights
    **{f"tanh, ρ = {r}": (gaussian(jnp.tanh, r), None) for r in (0.9, 1.1, 2.0)},
    "tanh, orthogonal": (elman(), None),
}
GATED = {
    "LSTM, forget bias 0": (lstm(forget_bias=0.0), gate(0)),
    "LSTM, forget bias 1": (lstm(), gate(1)),
    f"LSTM, chrono, T_max {T_MAX}": (lstm(chrono=T_MAX), 1 - 1 / T_MAX),
    "GRU": (cells.gru(I, H, param_dtype=DTYPE), gate(0)),
    "IRNN": (irnn, 1.0),
}
CELLS = LINEAR | TANH | GATED  # with what theory says a step does


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
    """Norms over the lag, medians of seeds `[K]`, and what a step does to them."""

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
    over_lag = [[float(f"{a:.4g}") for a in each] for each in np.median(found, 0)]
    return dict(
        spectral=over_lag[0], frobenius=over_lag[1],
        rate=round(float(spectral), 4), frobenius_rate=round(float(frobenius), 4),
        rates=[round(float(r), 4) for r in rates[:, 0]],
    )  # fmt: skip


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
    theory = {
        name: mean_field(cell) if rate is None else rate
        for name, (cell, rate) in shown.items()
    }
    results.finish(theory=theory)
    if quick:
        return
    for file, group in dict(linear=LINEAR, tanh=TANH, gated=GATED).items():
        plots.by_lag(
            {name: found[name]["spectral"] for name in group},
            rates={name: (0, theory[name]) for name in group},
            unit=r"spectral norm of $\partial s_t / \partial s_{t-k}$",
        ).savefig(HERE / f"{file}.png", dpi=120)


if __name__ == "__main__":
    main()
