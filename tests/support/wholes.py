"""Models of sections, and the same computed example by example without any padding.

The reference takes the real steps of one example out of the batch and runs these alone: layers
by `unrolls.scan`, functions of the whole sequence as their formulas are written.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import cells, layers, models, unrolls, wholes
from bptt_jax.types import Layer, Whole
from bptt_jax.verify import Member


def _own_init(key):
    return dict(share=jax.random.uniform(key, (3,), jnp.float32))


def _own_apply(params, ys, side):
    """Less a share of what is largest in the whole sequence."""
    real = jnp.ones(ys.shape[0], bool) if side.mask is None else side.mask
    real = real.reshape(real.shape + (1,) * (ys.ndim - real.ndim))
    ys = jnp.where(real, ys, 0)
    largest = jnp.where(real, ys, -jnp.inf).max(0, keepdims=True)
    share = params["share"].reshape((1,) * (ys.ndim - 1) + (3,))
    return jnp.where(real, ys - share * jnp.where(real.any(0), largest, 0), 0), side


OWN = Whole(_own_init, _own_apply)
PAIR = cells.gru(4, 3), cells.elman(4, 3)

WHOLES: dict[str, Member] = {
    "bidirectional": Member(
        lambda: models.sections(
            cells.elman(3, 4), wholes.bidirectional(*PAIR), layers.dense(6, 2)
        )
    ),
    "ends": Member(
        lambda: models.sections(
            wholes.ends(cells.learned_carry(cells.lstm(3, 4))), layers.dense(8, 2)
        )
    ),
    "last": Member(
        lambda: models.sections(cells.gru(3, 4), wholes.last(), layers.dense(4, 2))
    ),
    "mean": Member(
        lambda: models.sections(cells.gru(3, 4), wholes.mean(), cells.elman(4, 2))
    ),
    "attention_pool": Member(
        lambda: models.sections(
            cells.gru(3, 4), wholes.attention_pool(4, 5), layers.dense(4, 2)
        )
    ),
    "attention": Member(
        lambda: models.sections(
            layers.stack(cells.gru(3, 4), layers.dense(4, 4)),
            wholes.attention(4, 2),
            cells.elman(4, 3),
        )
    ),
    "a function of one's own": Member(
        lambda: models.sections(cells.gru(3, 3), OWN, wholes.mean())
    ),
}
POOLED = {"ends", "last", "mean", "attention_pool", "a function of one's own"}
"""Members whose outputs have one step; these refuse resets."""


# One example, of real steps alone: [n, I] -> [n or 1, O]


def _scanned(cell, params, xs):
    return unrolls.scan(cell, params, cell.init_carry(params, ()), xs)[1]


def _two(pair, params, xs):
    back = _scanned(pair[1], params[1], xs[::-1])[::-1]
    return _scanned(pair[0], params[0], xs), back


def _ends(params, xs):
    cell = cells.learned_carry(cells.lstm(3, 4))
    to_end, to_start = _two((cell, cell), params, xs)
    return jnp.concatenate([to_end[-1], to_start[0]])[None]


def _attention_pool(params, xs):
    scores = [
        params["query"] @ jnp.tanh(params["kernel"].T @ x + params["bias"]) for x in xs
    ]
    odds = jnp.exp(jnp.stack(scores))
    return (odds @ xs / odds.sum())[None]


def _attention(params, xs):
    n, (_, heads, size) = len(xs), params["query"]["kernel"].shape
    found = [x + params["out"]["bias"] for x in xs]
    for h in range(heads):
        q, k, v = (
            xs @ params[name]["kernel"][:, h] + params[name]["bias"][h]
            for name in ("query", "key", "value")
        )
        for t in range(n):
            odds = jnp.exp(k @ q[t] / np.sqrt(size))
            found[t] += (odds @ v / odds.sum()) @ params["out"]["kernel"][h]
    return jnp.stack(found)


REFERENCE: dict[str, Callable] = {
    "bidirectional": lambda p, xs: jnp.concatenate(_two(PAIR, p, xs), -1),
    "ends": _ends,
    "last": lambda p, xs: xs[-1:],
    "mean": lambda p, xs: xs.sum(0, keepdims=True) / len(xs),
    "attention_pool": _attention_pool,
    "attention": _attention,
    "a function of one's own": lambda p, xs: xs - p["share"] * xs.max(0),
}


def reference(name: str, model, params, xs, carry=None):
    """Of one example, `[n, I] -> [n or 1, O]`."""
    for i, (part, p) in enumerate(zip(model.parts, params, strict=True)):
        if isinstance(part, Layer):
            first = part.init_carry(p, ()) if carry is None else carry[i]
            xs = unrolls.scan(part, p, first, xs)[1]
        elif part == wholes.mean():
            xs = REFERENCE["mean"](p, xs)
        else:
            xs = REFERENCE[name](p, xs)
    return xs
