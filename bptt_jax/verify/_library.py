"""What the library offers, ready to be checked: one line a member.

The contract tests run over these tables, and so does `bptt-jax check`.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bptt_jax import cells, layers, objectives, unrolls
from bptt_jax.types import Cell, Layer
from bptt_jax.verify import _numpy_cells as in_numpy
from bptt_jax.verify._check import check
from bptt_jax.verify._report import Report


class Member(NamedTuple):
    """A cell or layer with what `check` has to know of it.

    make: `() -> cell or layer` (made when asked for: importing stays cheap); that of a
        cell takes its number of hidden units, too.
    inputs, targets, reference, options: as `check` takes them.
    """

    make: Callable[..., Cell | Layer]
    inputs: int | Callable | None = 3
    reference: Callable | None = None
    targets: int | Callable | None = None
    options: dict[str, Any] = {}


def check_member(name: str, member: Member, **options) -> Report:
    """`check` with the entries of a member; `options` come on top."""
    return check(
        member.make(),
        member.inputs,
        reference=member.reference,
        targets=member.targets,
        **{"name": name, **member.options, **options},
    )


def _symbols(n: int) -> Callable:
    def make(key, T, batch_shape):
        return jax.random.randint(key, (T, *batch_shape), 0, n)

    return make


def _leaky_step(p, h, x):  # the output is no leaf of the state
    h = 0.9 * h + jnp.tanh(x @ p["w"] + h @ p["r"])
    return h, h[..., :2] * p["scale"]


@functools.cache
def _leaky_init(n):
    def init(key):
        k_w, k_r = jax.random.split(key)
        return dict(
            w=jax.random.normal(k_w, (3, n)),
            r=jax.random.normal(k_r, (n, n)) / 2,
            scale=jnp.ones(2),
        )

    return init


@functools.cache
def _leaky_carry(n):
    return lambda params, batch_shape: jnp.zeros((*batch_shape, n), params["w"].dtype)


CELLS: dict[str, Member] = {
    "elman": Member(lambda n=4: cells.elman(3, n), 3, in_numpy.elman()),
    "elman, relu": Member(
        lambda n=4: cells.elman(3, n, activation=jax.nn.relu),
        reference=in_numpy.elman(in_numpy.relu),
    ),
    "lstm": Member(lambda n=4: cells.lstm(3, n), 3, in_numpy.lstm()),
    "gru": Member(lambda n=4: cells.gru(3, n), 3, in_numpy.gru()),
    "gru, reset before": Member(
        lambda n=4: cells.gru(3, n, reset_after=False),
        3,
        in_numpy.gru(reset_after=False),
    ),
    "learned_carry": Member(
        lambda n=4: cells.learned_carry(cells.gru(3, n)), 3, in_numpy.learned_carry()
    ),
    "from_step": Member(
        lambda n=4: cells.from_step(_leaky_step, _leaky_init(n), _leaky_carry(n)),
        reference=in_numpy.leaky(),
    ),
}

_elman = partial(cells.elman, 3, 4)
_lstm = partial(cells.lstm, 3, 4)

LAYERS: dict[str, Member] = {
    "recurrent": Member(lambda: layers.recurrent(_lstm())),
    "remat": Member(lambda: layers.remat(layers.recurrent(_lstm()))),
    "stack": Member(
        lambda: layers.stack(
            layers.recurrent(_elman()),
            layers.recurrent(cells.gru(4, 3)),
            layers.dense(3, 2),
        )
    ),
    "residual": Member(lambda: layers.residual(layers.recurrent(cells.gru(3, 3)))),
    "dense": Member(lambda: layers.dense(3, 4)),
    "embedding": Member(lambda: layers.embedding(5, 3), _symbols(5)),
    "layer_norm": Member(lambda: layers.layer_norm(3)),
    "dropout": Member(
        lambda: layers.stack(
            layers.dropout(0.3),
            layers.recurrent(_elman()),
            layers.variational_dropout(0.3, 4),
        )
    ),
    "with_loss": Member(
        lambda: layers.with_loss(layers.recurrent(_elman()), objectives.squared_error),
        targets=4,
    ),
    "character model": Member(
        lambda: layers.remat(
            layers.with_loss(
                layers.stack(
                    layers.embedding(5, 3),
                    layers.recurrent(_lstm()),
                    layers.dense(4, 5),
                ),
                objectives.softmax_cross_entropy,
            )
        ),
        _symbols(5),
        targets=_symbols(5),
    ),
}

UNROLLS: dict[str, Member] = {
    "bptt": Member(_elman),
    "reverse(bptt)": Member(
        _elman,
        options=dict(
            unroll=unrolls.reverse(unrolls.bptt), plain=unrolls.reverse(unrolls.scan)
        ),
    ),
}
