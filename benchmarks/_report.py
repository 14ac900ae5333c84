"""Tables and a figure from the JSON of `benchmarks.run`."""

import math
import pathlib

from benchmarks._contestants import OURS, REMAT

LINEN = "flax.linen.RNN"


def is_torch(name: str) -> bool:
    return name.startswith("torch")


def jax_peers(rows: dict) -> list[str]:
    return [n for n in rows if n not in (OURS, REMAT) and not is_torch(n)]


def ms(row: dict, what: str, of: str = "min") -> float:
    return row[what][of]


def fastest(rows: dict, what: str, of: str = "min") -> tuple[str, float]:
    """The fastest JAX peer and its time."""
    return min(
        ((n, ms(rows[n], what, of)) for n in jax_peers(rows)), key=lambda x: x[1]
    )


def speedup(record: dict, what: str = "gradient_ms", of: str = "min") -> float | None:
    """The fastest JAX peer's time over ours; above 1 we are faster."""
    rows = record["rows"]
    if OURS not in rows or not jax_peers(rows):
        return None
    return fastest(rows, what, of)[1] / ms(rows[OURS], what, of)


def over_torch(record: dict, of: str = "min") -> float | None:
    rows = record["rows"]
    torch = [n for n in rows if is_torch(n)]
    if not torch or OURS not in rows:
        return None
    return ms(rows[torch[0]], "gradient_ms", of) / ms(rows[OURS], "gradient_ms", of)


def temp_ratio(record: dict, name: str = OURS) -> float | None:
    rows = record["rows"]
    if LINEN not in rows or name not in rows:
        return None
    return rows[name]["temp_bytes"] / rows[LINEN]["temp_bytes"]


def compile_ratio(record: dict) -> float | None:
    rows = record["rows"]
    if OURS not in rows or not jax_peers(rows):
        return None
    least = min(rows[n]["compile_s"] for n in jax_peers(rows))
    return rows[OURS]["compile_s"] / least


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def one(record: dict) -> str:
    """All contestants of a case."""
    rows = record["rows"]
    base = ms(rows[OURS], "gradient_ms") if OURS in rows else None
    head = (
        f"{record['name']}: floor {record['floor_ms']:.2f} ms",
        f"{'':26}{'gradient ms':>22}{'to ours':>9}{'forward ms':>20}"
        f"{'temp':>8}{'compile':>9}",
    )
    lines = list(head)
    for name, row in sorted(rows.items(), key=lambda item: ms(item[1], "gradient_ms")):
        g, f = row["gradient_ms"], row["forward_ms"]
        temp = row["temp_bytes"]
        lines.append(
            f"{name:26}{g['min']:11.2f} ({g['median']:8.2f})"
            + (f"{g['min'] / base:9.2f}" if base else "")
            + f"{f['min']:10.2f} ({f['median']:7.2f})"
            + (f"{temp / record['unit_bytes']:8.2f}" if temp is not None else f"{'':8}")
            + (f"{row['compile_s']:8.2f}s" if row["compile_s"] is not None else "")
        )
    lines += [
        f"{name:26}  takes no part: {why}" for name, why in record["declined"].items()
    ]
    return "\n".join(lines)


COLUMNS = (
    "case",
    "fastest JAX peer",
    "gradient",
    "forward",
    "to torch",
    "over floor",
    "temp to linen",
    "remat: temp",
    "remat: time",
    "compile",
)


def summary_rows(result: dict) -> list[list[str]]:
    """A row a case: how many times faster than the fastest JAX peer, and the rest."""

    def show(value, digits=2):
        return "" if value is None else f"{value:.{digits}f}"

    rows = []
    for r in result["cases"]:
        ours, lean = r["rows"].get(OURS), r["rows"].get(REMAT)
        best = fastest(r["rows"], "gradient_ms")[0] if jax_peers(r["rows"]) else ""
        rows.append(
            [
                r["name"],
                best,
                f"{show(speedup(r))} ({show(speedup(r, of='median'))})",
                f"{show(speedup(r, 'forward_ms'))}",
                f"{show(over_torch(r))}",
                show(ours and ms(ours, "gradient_ms") / r["floor_ms"]),
                show(temp_ratio(r)),
                show(temp_ratio(r, REMAT)),
                show(
                    ours and lean and ms(lean, "gradient_ms") / ms(ours, "gradient_ms")
                ),
                show(compile_ratio(r)),
            ]
        )
    return rows


