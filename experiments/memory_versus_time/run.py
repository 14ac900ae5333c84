"""What memory costs in time: the exact gradient of 1000 steps, from few stored states.

    python experiments/memory_versus_time/run.py            about two minutes
    python experiments/memory_versus_time/run.py --quick    seconds, writes no results

An LSTM (64 units, 16 examples, loss folded into the loop) by `unrolls.checkpointed` with
2 to 1000 states, by `bptt`, and by what JAX offers: a scan, its body under
`jax.checkpoint`, √T blocks under `jax.checkpoint`, and Equinox's checkpointed scan where
it is installed. Memory is XLA's temporary memory; times are minima, taken in turns.
"""

import argparse
import functools
import json
import math
import os
import pathlib
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_jax import cells, layers, plots, unrolls

HERE = pathlib.Path(__file__).parent
T, B, I, H = 1000, 16, 16, 64
SLOTS = (2, 3, 5, 10, 20, 50, 100, 300, 1000)
ROUNDS = 7
CELL = cells.lstm(I, H)
OF_INTERNAL = 2, 4
SHARES = 0.05, 0.1, 0.2, 0.5, 1, 1.5
KEPT = (5, 10, 20, 30)
LENGTH = 25  # steps of a stretch where stretches are kept
STATE_BYTES = 2 * 4 * B * H
BACKWARD = 2  # forward evaluations that pulling back a step is worth in the paper


def squares(ys, targets):
    del targets
    return (ys * ys).mean((1, 2)) if ys.ndim == 3 else (ys * ys).mean()


LAYER = layers.with_loss(layers.recurrent(CELL), squares)


def of_layer(unroll, **options):
    def loss(params, xs):
        carry = CELL.init_carry(params, (B,))
        return unroll(LAYER, params, carry, xs, **options)[1].sum()

    return loss


def step(params, state, x):
    """A step of a plain loop, with its loss."""
    carry, total = state
    carry, y = CELL.step(params, carry, x)
    return (carry, total + squares(y, None)), None


def begin(params):
    return CELL.init_carry(params, (B,)), jnp.float32(0)


def by_scan(wrap):
    def loss(params, xs):
        body = wrap(functools.partial(step, params))
        return lax.scan(body, begin(params), xs)[0][1]

    return loss


def by_blocks(params, xs):
    """Chen et al. (2016): √T blocks, each under `jax.checkpoint`."""
    n = max(k for k in range(1, math.isqrt(len(xs)) + 1) if len(xs) % k == 0)
    blocks = xs.reshape(n, -1, *xs.shape[1:])

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def block(state, xs):
        return lax.scan(functools.partial(step, params), state, xs)

    return lax.scan(block, begin(params), blocks)[0][1]


def by_equinox(checkpoints: int):
    import equinox.internal as eqxi

    def loss(params, xs):
        body = functools.partial(step, params)
        return eqxi.scan(
            body, begin(params), xs, kind="checkpointed", checkpoints=checkpoints
        )[0][1]

    return loss


def contestants(steps: int) -> dict:
    """name -> (kind, loss)."""
    checkpoint = functools.partial(jax.checkpoint, prevent_cse=False)
    slots = SLOTS if steps == T else (3, 20)
    found = {
        **{
            f"{m} states": (
                "checkpointed",
                of_layer(unrolls.checkpointed, slots=m, chunk=1),
            )
            for m in slots
        },
        "as it is": ("checkpointed, stretches", of_layer(unrolls.checkpointed)),
        **{
            f"{j} kept": (
                "checkpointed, stretches",
                of_layer(unrolls.checkpointed, chunk=LENGTH, kept=j),
            )
            for j in KEPT
            if j * LENGTH < steps
        },
        "bptt": ("bptt", of_layer(unrolls.bptt)),
        "scan": ("lax.scan", by_scan(lambda f: f)),
        "body": ("lax.scan, jax.checkpoint", by_scan(checkpoint)),
        "blocks": ("√T blocks, jax.checkpoint", by_blocks),
    }
    try:
        import equinox  # noqa: F401
    except ImportError:
        print("equinox is not installed and takes no part")
        return found
    for m in (10, 50):
        found[f"equinox, {m}"] = ("Equinox's checkpointed scan", by_equinox(m))
    return found


def measured(steps: int, rounds: int) -> dict:
    params = CELL.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (steps, B, I))
    programs, values = {}, {}
    for name, (_, loss) in contestants(steps).items():
        f = jax.jit(jax.grad(loss)).lower(params, xs).compile()
        programs[name], values[name] = f, f(params, xs)
    for name, value in values.items():
        for a, b in zip(*map(jax.tree.leaves, (value, values["scan"])), strict=True):
            assert jnp.abs(a - b).max() <= 1e-4 * jnp.abs(b).max() + 1e-7, name
    times: dict[str, list] = {name: [] for name in programs}
    for i in range(rounds):
        for name in [*programs][:: 1 if i % 2 else -1]:
            began = time.perf_counter()
            jax.block_until_ready(programs[name](params, xs))
            times[name].append(1e3 * (time.perf_counter() - began))
    return {
        name: dict(
            kind=contestants_kind,
            temp_bytes=programs[name].memory_analysis().temp_size_in_bytes,
            ms=round(min(times[name]), 3),
        )
        for name, (contestants_kind, _) in contestants(steps).items()
    }


