"""Memory of a gradient by XLA's own account, in units of T·B·H floats. Nothing runs.

The account is exact and the same at every compilation, so these are equalities with some
room: a term that returns shows. `benchmarks/memory.py` prints the figures.
"""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from bptt_jax import Layer, Side, cells, layers, loops, models, objectives, unrolls
from bptt_jax._jax import enable_x64
from support import tiers, xla
from support.compiled import hlo_as_users
from support.members import UNROLLS

pytestmark = hlo_as_users

B, T, I, H = 64, 256, 128, 256
SYMBOLS, EMBEDDING = 82, 64
LIMITS = dict(lstm=4.0, gru=3.0, elman=2.5)
OLDER = dict(lstm=4.3, gru=3.2, elman=3.2)
SIDES_COST = 0.05
LONGER = [pytest.param(name, marks=pytest.mark.slow) for name in ("lstm", "gru")]


@pytest.fixture(autouse=True, scope="module")
def float64():
    """Here in float32, as in training."""
    with enable_x64(False):
        yield


def temp(f, *arguments) -> int:
    """Bytes."""
    compiled = jax.jit(f).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def gradient(unrolled, cell, sizes=(B, T, I), side=Side()) -> int:
    """Bytes of the value and the gradient with respect to parameters and inputs."""
    batch, steps, n_in = sizes
    params = jax.eval_shape(cell.init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((steps, batch, n_in), jnp.float32)

    def loss(params, xs, side):
        _, ys = unrolled(params, cell.init_carry(params, (batch,)), xs, side)
        return (ys**2).sum()

    return temp(jax.value_and_grad(loss, (0, 1)), params, xs, side)


@functools.cache
def units(
    name: str,
    unroll=unrolls.bptt,
    lean=False,
    steps=T,
    flags=(),
    save=layers.STATES,
    loop=loops.step_by_step,
) -> float:
    cell = getattr(cells, name)(I, H)
    layer = layers.recurrent(cell, save=save, loop=loop)
    layer = layers.remat(layer) if lean else layer
    side = Side(**{f: jax.ShapeDtypeStruct((steps, B), bool) for f in flags})
    unrolled = functools.partial(unroll, layer)
    return gradient(unrolled, cell, (B, steps, I), side) / (4 * steps * B * H)


@pytest.mark.parametrize("name", LIMITS)
def test_a_layer(name):
    assert units(name) <= (OLDER if xla.COPIES else LIMITS)[name]


OF_A_KERNEL = [
    *((name, layers.STATES) for name in LIMITS),
    ("lstm", layers.GATES),
    ("gru", layers.some_gates("r", "z")),
]
FAST_OF_A_KERNEL = {  # each cell, and each of what is kept with and without
    *(("elman", layers.STATES, True), ("lstm", layers.STATES, False)),
    *(("lstm", layers.GATES, True), ("gru", layers.some_gates("r", "z"), False)),
}


def _of_a_kernel(*at) -> list:
    return [] if at in FAST_OF_A_KERNEL else [pytest.mark.release]


@pytest.mark.parametrize(
    ("name", "save", "flagged"),
    [
        pytest.param(*at, flagged, marks=_of_a_kernel(*at, flagged))
        for at in OF_A_KERNEL
        for flagged in (False, True)
    ],
    ids=repr,
)
def test_a_kernel_takes_no_more(name, save, flagged):
    """For all of time, and with masks and resets, too; of what is kept by the rule."""
    flags = ("mask", "resets") if flagged else ()
    stepwise = units(name, save=save, flags=flags)
    native = units(name, save=save, flags=flags, loop=loops.native)
    assert native <= stepwise + 0.1


@pytest.mark.parametrize(
    ("name", "gates"),
    [tiers.slow(at, at[0] != "gru") for at in dict(lstm=4, gru=4, elman=0).items()],
)
def test_what_is_kept_beside_the_states(name, gates):
    """Four numbers a unit of a gated cell; an Elman cell's gate is its output."""
    states, kept = units(name), units(name, save=layers.GATES)
    assert states + gates - 0.3 <= kept <= states + gates + 0.3
    again = units(name, lean=True, save=None)
    assert units(name, save=layers.NOTHING) == pytest.approx(again, rel=1e-4)


TWO_GATES = layers.some_gates("r", "z")


def test_by_the_rule_an_lstm_keeps_its_gates_and_a_gru_two_of_them():
    assert units("lstm", save=None) == units("lstm", save=layers.GATES)
    assert units("gru", save=None) == units("gru", save=TWO_GATES)
    assert units("elman", save=None) == units("elman")


def test_two_gates_of_a_gru_are_two_numbers_a_unit():
    assert units("gru", save=TWO_GATES) == pytest.approx(units("gru") + 2, abs=0.3)


@pytest.mark.parametrize(
    ("name", "theirs"), dict(lstm=nn.OptimizedLSTMCell, gru=nn.GRUCell).items()
)
def test_the_rule_holds_the_memory_below_six_tenths_of_flax(name, theirs):
    """At the shape where gates are kept; the others are in `benchmarks/run.py`'s table."""
    rnn = nn.RNN(theirs(H), time_major=True)
    xs = jax.ShapeDtypeStruct((T, B, I), jnp.float32)
    params = jax.eval_shape(rnn.init, jax.random.key(0), xs)
    limit = 0.6 * temp(
        jax.value_and_grad(lambda p, xs: (rnn.apply(p, xs) ** 2).sum(), (0, 1)),
        params,
        xs,
    )
    assert units(name, save=None) * 4 * T * B * H <= limit


def test_a_layer_that_runs_again():
    assert units("lstm", lean=True) <= (3.3 if xla.COPIES else 2.6)


OF_UNROLLS = {"reverse(bptt)": 3.7}
"""More than `bptt`: what it reads and gives is there a second time, turned."""


@functools.cache
def through(name: str, flags=()) -> float:
    """Of an Elman layer through an unroll of the library."""
    layer, lean = UNROLLS[name].make(), name == "bptt, remat"
    assert lean == isinstance(layer, Layer)
    return units("elman", UNROLLS[name].unroll, lean, flags=flags)


def limit(name) -> float:
    """No more than `bptt` may."""
    return OF_UNROLLS.get(name, LIMITS["elman"]) + xla.COPIES


@pytest.mark.parametrize("name", UNROLLS)
def test_an_unroll_with_masks_and_resets(name):
    assert through(name, ("mask", "resets")) <= limit(name) + SIDES_COST


@pytest.mark.slow
@pytest.mark.parametrize("name", UNROLLS)
def test_an_unroll(name):
    """In the fast tier `bptt` alone: it is the layer's."""
    assert through(name) <= limit(name)


@pytest.mark.parametrize("name", ["elman", *LONGER])
def test_the_plain_loop_takes_more(name):
    """What the limits are measured by is not small by itself."""
    assert units(name, unrolls.scan) > 1.5 * LIMITS[name]


@pytest.mark.parametrize("name", ["elman", *LONGER])
def test_masks_and_resets_cost_nothing(name):
    with_both = units(name, flags=("mask", "resets"))
    assert with_both <= units(name) + SIDES_COST


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["mask", "resets"])
@pytest.mark.parametrize(
    "name",
    ["lstm", *(pytest.param(n, marks=pytest.mark.release) for n in ("gru", "elman"))],
)
def test_each_of_them_costs_nothing(name, flag):
    assert units(name, flags=(flag,)) <= units(name) + SIDES_COST


