"""Shakespeare, character by character: networks against counting, and what truncation costs.

    python experiments/shakespeare/run.py            half an hour
    python experiments/shakespeare/run.py --quick    seconds, writes nothing

The text is the plays (`tasks.shakespeare`), the last tenth of them held out. Networks are
judged in bits per character beside n-gram models of the same training text. Then one LSTM
is trained five times on the same batches, and only how far a loss reaches back in time
differs: 1 to 200 characters (`estimators.stream`, which hands the state on).
"""

import functools
import math
import pathlib
import sys

import numpy as np

from bptt_jax import cells, estimators, models, plots, tasks

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent))

from _curves import adam, trained  # noqa: E402
from _results import Results, quick  # noqa: E402
from _training import held_out  # noqa: E402

BITS = 1 / math.log(2)
EMBEDDING = 64
NETWORKS = {
    "Elman": (cells.elman, 1),
    "GRU": (cells.gru, 1),
    "LSTM": (cells.lstm, 1),
    "LSTM, 2 layers": (cells.lstm, 2),
}
ORDERS = (1, 2, 3, 4, 5, 6)
RATES = {"Elman": 1e-3, "GRU": 3e-3, "LSTM": 3e-3, "LSTM, 2 layers": 3e-3}
SETTINGS = dict(
    networks=dict(hidden=192, batch=16, T=64, updates=2800, every=700, rates=RATES),
    windows=dict(hidden=128, batch=16, T=200, updates=900, every=180, rates=RATES,
                 windows=[1, 3, 10, 50, 200]),
)  # fmt: skip
QUICK = dict(
    networks=dict(hidden=16, batch=8, T=16, updates=20, every=10, rates=RATES),
    windows=dict(hidden=16, batch=8, T=20, updates=20, every=10, rates=RATES, windows=[10]),
)  # fmt: skip


def network(make, depth: int, hidden: int, n_symbols: int):
    widths = [EMBEDDING] + [hidden] * (depth - 1)
    stack = tuple(make(width, hidden) for width in widths)
    return models.symbols(n_symbols, EMBEDDING, stack, n_symbols, hidden)


def training(name: str, s: dict, window: int | None, short: bool) -> dict:
    """Bits per character of all held-out text after every so many updates."""
    task = tasks.shakespeare(batch=s["batch"], T=s["T"])
    model = network(*NETWORKS[name], s["hidden"], task.n_in)
    bits = lambda ys, targets: BITS * task.objective(ys, targets)
    return trained(
        task, model, estimators.stream(model, task.objective, window=window),
        adam(s["rates"][name], s["updates"]), held_out(model, task, bits, 4 if short else None),
        updates=s["updates"], every=s["every"], seed=0, unit=BITS,
    )  # fmt: skip


def counted(orders: tuple) -> dict[str, float]:
    """Bits per character of n-gram models."""
    corpus = tasks.shakespeare_corpus()
    train, held_out = (corpus.table[a] for a in (corpus.train, corpus.held_out))
    return {
        str(n): round(tasks.ngram_bits(train, held_out, len(corpus.symbols), n), 3)
        for n in orders
    }


def drawn(series: dict, levels: dict):
    return plots.curves(
        {
            name: (np.array(found["updates"]), np.array(found["held_out"]))
            for name, found in series.items()
        },
        label="update", unit="held-out bits per character", levels=levels,
    )  # fmt: skip


def main():
    short = quick(__doc__, "an Elman network and one window, 20 updates")
    s = QUICK if short else SETTINGS
    names = ["Elman"] if short else list(NETWORKS)
    windows = s["windows"]["windows"]
    results = Results(HERE, s, 1 + len(names) + len(windows), short)
    orders = ORDERS[:2] if short else ORDERS
    by_counting = results.part("n-grams", functools.partial(counted, orders))
    shown = "{last:.3f} bits, {cpu_ms:.1f} ms an update"
    networks, reaches = {}, {}
    for name in names:
        compute = functools.partial(training, name, s["networks"], None, short)
        networks[name] = results.part(name, compute, shown)
    for window in windows:
        compute = functools.partial(training, "LSTM", s["windows"], window, short)
        name = f"window of {window}"
        reaches[name] = results.part(name, compute, shown)
    if not short:
        levels = {f"{n}-gram": by_counting[n] for n in ("3", "4", "5")}
        drawn(networks, levels).savefig(HERE / "networks.png", dpi=120)
        drawn(reaches, {"5-gram": by_counting["5"]}).savefig(
            HERE / "windows.png", dpi=120
        )
    results.finish(task=tasks.shakespeare().record)


if __name__ == "__main__":
    main()