def markdown(rows: list[list[str]], head=COLUMNS) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def goals(result: dict) -> list[list[str]]:
    """What is to be reached, and what was: the worst case named where there is one."""
    cases = result["cases"]

    def found(measure, chosen=cases):
        return {r["name"]: v for r in chosen if (v := measure(r)) is not None}

    def mean(label, values, goal):
        return [label, goal, f"{geometric_mean(list(values.values())):.2f}"]

    def worst(label, values, goal, pick):
        name = pick(values, key=values.get)
        return [label, goal, f"{values[name]:.2f}, {name}"]

    def of(cells, long):
        return [
            r for r in cases if r["cell"] in cells and (long is None or long(r["T"]))
        ]

    gated = ("lstm", "gru")
    short = [r for r in cases if (r["B"], r["T"]) == (16, 50)]
    lines = [
        ("mean", "gradient: times faster than the fastest JAX peer", "≥ 2.0",
         found(speedup)),
        (min, "… in the worst case", "≥ 1.15", found(speedup)),
        (min, "… the worst of (16, 50, 2, 16)", "≥ 3",
         found(speedup, short)),
        (max, "time of a program that computes nothing, over ours: (16, 50, 2, 16)", "",
         found(_start, short)),
        ("mean", "gradient: times faster than PyTorch", "≥ 1.8", found(over_torch)),
        (min, "… than PyTorch, in the worst case", "≥ 1.0", found(over_torch)),
        ("mean", "forward: times faster than the fastest JAX peer", "≥ 1.3",
         found(lambda r: speedup(r, "forward_ms"))),
        (min, "… forward, in the worst case", "≥ 1.0",
         found(lambda r: speedup(r, "forward_ms"))),
        (max, "time over the floor, H ≥ 256, worst", "≤ 1.8",
         found(_over_floor, [r for r in cases if r["H"] >= 256])),
        (max, "temp memory to flax.linen.RNN, LSTM and GRU, T ≥ 96", "≤ 0.6",
         found(temp_ratio, of(gated, lambda T: T >= 96))),
        (max, "… T < 96", "≤ 0.6", found(temp_ratio, of(gated, lambda T: T < 96))),
        (max, "… Elman", "≤ 0.75", found(temp_ratio, of(("elman",), None))),
        (max, "… LSTM under remat", "≤ 0.25",
         found(lambda r: temp_ratio(r, REMAT), of(("lstm",), None))),
        (max, "time of LSTM under remat to that without", "≤ 1.25",
         found(_remat_time, of(("lstm",), None))),
        (max, "compile time to the fastest JAX peer", "≤ 1.5 (a rest: 2)",
         found(compile_ratio)),
    ]  # fmt: skip
    return [
        mean(label, values, goal) if how == "mean" else worst(label, values, goal, how)
        for how, label, goal, values in lines
        if values
    ]


def _over_floor(record: dict) -> float | None:
    ours = record["rows"].get(OURS)
    return ours and ms(ours, "gradient_ms") / record["floor_ms"]


def _start(record: dict) -> float | None:
    ours, start = record["rows"].get(OURS), record.get("start_ms")
    return ours and start and start["min"] / ms(ours, "gradient_ms")


def _remat_time(record: dict) -> float | None:
    rows = record["rows"]
    if OURS not in rows or REMAT not in rows:
        return None
    return ms(rows[REMAT], "gradient_ms") / ms(rows[OURS], "gradient_ms")


def everything(result: dict) -> str:
    return "\n\n".join(
        [
            markdown(summary_rows(result)),
            markdown(goals(result), ["", "goal", "reached"]),
        ]
    )


def figure(result: dict, path: pathlib.Path) -> None:
    """Times of the gradient relative to ours, a row of marks a case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = [r for r in result["cases"] if OURS in r["rows"]]
    names = list(dict.fromkeys(n for r in cases for n in r["rows"] if n != OURS))
    fig, ax = plt.subplots(figsize=(8, 1.6 + 0.28 * len(cases)), layout="constrained")
    colours = plt.get_cmap("tab10").colors
    for k, name in enumerate(names):
        at = [(i, r) for i, r in enumerate(cases) if name in r["rows"]]
        ax.scatter(
            [
                ms(r["rows"][name], "gradient_ms") / ms(r["rows"][OURS], "gradient_ms")
                for _, r in at
            ],
            [i for i, _ in at],
            label=name,
            color=colours[k % 10],
            marker="osD^v<>PX*"[k % 10],
            s=26,
            alpha=0.85,
        )
    ax.axvline(1, color="black", linewidth=1)
    ax.set_xscale("log")
    ticks = [0.5, 0.7, 1, 1.5, 2, 3, 5, 10]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(cases)), [r["name"] for r in cases])
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    ax.set_xlabel(
        f"time of a training gradient, bptt_jax = 1 ({result['device']}, "
        f"{result['vector_instructions']}, JAX {result['versions']['jax']})"
    )
    fig.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    fig.savefig(path, dpi=150)
    plt.close(fig)
