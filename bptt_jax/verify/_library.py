"""The members of the library, one entry each: what it offers, ready to be checked.

`bptt-jax check`, the contract tests and `bptt-jax train --cell` read these tables and
have none of their own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import cells, layers, loops, objectives, unrolls, wholes
from bptt_jax.types import Cell, Layer, Sections, Unroll, Weighted
from bptt_jax.verify import _numpy_cells as in_numpy
from bptt_jax.verify._check import check
from bptt_jax.verify._report import Report


class Member(NamedTuple):
    """A cell, a layer, an unroll or a whole with what `check` has to know of it.

    make: `() -> cell, layer or sections` (made when asked for: importing stays cheap); that
        of a cell takes its number of hidden units, too.
    inputs, targets, reference, options: as `check` takes them; an unroll is an option.
    trained: `(n_in, n_hidden) -> cell`, what `bptt-jax train --cell` makes by this name;
        None: it is not offered there.
    alike: the member from which this one differs in nothing but how its parameters are
        made; `bptt-jax check` leaves it out.
    part_of: a member that has this one in it, or nearly so; `check --quick` leaves it out.
    """

    make: Callable[..., Cell | Layer | Sections]
    inputs: int | Callable | None = 3
    reference: Callable | None = None
    targets: int | Callable | None = None
    options: dict[str, Any] = {}
    trained: Callable[[int, int], Cell] | None = None
    alike: str = ""
    part_of: str = ""

    @property
    def unroll(self) -> Unroll:
        return self.options.get("unroll", unrolls.bptt)

    @property
    def plain(self) -> Unroll:
        """The loop that JAX differentiates, of which `unroll` is the same."""
        return self.options.get("plain", unrolls.scan)


def _cell(make: Callable[[int, int], Cell], reference=None, **more) -> Member:
    """A kind of cell that is trained by its name."""
    return Member(lambda n=4: make(3, n), 3, reference, trained=make, **more)


def check_member(name: str, member: Member, **options) -> Report:
    """`check` with the entries of a member; `options` come on top, but for side inputs that
    a member does not take.
    """
    given = {"name": name, **member.options, **options}
    if "sides" in member.options:
        takes = member.options["sides"]
        given["sides"] = tuple(s for s in given["sides"] if s in takes) or takes[-1:]
    return check(
        member.make(),
        member.inputs,
        reference=member.reference,
        targets=member.targets,
        **given,
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


def _by_name(key, T, batch_shape):
    """Features of two kinds, and symbols."""
    k_sound, k_light, k_sign = jax.random.split(key, 3)
    return dict(
        sound=jax.random.normal(k_sound, (T, *batch_shape, 3)),
        light=jax.random.normal(k_light, (T, *batch_shape, 2)),
        sign=_symbols(5)(k_sign, T, batch_shape),
    )


def _weighted(key, T, batch_shape):
    k_goals, k_weights = jax.random.split(key)
    goals = jax.random.normal(k_goals, (T, *batch_shape, 4))
    return Weighted(goals, jax.random.uniform(k_weights, (T, *batch_shape)))


def _leaky_step(p, h, x):  # the output is no leaf of the state
    h = 0.9 * h + jnp.tanh(x @ p["w"] + h @ p["r"])
    y = h[..., :2]
    return h, y * p["scale"].reshape((1,) * (y.ndim - 1) + (2,))


def _leaky_init(n, key):
    k_w, k_r = jax.random.split(key)
    return dict(
        w=jax.random.normal(k_w, (3, n)),
        r=jax.random.normal(k_r, (n, n)) / 2,
        scale=jnp.ones(2),
    )


def _leaky_carry(n, params, batch_shape):
    return jnp.zeros((*batch_shape, n), params["w"].dtype)


def _leaky(n: int = 4) -> Cell:
    return cells.from_step(
        _leaky_step, partial(_leaky_init, n), partial(_leaky_carry, n)
    )


def _scale_init(key):
    return jax.random.normal(key, (3,))


def _scaled(scale, xs):
    return jnp.sin(scale.reshape((1,) * (xs.ndim - 1) + scale.shape) * xs)


def _gated_sum(n: int = 4) -> Cell:
    """s_t = a ⊙ s_{t-1} + x_t w, an affine step of units that do not see each other."""
    return cells.from_parts(
        partial(_sum_init, n),
        _sum_carry,
        project=_sum_project,
        forward=_sum_forward,
        linearize=_sum_linearize,
        backward=_sum_backward,
        contract=_sum_contract,
        output=_itself,
        name="gated sum",
        pointwise=True,
        affine=True,
        couplings=_no_couplings,
    )


def _itself(s):
    return s


def _no_couplings(f, p):
    del f
    return p


def _per_unit(like, a):
    return a.reshape((1,) * (like.ndim - 1) + a.shape)


def _sum_init(n, key):
    k_w, k_a = jax.random.split(key)
    return dict(w=jax.random.normal(k_w, (3, n)), a=jax.random.uniform(k_a, (n,)))


def _sum_carry(p, batch_shape):
    return jnp.zeros((*batch_shape, *p["a"].shape), p["a"].dtype)


def _sum_project(p, xs):
    return xs @ p["w"]


def _sum_forward(p, s, u):
    s = _per_unit(s, p["a"]) * s + u
    return s, s


def _sum_linearize(p, ss, us, nexts):
    del p, ss, us, nexts
    return ()


def _sum_backward(p, coeffs, d_s, d_y):
    del coeffs
    d = d_s + d_y
    return _per_unit(d, p["a"]) * d, d


def _sum_contract(p, xs, ss, coeffs, ds):
    del coeffs
    steps = tuple(range(ds.ndim - 1))
    _, back = jax.vjp(_sum_project, p, xs)  # which names shardings by itself
    d_p, d_xs = back(ds)
    return d_p | dict(a=(ss * ds).sum(steps)), d_xs


CELLS: dict[str, Member] = {
    "elman": _cell(cells.elman, in_numpy.elman()),
    "elman, relu": Member(
        lambda n=4: cells.elman(3, n, activation=jax.nn.relu),
        reference=in_numpy.elman(in_numpy.relu),
    ),
    "elman, softplus": Member(
        lambda n=4: cells.elman(3, n, activation=jax.nn.softplus),
        reference=in_numpy.elman(in_numpy.softplus),
        part_of="elman",
    ),
    "irnn": _cell(
        partial(
            cells.elman,
            activation=jax.nn.relu,
            recurrent_kernel_init=cells.identity,
        ),
        alike="elman, relu",
    ),
    "indrnn": _cell(cells.indrnn, in_numpy.indrnn()),
    "indrnn, tanh": Member(
        lambda n=4: cells.indrnn(3, n, activation=jnp.tanh),
        reference=in_numpy.indrnn(np.tanh),
        part_of="indrnn",
    ),
    "ctrnn": _cell(cells.ctrnn, in_numpy.ctrnn(), part_of="ctrnn, learned tau"),
    "ctrnn, learned tau": Member(
        lambda n=4: cells.ctrnn(3, n, learn_tau=True), 3, in_numpy.ctrnn()
    ),
    "ctrnn, currents": Member(
        lambda n=4: cells.ctrnn(3, n, rate_state=False),
        reference=in_numpy.ctrnn(rate_state=False),
        part_of="ctrnn, currents, learned tau",
    ),
    "ctrnn, currents, learned tau": Member(
        lambda n=4: cells.ctrnn(3, n, rate_state=False, learn_tau=True),
        reference=in_numpy.ctrnn(rate_state=False),
    ),
    "lstm": _cell(cells.lstm, in_numpy.lstm()),
    "lstm, float64": Member(
        lambda n=4: cells.lstm(3, n, param_dtype=jnp.float64), alike="lstm"
    ),
    "lstm, chrono": Member(lambda n=4: cells.lstm(3, n, chrono=20), alike="lstm"),
    "lstm, peepholes": Member(
        lambda n=4: cells.lstm(3, n, peepholes=True),
        reference=in_numpy.lstm_variant(peepholes=True),
        part_of="lstm, all options",
    ),
    "lstm, projection": Member(
        lambda n=4: cells.lstm(3, n, projection=1 + n // 3),
        reference=in_numpy.lstm_variant(projection=True),
        part_of="lstm, all options",
    ),
    "lstm, layer norm": Member(
        lambda n=4: cells.lstm(3, n, layer_norm=True),
        reference=in_numpy.lstm_variant(layer_norm=True),
        part_of="lstm, all options",
    ),
    "lstm, all options": Member(
        lambda n=4: cells.lstm(
            3, n, peepholes=True, projection=1 + n // 3, layer_norm=True
        ),
        reference=in_numpy.lstm_variant(True, True, True),
    ),
    "gru": _cell(cells.gru, in_numpy.gru()),
    "gru, chrono": Member(lambda n=4: cells.gru(3, n, chrono=20), alike="gru"),
    "gru, reset before": Member(
        lambda n=4: cells.gru(3, n, reset_after=False),
        3,
        in_numpy.gru(reset_after=False),
    ),
    "mgu": _cell(cells.mgu, in_numpy.mgu()),
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
        part_of="zoneout, lstm",
    ),
    "zoneout, lstm": Member(
        lambda n=4: cells.zoneout(cells.lstm(3, n), cells.LSTMCarry(h=0.1, c=0.4)),
        reference=in_numpy.zoneout_of_lstm(0.1, 0.4),
    ),
    "from_step": Member(_leaky, reference=in_numpy.leaky()),
    "from_parts": Member(_gated_sum, reference=in_numpy.gated_sum()),
}


COMBINED: dict[str, Member] = {
    "elman, sigmoid": Member(lambda: cells.elman(3, 4, activation=jax.nn.sigmoid)),
    "indrnn, softplus": Member(lambda: cells.indrnn(3, 4, activation=jax.nn.softplus)),
    "ctrnn, relu": Member(lambda: cells.ctrnn(3, 4, activation=jax.nn.relu)),
    "ctrnn, currents, softplus": Member(
        lambda: cells.ctrnn(
            3, 4, rate_state=False, learn_tau=True, activation=jax.nn.softplus
        )
    ),
    "lstm, gate axis": Member(lambda: cells.lstm(3, 4, gate_axis=True)),
    "gru, gate axis": Member(lambda: cells.gru(3, 4, gate_axis=True)),
    "gru, reset before, gate axis": Member(
        lambda: cells.gru(3, 4, gate_axis=True, reset_after=False)
    ),
    "lstm, peepholes, projection": Member(
        lambda: cells.lstm(3, 4, peepholes=True, projection=2)
    ),
    "lstm, peepholes, layer norm": Member(
        lambda: cells.lstm(3, 4, peepholes=True, layer_norm=True)
    ),
    "lstm, projection, layer norm": Member(
        lambda: cells.lstm(3, 4, projection=2, layer_norm=True)
    ),
    "zoneout of zoneout": Member(
        lambda: cells.zoneout(cells.zoneout(cells.elman(3, 4), 0.3), 0.2)
    ),
    "zoneout of learned_carry": Member(
        lambda: cells.zoneout(cells.learned_carry(cells.gru(3, 4)), 0.2)
    ),
    "learned_carry of zoneout": Member(
        lambda: cells.learned_carry(
            cells.zoneout(
                cells.lstm(3, 4, peepholes=True, projection=2, layer_norm=True), 0.2
            )
        )
    ),
    "zoneout of from_step": Member(lambda: cells.zoneout(_leaky(), 0.2)),
    "zoneout of ctrnn": Member(
        lambda: cells.zoneout(cells.ctrnn(3, 4, rate_state=False), 0.2)
    ),
    "learned_carry of from_step": Member(lambda: cells.learned_carry(_leaky())),
    "in_dtype of learned_carry": Member(
        lambda: cells.in_dtype(cells.learned_carry(cells.mgu(3, 4)), jnp.float64)
    ),
}
"""Options and combinators together. `bptt-jax check` leaves them out: no part is new."""

_elman = partial(cells.elman, 3, 4)
_lstm = partial(cells.lstm, 3, 4)

LAYERS: dict[str, Member] = {
    "recurrent": Member(lambda: layers.recurrent(_lstm()), part_of="stack"),
    "recurrent, masked and reset by its inputs": Member(
        lambda: layers.recurrent(cells.masked(cells.resets(_elman()))),
        _flagged,
        part_of="stack",
    ),
    "recurrent, gates kept": Member(
        lambda: layers.recurrent(_lstm(), save=layers.GATES, loop=loops.step_by_step),
        reference=in_numpy.lstm(),
    ),
    "recurrent, some gates kept": Member(
        lambda: layers.recurrent(
            cells.gru(3, 4),
            save=layers.some_gates("r", "z"),
            loop=loops.step_by_step,
        ),
        reference=in_numpy.gru(),
    ),
    "recurrent, coefficients kept": Member(
        lambda: layers.recurrent(cells.gru(3, 4), save=layers.COEFFICIENTS),
        reference=in_numpy.gru(),
    ),
    "recurrent, nothing kept": Member(
        lambda: layers.recurrent(_elman(), save=layers.NOTHING),
        reference=in_numpy.elman(),
        part_of="character model",
    ),
    "with_options": Member(
        lambda: layers.with_options(
            layers.stack(
                _elman(), layers.residual(cells.gru(4, 4)), layers.dense(4, 2)
            ),
            save=layers.GATES,
        )
    ),
    "remat": Member(
        lambda: layers.remat(layers.recurrent(_lstm())), part_of="character model"
    ),
    "stack": Member(
        lambda: layers.stack(
            layers.recurrent(_elman()),
            layers.recurrent(cells.gru(4, 3)),
            layers.dense(3, 2),
        )
    ),
    "residual": Member(lambda: layers.residual(layers.recurrent(cells.gru(3, 3)))),
    "residual, parts by names": Member(
        lambda: layers.residual(last=cells.elman(3, 4), first=layers.dense(4, 3))
    ),
    "time_distributed": Member(lambda: layers.time_distributed(_scale_init, _scaled)),
    "inputs": Member(
        lambda: layers.inputs(
            sound=_elman(), sign=layers.embedding(5, 2), light=cells.gru(2, 3)
        ),
        _by_name,
    ),
    "inputs, summed": Member(
        lambda: layers.inputs(
            layers.summed,
            sound=_elman(),
            light=layers.dense(2, 4),
            sign=layers.embedding(5, 4),
        ),
        _by_name,
        part_of="inputs",
    ),
    "dense": Member(lambda: layers.dense(3, 4), part_of="stack"),
    "embedding": Member(
        lambda: layers.embedding(5, 3), _symbols(5), part_of="character model"
    ),
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
        part_of="with_loss, weighted",
    ),
    "with_loss, weighted": Member(
        lambda: layers.with_loss(layers.recurrent(_elman()), objectives.squared_error),
        targets=_weighted,
    ),
    "with_losses": Member(
        lambda: layers.with_losses(
            layers.recurrent(_elman()), objectives.squared_error
        ),
        targets=_weighted,
        part_of="with_loss, weighted",
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
    "bptt": Member(_elman, reference=in_numpy.elman(), part_of="elman"),
    "bptt, remat": Member(
        lambda: layers.remat(layers.recurrent(_elman())),
        reference=in_numpy.elman(),
        part_of="character model",
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

_IN_A_ROW = "both directions, attention, a pool"
_ONE_SEQUENCE: dict[str, Any] = dict(sides=("plain", "mask"))
"""A pool makes one output of a row, which resets would make several sequences of."""

WHOLES: dict[str, Member] = {
    "bidirectional": Member(
        lambda: layers.sections(
            _elman(),
            wholes.bidirectional(cells.gru(4, 3), cells.elman(4, 3)),
            layers.dense(6, 2),
        ),
        part_of=_IN_A_ROW,
    ),
    _IN_A_ROW: Member(
        lambda: layers.sections(
            wholes.bidirectional(cells.gru(3, 2)),
            wholes.attention(4, 2),
            wholes.attention_pool(4, 5),
            layers.dense(4, 2),
        ),
        options=_ONE_SEQUENCE,
    ),
    "ends": Member(
        lambda: layers.sections(
            wholes.ends(cells.learned_carry(_lstm())), layers.dense(8, 2)
        ),
        options=_ONE_SEQUENCE,
        part_of=_IN_A_ROW,
    ),
    "last": Member(
        lambda: layers.sections(cells.gru(3, 4), wholes.last(), layers.dense(4, 2)),
        options=_ONE_SEQUENCE,
        part_of=_IN_A_ROW,
    ),
    "mean": Member(
        lambda: layers.sections(cells.gru(3, 4), wholes.mean(), cells.elman(4, 2)),
        options=_ONE_SEQUENCE,
        part_of=_IN_A_ROW,
    ),
    "attention_pool": Member(
        lambda: layers.sections(
            cells.gru(3, 4), wholes.attention_pool(4, 5), layers.dense(4, 2)
        ),
        options=_ONE_SEQUENCE,
        part_of=_IN_A_ROW,
    ),
    "attention": Member(
        lambda: layers.sections(
            layers.stack(cells.gru(3, 4), layers.dense(4, 4)),
            wholes.attention(4, 2),
            cells.elman(4, 3),
        ),
        part_of=_IN_A_ROW,
    ),
}
"""Functions of a whole sequence, in models of sections. The values of one are those of its
formula, written once more in `tests/support/wholes.py`; its gradient is that of differences.
"""
