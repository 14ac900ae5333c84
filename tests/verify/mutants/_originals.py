"""The right members that mutants are made of, each with a narrow check of its own."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from bptt_jax import cells, layers, loops, objectives, unrolls
from bptt_jax.types import Side, Weighted
from bptt_jax.verify import CELLS, LAYERS, Member

NARROW = dict(lengths=(4,), chunks=(None,), batch_shapes=((2,),), sides=("plain",))
IN_STRETCHES = NARROW | dict(lengths=(5,), chunks=(2,))
OF_SEVEN = NARROW | dict(lengths=(7,), chunks=(2,))
BACKWARD = unrolls.reverse(unrolls.bptt), unrolls.reverse(unrolls.scan)


def with_side(make: Callable) -> Callable:
    """The unroll with `make(T, batch_shape) -> Side` for its side inputs."""

    def given(unroll):
        @functools.wraps(unroll)
        def run(layer, params, carry, xs, side=Side(), **options):
            del side
            side = make(xs.shape[0], xs.shape[1:-1])
            return unroll(layer, params, carry, xs, side, **options)

        return run

    return given


def _both(unroll, plain) -> dict:
    return dict(unroll=unroll, plain=plain)


def _keys(T, batch_shape):
    return Side(keys=jax.random.split(jax.random.key(3), T))


def _flags(T, batch_shape, *true):
    """Flags `[T, B]`, True at the given `(step, example)`."""
    made = np.zeros((T, *batch_shape), bool)
    for at in true:
        made[at] = True
    return made


def flags(T, batch_shape):
    """From either end one reset is before a step in the padding, one is not."""
    real = ~_flags(T, batch_shape, (1, 1), (2, 1))
    return Side(mask=real, resets=_flags(T, batch_shape, (2, 1), (3, 0)))


WITHOUT_KEYS = _both(unrolls.bptt, unrolls.scan)
KEYED = NARROW | _both(*map(with_side(_keys), (unrolls.bptt, unrolls.scan)))


def narrow(member: Member, options: dict = NARROW) -> Member:
    return member._replace(options=member.options | options)


def cell(make: Callable, inputs=3, options: dict = NARROW, reference=None) -> Member:
    return Member(make, inputs, reference, options=options)


def _features(key, T, batch_shape):
    return np.asarray(jax.random.normal(key, (T, *batch_shape, 3)))


def with_mask(key, T, batch_shape):
    """Two steps in the padding, NaN there."""
    real = ~_flags(T, batch_shape, (T - 1, 0), (1, 1))
    return np.where(real[..., None], _features(key, T, batch_shape), np.nan), real


def with_resets(key, T, batch_shape):
    return _features(key, T, batch_shape), _flags(T, batch_shape, (1, 0), (2, 1))


def with_both(key, T, batch_shape):
    """The first reset is before a step in the padding."""
    return with_mask(key, T, batch_shape), _flags(T, batch_shape, (1, 1), (2, 0))


def weighted(key, T, batch_shape):
    k_targets, k_weights = jax.random.split(key)
    return Weighted(
        jax.random.normal(k_targets, (T, *batch_shape, 4)),
        jax.random.uniform(k_weights, (T, *batch_shape)),
    )


def square_elman():
    return cells.elman(4, 4)


def noisy(dropout):
    """Dropout before a cell, which cleans what is in the padding."""
    return layers.stack(dropout, layers.recurrent(cells.elman(3, 4)))


ORIGINALS: dict[str, Member] = {
    "elman": narrow(CELLS["elman"]),
    "elman with two batch axes": narrow(
        CELLS["elman"], NARROW | dict(batch_shapes=((2, 2),))
    ),
    "elman, relu": narrow(CELLS["elman, relu"]),
    "elman in stretches": narrow(CELLS["elman"], IN_STRETCHES),
    "checkpointed": narrow(
        CELLS["elman"],
        OF_SEVEN
        | dict(
            lengths=(11,),
            unroll=functools.partial(unrolls.checkpointed, slots=2, kept=2),
        ),
    ),
    "truncated": narrow(
        CELLS["elman"],
        OF_SEVEN
        | dict(unroll=functools.partial(unrolls.truncated, window=8, stride=2)),
    ),
    "lstm": narrow(CELLS["lstm"]),
    "lstm in stretches": narrow(CELLS["lstm"], IN_STRETCHES),
    "lstm, peepholes": narrow(CELLS["lstm, peepholes"]),
    "lstm, projection": cell(
        lambda: cells.lstm(3, 4, projection=4),
        reference=CELLS["lstm, projection"].reference,
    ),
    "lstm, layer norm": narrow(CELLS["lstm, layer norm"]),
    "gru": narrow(CELLS["gru"]),
    "gru, reset before": narrow(CELLS["gru, reset before"]),
    "indrnn": narrow(CELLS["indrnn, tanh"]),
    "ctrnn": narrow(CELLS["ctrnn, learned tau"]),
    "ctrnn, currents": narrow(CELLS["ctrnn, currents"]),
    "mgu": narrow(CELLS["mgu"]),
    "from_step": narrow(CELLS["from_step"]),
    "masked": cell(lambda: cells.masked(cells.elman(3, 4)), with_mask),
    "resets": cell(lambda: cells.resets(cells.elman(3, 4)), with_resets),
    "resets of a learned carry": cell(
        lambda: cells.resets(cells.learned_carry(cells.elman(3, 4))), with_resets
    ),
    "resets and mask, reversed": cell(
        lambda: cells.resets(cells.masked(cells.elman(3, 4))),
        with_both,
        NARROW | _both(*BACKWARD),
    ),
    "zoneout": narrow(CELLS["zoneout"]),
    "zoneout with keys": cell(lambda: cells.zoneout(cells.elman(3, 4), 0.3), 3, KEYED),
    "reverse": narrow(
        CELLS["elman"]._replace(reference=None),
        IN_STRETCHES | _both(*map(with_side(flags), BACKWARD)),
    ),
    "lstm, gates kept": cell(
        lambda: layers.recurrent(cells.lstm(3, 4), save=layers.GATES)
    ),
    "gru, coefficients kept": cell(
        lambda: layers.recurrent(cells.gru(3, 4), save=layers.COEFFICIENTS)
    ),
    "elman, in a loop": cell(
        lambda: layers.recurrent(cells.elman(3, 4), loop=loops.step_by_step)
    ),
    "stack": cell(
        lambda: layers.stack(*[layers.recurrent(square_elman())] * 2), inputs=4
    ),
    "residual": cell(lambda: layers.residual(layers.recurrent(cells.elman(3, 3)))),
    "dense": narrow(LAYERS["dense"]),
    "embedding": narrow(LAYERS["embedding"]),
    "with_loss": cell(
        lambda: layers.with_loss(
            layers.recurrent(cells.elman(3, 4)), objectives.squared_error
        )
    )._replace(targets=weighted),
    "with_losses": cell(
        lambda: layers.with_losses(
            layers.recurrent(cells.elman(3, 4)), objectives.squared_error
        )
    )._replace(targets=weighted),
    "remat": narrow(LAYERS["remat"]),
    "dropout": cell(lambda: noisy(layers.dropout(0.3)), 3, KEYED),
    "variational_dropout": cell(
        lambda: noisy(layers.variational_dropout(0.3, 3)),
        3,
        KEYED | dict(lengths=(5,), chunks=(2,)),
    ),
}
