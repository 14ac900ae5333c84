"""What the library offers, ready to be checked: one line a member.

The contract tests run over these tables, and so does `bptt-jax check`.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import cells, layers, objectives, unrolls
from bptt_jax.types import Cell, Layer, Weighted
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


def _flagged(key, T, batch_shape):
    """Inputs of a cell that is masked and reset by what it is given."""
    k_x, k_real, k_reset = jax.random.split(key, 3)
    shape = (T, *batch_shape)
    xs = jax.random.normal(k_x, (*shape, 3))
    resets = jax.random.bernoulli(k_reset, 0.3, shape)
    return (xs, resets), jax.random.bernoulli(k_real, 0.7, shape)


def _weighted(key, T, batch_shape):
    k_goals, k_weights = jax.random.split(key)
    goals = jax.random.normal(k_goals, (T, *batch_shape, 4))
    return Weighted(goals, jax.random.uniform(k_weights, (T, *batch_shape)))


def _leaky_step(p, h, x):  # the output is no leaf of the state
    h = 0.9 * h + jnp.tanh(x @ p["w"] + h @ p["r"])
    y = h[..., :2]
    return h, y * jnp.broadcast_to(p["scale"], y.shape)


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
    "indrnn": Member(lambda n=4: cells.indrnn(3, n), 3, in_numpy.indrnn()),
    "indrnn, tanh": Member(
        lambda n=4: cells.indrnn(3, n, activation=jnp.tanh),
        reference=in_numpy.indrnn(np.tanh),
    ),
    "ctrnn": Member(lambda n=4: cells.ctrnn(3, n), 3, in_numpy.ctrnn()),
    "ctrnn, learned tau": Member(
        lambda n=4: cells.ctrnn(3, n, learn_tau=True), 3, in_numpy.ctrnn()
    ),
    "ctrnn, currents": Member(
        lambda n=4: cells.ctrnn(3, n, rate_state=False),
        reference=in_numpy.ctrnn(rate_state=False),
    ),
    "ctrnn, currents, learned tau": Member(
        lambda n=4: cells.ctrnn(3, n, rate_state=False, learn_tau=True),
        reference=in_numpy.ctrnn(rate_state=False),
    ),
    "lstm": Member(lambda n=4: cells.lstm(3, n), 3, in_numpy.lstm()),
    "lstm, peepholes": Member(
        lambda n=4: cells.lstm(3, n, peepholes=True),
        reference=in_numpy.lstm_variant(peepholes=True),
    ),
    "lstm, projection": Member(
        lambda n=4: cells.lstm(3, n, projection=1 + n // 3),
        reference=in_numpy.lstm_variant(projection=True),
    ),
    "lstm, layer norm": Member(
        lambda n=4: cells.lstm(3, n, layer_norm=True),
        reference=in_numpy.lstm_variant(layer_norm=True),
    ),
    "lstm, all options": Member(
        lambda n=4: cells.lstm(
            3, n, peepholes=True, projection=1 + n // 3, layer_norm=True
        ),
        reference=in_numpy.lstm_variant(True, True, True),
    ),
    "gru": Member(lambda n=4: cells.gru(3, n), 3, in_numpy.gru()),
    "gru, reset before": Member(
        lambda n=4: cells.gru(3, n, reset_after=False),
        3,
        in_numpy.gru(reset_after=False),
    ),
    "mgu": Member(lambda n=4: cells.mgu(3, n), 3, in_numpy.mgu()),
    "mgu, as published": Member(
        lambda n=4: cells.mgu(3, n, as_published=True),
        reference=in_numpy.mgu_as_published(),
    ),
    "learned_carry": Member(
        lambda n=4: cells.learned_carry(cells.gru(3, n)), 3, in_numpy.learned_carry()
    ),
    "zoneout": Member(
        lambda n=4: cells.zoneout(cells.elman(3, n), 0.3),
        reference=in_numpy.zoneout_of_elman(0.3),
    ),
    "zoneout, lstm": Member(
        lambda n=4: cells.zoneout(cells.lstm(3, n), cells.LSTMCarry(h=0.1, c=0.4)),
        reference=in_numpy.zoneout_of_lstm(0.1, 0.4),
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
    "recurrent, masked and reset by its inputs": Member(
        lambda: layers.recurrent(cells.masked(cells.resets(_elman()))), _flagged
    ),
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
    "dropout, zoneout": Member(
        lambda: layers.stack(
            layers.dropout(0.3),
            layers.recurrent(cells.zoneout(_elman(), 0.2)),
            layers.variational_dropout(0.3, 4),
        )
    ),
    "with_loss": Member(
        lambda: layers.with_loss(layers.recurrent(_elman()), objectives.squared_error),
        targets=4,
    ),
    "with_loss, weighted": Member(
        lambda: layers.with_loss(layers.recurrent(_elman()), objectives.squared_error),
        targets=_weighted,
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
    "bptt": Member(_elman, reference=in_numpy.elman()),
    "bptt, remat": Member(
        lambda: layers.remat(layers.recurrent(_elman())), reference=in_numpy.elman()
    ),
    "both_modes": Member(
        _elman,
        reference=in_numpy.elman(),
        options=dict(unroll=unrolls.both_modes),
    ),
    "checkpointed": Member(
        _elman,
        reference=in_numpy.elman(),
        options=dict(unroll=partial(unrolls.checkpointed, slots=2)),
    ),
    "truncated, the whole as window": Member(
        _elman,
        reference=in_numpy.elman(),
        options=dict(unroll=partial(unrolls.truncated, window=2048)),
    ),
    "reverse(bptt)": Member(
        _elman,
        reference=in_numpy.backward_in_time(in_numpy.elman()),
        options=dict(
            unroll=unrolls.reverse(unrolls.bptt), plain=unrolls.reverse(unrolls.scan)
        ),
    ),
}