@pytest.mark.slow
def test_a_length_without_divisors():
    """A prime: the last stretch is a shorter one, joined to the others."""
    assert units("lstm", steps=251) <= 4.9 + xla.COPIES


@pytest.mark.parametrize(("lean", "limit"), [(False, 4.0), (True, 1.0)])
def test_a_character_model_with_its_loss(lean, limit):
    model = models.symbols(SYMBOLS, EMBEDDING, (cells.lstm(EMBEDDING, H),), SYMBOLS, H)
    model = layers.with_options(model, save=layers.STATES)
    layer = layers.with_loss(model, objectives.softmax_cross_entropy)
    layer = layers.remat(layer) if lean else layer
    params = jax.eval_shape(layer.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((T, B), jnp.int32)

    def loss(params, tokens):
        carry, side = layer.init_carry(params, (B,)), Side(targets=tokens)
        return unrolls.bptt(layer, params, carry, tokens, side)[1].sum()

    found = temp(jax.value_and_grad(loss), params, tokens) / (4 * T * B * H)
    assert found <= limit


@functools.cache
def large_vocabulary(symbols: int, steps: int) -> float:
    """In units of K·B·V floats."""
    K, batch, units = 8, 4, 16
    model = models.symbols(symbols, units, (cells.lstm(units, units),), symbols, units)
    layer = layers.with_loss(model, objectives.softmax_cross_entropy)
    params = jax.eval_shape(layer.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((steps, batch), jnp.int32)

    def loss(params, tokens):
        carry, side = layer.init_carry(params, (batch,)), Side(targets=tokens)
        return unrolls.bptt(layer, params, carry, tokens, side, chunk=K)[1].sum()

    found = temp(jax.value_and_grad(loss), params, tokens)
    return found / (4 * K * batch * symbols)


@pytest.mark.parametrize(
    "symbols", [5_000, pytest.param(50_000, marks=pytest.mark.slow)]
)
def test_logits_of_a_large_vocabulary_are_there_for_one_stretch(symbols):
    """They were there for all of time: T / K more."""
    short, long = (large_vocabulary(symbols, steps) for steps in (16, 128))
    assert long <= 4
    assert long <= short + 0.5


@functools.cache
def small(name: str, steps: int, unroll=unrolls.bptt) -> int:
    cell = getattr(cells, name)(8, 16)
    return gradient(functools.partial(unroll, cell), cell, (4, steps, 8))


@pytest.mark.slow
@pytest.mark.parametrize("name", UNROLLS)
def test_an_unroll_grows_no_faster_than_time(name):
    unroll = UNROLLS[name].unroll
    assert small("elman", 1000, unroll) <= 10.1 * small("elman", 100, unroll)


@pytest.mark.parametrize("steps", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["elman", *LONGER])
def test_grows_no_faster_than_time(name, steps):
    assert small(name, 10 * steps) <= 10.1 * small(name, steps)
