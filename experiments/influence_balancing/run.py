"""Where truncated BPTT goes the wrong way, and unbiased truncation does not.

    python experiments/influence_balancing/run.py            about a minute
    python experiments/influence_balancing/run.py --quick    seconds, writes no results

Tallec, Ollivier (2018), "Unbiased online recurrent optimization", section 4: a linear
system s_{t+1} = A s_t + θ v of 23 units, A = 1/2 on the diagonal and above it, v = 1 in the
first 10 entries and -1 in the others, loss ½(s[0] - 1)². θ moves s[0] by +1 after one
step, by +10 after ten, and by -6 in the end: short windows see the wrong sign.
"""

import argparse
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_jax import cells, plots, unrolls

HERE = pathlib.Path(__file__).parent
N, POSITIVE = 23, 10
OPTIMUM, BEGIN = -1 / 6, 0.5
WINDOWS = (1, 10, 100)
SEQUENCE = 1000  # steps of a sequence for the two that look back without end


def step(params, state, x):
    del x
    push = jnp.where(jnp.arange(N) < POSITIVE, 1.0, -1.0)
    above = jnp.append(state[1:], 0.0)
    state = 0.5 * (state + above) + params * push
    return state, state


def init_carry(params, batch_shape):
    return jnp.ones((*batch_shape, N), params.dtype)


CELL = cells.from_step(step, lambda key: jnp.asarray(BEGIN), init_carry)


def windowed(window: int, rate: float):
    """The loss after the last step of each window; the state is carried on."""

    def update(theta, state, key):
        del key

        def loss(theta):
            run = functools.partial(unrolls.truncated, window=window, length=window)
            after, states = run(CELL, theta, state, None)
            return 0.5 * (states[-1, 0] - 1) ** 2, after

        slope, after = jax.grad(loss, has_aux=True)(theta)
        return theta - rate * slope, after

    return update


def of_sequences(unroll, rate: float):
    """A loss at every step of a sequence, which begins where the last one ended."""

    def update(theta, state, key):
        def loss(theta):
            after, states = unroll(key)(CELL, theta, state, None, length=SEQUENCE)
            return 0.5 * ((states[:, 0] - 1) ** 2).mean(), after

        slope, after = jax.grad(loss, has_aux=True)(theta)
        return theta - rate * slope, after

    return update


LEARNERS = {
    **{f"window of {w}": windowed(w, 1e-4) for w in WINDOWS},
    "full BPTT": of_sequences(lambda key: unrolls.bptt, 1e-2),
    "random truncation, 16 steps in the mean": of_sequences(
        lambda key: functools.partial(
            unrolls.randomly_truncated, mean_length=16, alpha=6.0, key=key
        ),
        1e-3,
    ),
}


def curve(update, updates: int) -> np.ndarray:
    """θ after each update."""

    def body(at, key):
        theta, state = update(*at, key)
        return (theta, state), theta

    @jax.jit
    def run(keys):
        theta = jnp.asarray(BEGIN)
        return lax.scan(body, (theta, init_carry(theta, ())), keys)[1]

    return np.asarray(run(jax.random.split(jax.random.key(0), updates)))


def slopes() -> dict[str, float]:
    """d s[0] / dθ after so many steps from s = 1."""

    def first(theta, steps):
        state = init_carry(theta, ())
        return unrolls.bptt(CELL, theta, state, None, length=steps)[0][0]

    return {
        str(n): float(jax.grad(first)(jnp.asarray(BEGIN), n))
        for n in (1, 10, 100, 1000)
    }


def figure(curves: dict[str, np.ndarray]):
    return plots.curves(
        {name: (np.arange(1, 1 + len(theta)), theta) for name, theta in curves.items()},
        label="update",
        unit="θ",
        levels={"optimum, -1/6": OPTIMUM},
        limits=(-0.5, 2.0),
    )


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="300 updates each")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    found = slopes()
    print("d s[0]/dθ after", ", ".join(f"{n} steps {v:+.4f}" for n, v in found.items()))
    curves = {}
    for name, update in LEARNERS.items():
        curves[name] = curve(update, 300 if args.quick else 3000)
        print(f"{name:42} θ = {curves[name][-1]:.6g}", flush=True)
    if args.quick:
        return
    result = dict(
        jax=jax.__version__,
        optimum=OPTIMUM,
        slopes=found,
        theta={name: float(theta[-1]) for name, theta in curves.items()},
    )
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    figure(curves).savefig(HERE / "theta.png", dpi=120)


if __name__ == "__main__":
    main()
