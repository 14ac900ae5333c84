"""Where in their range gates are."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bptt_jax import layers
from bptt_jax._factory import positive
from bptt_jax.diagnose._activity import CANDIDATES, see_gates, watched
from bptt_jax.diagnose._names import names
from bptt_jax.types import Batch, Cell, Layer, PyTree


class GateUse(NamedTuple):
    """Of the gates of one recurrent part, over the real steps, examples and units of a batch.

    histograms: gate -> `(edges [n + 1], shares [n])`: its range, (0, 1) or, for candidates,
        (-1, 1), in equal bins, and the share of its values in each; what a gate of one's own
        has beyond is in the outermost. Shares add up to 1.
    low, high: gate -> the share in the lowest and in the highest tenth of its range, where it
        is saturated.
    """

    histograms: dict[str, tuple[Array, Array]]
    low: dict[str, Array]
    high: dict[str, Array]


def gates(
    model: Layer | Cell,
    params: PyTree,
    batch: Batch,
    *,
    bins: int = 20,
    carry: PyTree = None,
    chunk: int | None = None,
) -> dict[str, GateUse]:
    """Histograms of the gates of every recurrent part that names some, on a batch.

    Args:
      model: a cell, or a layer with recurrent parts.
      params: of the model.
      batch: inputs `[T, B, ...]`; masked steps do not count.
      bins: of a histogram.
      carry: the state before the first step; None: the model's initial one.
      chunk: as of `unrolls.bptt`.

    Returns:
      By the place of a part's parameters and what its equations are called, `"[0] lstm"`: a
      `GateUse` of those whose gates have names (`types.Gates`) and are real.
      `plots.gates` draws the histograms of one.

    Raises:
      ValueError: no part has such gates.

    Cost: a forward and a backward pass; memory O(T·B·H) for each gate.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, diagnose, models, tasks
    >>> task, model = tasks.adding(batch=4, T=20), models.features((cells.gru(2, 8),), 1, 8)
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> found = diagnose.gates(model, model.init(jax.random.key(0)), batch)["[0] gru"]
    >>> sorted(found.low), round(float(found.histograms["z"][1].sum()), 3)
    (['n', 'r', 'z'], 1.0)
    """
    positive(bins=bins)
    model = layers.lift(model, "model")
    called = names(model)
    found = _use(model, params, batch, int(bins), carry, chunk)
    each = {name: use for name, use in zip(called, found, strict=True) if use.low}
    if not each:
        raise ValueError(
            f"model: expected a part whose gates have names (types.Gates), as those of "
            f"cells.lstm, gru and mgu; got {', '.join(called)}"
        )
    return each


@functools.partial(jax.jit, static_argnames=("model", "bins", "chunk"))
def _use(model: Layer, params, batch: Batch, bins: int, carry, chunk) -> list[GateUse]:
    seen, real = watched(model, params, batch, carry, chunk, see_gates)
    return [_of_part(named, real, bins) for named in seen]


def _of_part(named: dict[str, Array], real: Array, bins: int) -> GateUse:
    histograms, low, high = {}, {}, {}
    for name, a in named.items():
        if not jnp.isrealobj(a):
            continue
        least = -1.0 if name in CANDIDATES else 0.0
        unit = ((a.astype(jnp.float32) - least) / (1 - least)).astype(jnp.float32)
        counts = jnp.broadcast_to(real[..., None], a.shape).astype(jnp.float32)
        counts = counts / counts.sum()
        place = jnp.clip(jnp.floor(unit * bins), 0, bins - 1).astype(jnp.int32)
        shares = jnp.zeros(bins, jnp.float32).at[place].add(counts)
        edges = np.linspace(least, 1, bins + 1, dtype=np.float32)
        histograms[name] = jnp.asarray(edges), shares
        low[name] = jnp.where(unit < 0.1, counts, 0).sum()
        high[name] = jnp.where(unit > 0.9, counts, 0).sum()
    return GateUse(histograms, low, high)