def in_theory(steps: int) -> list[dict]:
    """Time over that of plain BPTT, a backward step being worth two forward ones.

    With hidden states in the slots (HSM, what `checkpointed` does), and with all that a
    step's backward needs in them (ISM; Gruslys et al. 2016), which is many times larger.
    """

    def over_plain(runs):
        return round((runs / steps + BACKWARD) / (1 + BACKWARD), 3)

    rows = []
    for m in SLOTS:
        if m <= steps:
            hidden, internal = (_runs(steps + more, m) for more in (0, 1))
            rows.append(dict(
                slots=m, evaluations=steps + hidden, saved=round(1 - m / steps, 4),
                time=over_plain(steps + hidden), time_ism=over_plain(internal),
            ))  # fmt: skip
    return rows


def _runs(n: int, m: int) -> int:
    """r n - C(m + r, r - 1), r the least with C(m + r, m) >= n (Griewank, Walther)."""
    r = next(r for r in range(n) if math.comb(m + r, m) >= n)
    return r * n - math.comb(m + r, r - 1) if r else 0


def mixed(t: int, units: int, of_internal: int) -> np.ndarray:
    """Steps run forward, `[t + 1, units + 1]`, the fewest there are (MSM, Gruslys et al.).

    A state takes one unit, all that a step's backward needs `of_internal`.
    """
    least = np.full((t + 1, units + 1), np.inf)
    least[0] = 0
    for m in range(1, units + 1):
        for n in range(1, t + 1):
            ys = np.arange(1, n + 1)
            hidden = ys[:-1] + least[ys[:-1], m] + least[n - ys[:-1], m - 1]
            internal = np.inf
            if m > of_internal:
                after = least[n - ys, m - of_internal]
                internal = (ys + least[ys - 1, m] + after).min()
            elif m == of_internal:
                internal = n + least[n - 1, m]
            least[n, m] = min(n * (n + 1) / 2, internal, hidden.min(initial=np.inf))
    return least


def by_stretches(t: int, units: int, of_internal: int) -> dict:
    """The fewest steps run forward, of all stretches, slots and numbers of kept ones."""
    found = []
    for K in (k for k in range(1, t + 1) if t % k == 0):
        n, beside = t // K, K * (of_internal - 1)  # beside the state before a stretch
        for j in range(n):
            m = min(units - beside * max(1, j), n) - j
            if m >= 1 and (j == 0 or m == n - j):
                again = n - j
                runs = K * (
                    again + (_runs(again, m) if m > 1 else again * (again - 1) // 2) + j
                )
                found.append((runs, K, m, j))
        if n * (beside + 1) <= units:
            found.append((t, K, 0, n))
    return dict(zip(("evaluations", "chunk", "slots", "kept"), min(found), strict=True))


def against_mixed(t: int) -> list[dict]:
    """The schedule that mixes states and internals against stretches, at equal memory."""
    rows = []
    for of_internal in OF_INTERNAL:
        least = mixed(t, int(max(SHARES) * t), of_internal)
        for units in (int(share * t) for share in SHARES):
            if units <= of_internal:  # too little for a single step
                continue
            best, ours = int(least[t, units]), by_stretches(t, units, of_internal)
            ratio = (ours["evaluations"] + BACKWARD * t) / (best + BACKWARD * t)
            rows.append(dict(of_internal=of_internal, units=units, mixed=best,
                             time_to_mixed=round(ratio, 3), **ours))  # fmt: skip
    return rows


def figure(result: dict):
    rows = result["rows"]
    base = rows["bptt"]["ms"]
    series: dict = {}
    for row in rows.values():
        memory, time = series.setdefault(row["kind"], ([], []))
        memory.append(row["temp_bytes"] / 1e6)
        time.append(row["ms"] / base)
    few = [name for name, row in rows.items() if row["kind"] == "checkpointed"]
    in_theory = [row["time"] for row in result["theory"]]
    return plots.memory_time(
        series,
        theory={
            "theory, one forward = half a backward": (
                series["checkpointed"][0],
                in_theory,
            )
        },
        notes={"checkpointed": [name.split()[0] for name in few]},
        label="temporary memory, MB",
        unit="time of a gradient, that of bptt = 1",
    )


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="60 steps, a round")
    args = parser.parse_args()
    steps, rounds = (60, 1) if args.quick else (T, ROUNDS)
    rows = measured(steps, rounds)
    for name, row in rows.items():
        print(f"{row['kind']:30} {name:14} {row['temp_bytes'] / 1e6:8.3f} MB "
              f"{row['ms']:9.2f} ms {row['ms'] / rows['bptt']['ms']:6.2f} of bptt's")  # fmt: skip
    for row in in_theory(steps):
        print(f"{row['slots']:5} states of {steps}: {row['evaluations']:7} evaluations, "
              f"{row['saved']:.1%} saved, time of plain BPTT x {row['time']:.2f} "
              f"(ISM {row['time_ism']:.2f})")  # fmt: skip
    for row in (against := against_mixed(steps if args.quick else 240)):
        print("internals of {of_internal} states, memory of {units:4}: MSM {mixed:5}, "
              "stretches {evaluations:5} (K {chunk:3}, m {slots:3}, kept {kept:3}), time "
              "x {time_to_mixed:.2f}".format(**row))  # fmt: skip
    if args.quick:
        return
    result = dict(
        jax=jax.__version__,
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        state_bytes=STATE_BYTES,
        rows=rows,
        theory=in_theory(steps),
        against_mixed_240=against,
    )
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    figure(result).savefig(HERE / "memory_versus_time.png", dpi=120)


if __name__ == "__main__":
    main()
