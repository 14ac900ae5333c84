"""Models of sections, and the same computed example by example without any padding.

The reference takes the real steps of one example out of the batch and runs these alone: layers
by `unrolls.scan`, functions of the whole sequence as their formulas are written. A new one is an
entry in `verify.WHOLES`, and its formula in `REFERENCE`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import cells, models, unrolls, verify, wholes
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

WHOLES: dict[str, Member] = verify.WHOLES | {
    "a function of one's own": Member(
        lambda: models.sections(cells.gru(3, 3), OWN, wholes.mean()),
        options=dict(sides=("plain", "mask")),
    ),
}
POOLED = {name for name, member in WHOLES.items() if "sides" in member.options}
"""Members whose outputs have one step; these refuse resets."""


# One example, of real steps alone: [n, I] -> [n or 1, O]


def _scanned(cell, params, xs):
    return unrolls.scan(cell, params, cell.init_carry(params, ()), xs)[1]


def _two(part, params, xs):
    """Of both directions, by the cells that the factory was given."""
    first, *second = part.made.args
    back = _scanned(*second or [first], params[1], xs[::-1])[::-1]
    return _scanned(first, params[0], xs), back


def _ends(part, params, xs):
    to_end, to_start = _two(part, params, xs)
    return jnp.concatenate([to_end[-1], to_start[0]])[None]


def _attention_pool(part, params, xs):
    scores = [
        params["query"] @ jnp.tanh(params["kernel"].T @ x + params["bias"]) for x in xs
    ]
    odds = jnp.exp(jnp.stack(scores))
    return (odds @ xs / odds.sum())[None]


def _attention(part, params, xs):
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
    "bidirectional": lambda part, p, xs: jnp.concatenate(_two(part, p, xs), -1),
    "ends": _ends,
    "last": lambda part, p, xs: xs[-1:],
    "mean": lambda part, p, xs: xs.sum(0, keepdims=True) / len(xs),
    "attention_pool": _attention_pool,
    "attention": _attention,
}
"""Of each factory of the room."""


def reference(model, params, xs, carry=None):
    """Of one example, `[n, I] -> [n or 1, O]`."""
    for i, (part, p) in enumerate(zip(model.parts, params, strict=True)):
        if isinstance(part, Layer):
            first = part.init_carry(p, ()) if carry is None else carry[i]
            xs = unrolls.scan(part, p, first, xs)[1]
        elif part == OWN:
            xs = xs - p["share"] * xs.max(0)
        else:
            xs = REFERENCE[part.made.func.__name__](part, p, xs)
    return xs
