"""How far back does a learner look? The coin task answers in nats.

    python experiments/credit_horizon/run.py            minutes
    python experiments/credit_horizon/run.py --quick    seconds, writes no results

A target depends on the inputs 3 and 8 steps ago (`tasks.coin`). Windows of K steps, with the
state set to zero where each begins, or carried on from one to the next
(`unrolls.truncated`); the best a learner can reach is known for each number of causes in
sight. A tanh network of 32 units, Adam at 3e-3.
"""

import argparse
import functools
import json
import pathlib

import jax
import numpy as np
import optax
from jax import lax

from bptt_jax import cells, estimators, models, plots, tasks, unrolls

HERE = pathlib.Path(__file__).parent
T1, T2, H = 3, 8, 32
WINDOWS = (2, 3, 4, 6, 8, 9, 12)
LONG, EXAMPLES = 48, 40  # a sequence with a carried state: as many losses as in windows
UPDATES = 3000
ORTHOGONAL = jax.nn.initializers.orthogonal()


def small(key, shape, dtype):
    """A tenth of an orthogonal matrix: what it holds of the past fades at once."""
    return 0.1 * ORTHOGONAL(key, shape, dtype)


def network(init):
    cell = cells.elman(1, H, recurrent_kernel_init=init)
    return models.features((cell,), 1, H)


def setting(carried: bool, window: int, init):
    """Task, model and estimator."""
    model, coin = network(init), functools.partial(tasks.coin, t1=T1, t2=T2)
    if carried:
        task = coin(batch=EXAMPLES, T=LONG)
        unroll = functools.partial(unrolls.truncated, window=window)
    else:
        task = coin(batch=EXAMPLES * (LONG - T2), T=window)
        unroll = unrolls.bptt
    return task, model, estimators.exact(model, task.objective, unroll=unroll)


def trained(carried: bool, window: int, init, updates: int) -> float:
    """Held-out cross-entropy in nats."""
    task, model, estimator = setting(carried, window, init)
    optimizer = optax.adam(3e-3)
    params = model.init(jax.random.key(0))

    def batch(stream, i):
        key = jax.random.fold_in(jax.random.key(1), i)
        return stream.batch(i, key)

    def update(at, i):
        params, state = at
        _, grads, *_ = estimator.grad(
            params, (), batch(task.train, i), jax.random.key(i)
        )
        moves, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, moves), state), None

    def held_out(params):
        def one(i):
            return estimator.grad(
                params, (), batch(task.held_out, i), jax.random.key(0)
            )[0]

        return lax.map(one, np.arange(task.held_out.length)).mean()

    @jax.jit
    def run(params):
        steps = np.arange(updates)
        (params, _), _ = lax.scan(update, (params, optimizer.init(params)), steps)
        return held_out(params)

    return float(run(params))


KINDS = {
    "state set to zero": (False, ORTHOGONAL),
    "state carried, orthogonal": (True, ORTHOGONAL),
    "state carried, a tenth of it": (True, small),
}


def figure(result: dict):
    return plots.curves(
        {name: ([*map(int, row)], [*row.values()])
         for name, row in result["nats"].items()},
        label="steps of a window, K",
        unit="held-out cross-entropy, nats",
        levels={f"knows {name}": nats for name, nats in result["best"].items()},
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one window, 30 updates")
    args = parser.parse_args()
    windows, updates = ((9,), 30) if args.quick else (WINDOWS, UPDATES)
    levels = tasks.coin(t1=T1, t2=T2).baselines
    print("best:", ", ".join(f"{name} {nats:.4f}" for name, nats in levels.items()))
    found: dict = {}
    for name, (carried, init) in KINDS.items():
        for window in windows:
            nats = trained(carried, window, init, updates)
            found.setdefault(name, {})[str(window)] = round(nats, 4)
            print(f"{name:32} K = {window:2}: {nats:.4f}", flush=True)
    if args.quick:
        return
    result = dict(jax=jax.__version__, best=levels, nats=found)
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    figure(result).savefig(HERE / "credit_horizon.png", dpi=120)


if __name__ == "__main__":
    main()
