"""`interop.nnx.RNN` against `flax.nnx.RNN`, which shares no code with our backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bptt_jax import cells, unrolls
from bptt_jax.interop import nnx as interop
from support.compilations import compilations
from support.gradients import QUICK, pulled_back, worst

T, I, H = 5, 3, 4
F64 = dict(dtype=jnp.float64, param_dtype=jnp.float64)


class Decay(nnx.Module):
    """A cell of a user: two leaves of state, the output is none of them."""

    def __init__(self, n_in, n_hidden, *, rngs, rate=0.0, counts=False):
        self.dense = nnx.Linear(n_in, n_hidden, rngs=rngs, **F64)
        self.dropout = nnx.Dropout(rate, rngs=rngs) if rate else None
        self.mean = nnx.BatchStat(jnp.zeros((), jnp.float64)) if counts else None
        self.n_hidden = n_hidden

    def __call__(self, carry, x):
        slow, fast = carry
        if self.mean is not None:
            self.mean[...] = 0.9 * self.mean[...] + x.mean()
            x = x - self.mean[...]
        fast = self.dense(x) + 0.5 * fast
        slow = jnp.sin(slow + fast)
        y = slow * fast
        return (slow, fast), y if self.dropout is None else self.dropout(y)

    def initialize_carry(self, input_shape, rngs=None):
        shape = (*input_shape[:-1], self.n_hidden)
        return jnp.ones(shape), jax.random.normal(rngs(), shape)

    @property
    def num_feature_axes(self):
        return 1


class LeakyLinear(nnx.Linear):
    def __call__(self, xs, *args, **kwargs):
        return 0.5 * super().__call__(xs, *args, **kwargs)


def leaky(*, rngs):
    """A cell of flax in which a map has been exchanged."""
    cell = nnx.GRUCell(I, H, rngs=rngs, **F64)
    cell.dense_h = LeakyLinear(H, 3 * H, use_bias=False, rngs=rngs, **F64)
    return cell


def made(cell, **options):
    return functools.partial(cell, I, H, **F64, **options)


KNOWN = {
    "tanh": (made(nnx.SimpleCell), lambda **k: cells.elman(I, H, **k)),
    "relu, residual": (
        made(nnx.SimpleCell, activation_fn=nnx.relu, residual=True),
        lambda **k: cells.elman(I, H, activation=jax.nn.relu, **k),
    ),
    "lstm": (made(nnx.LSTMCell), lambda **k: cells.lstm(I, H, **k)),
    "fused lstm": (made(nnx.OptimizedLSTMCell), lambda **k: cells.lstm(I, H, **k)),
    "gru": (made(nnx.GRUCell), lambda **k: cells.gru(I, H, **k)),
}
OTHER = {
    "other gates": made(nnx.LSTMCell, gate_fn=nnx.hard_sigmoid),
    "not elementwise": made(nnx.SimpleCell, activation_fn=nnx.softmax),
    "another map inside": leaky,
    "own": functools.partial(Decay, I, H),
    "dropout": functools.partial(Decay, I, H, rate=0.5),
    "statistics": functools.partial(Decay, I, H, counts=True),
}
CELLS = {name: cell for name, (cell, _) in KNOWN.items()} | OTHER


def tiered(fast, others):
    """Parameters of a test: those of the fast tier, and the others."""
    return [*fast, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def filled(tree, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: 0.5 * rng.normal(size=a.shape).astype(a.dtype), tree)


@functools.cache
def cell_of(name):
    return CELLS[name](rngs=nnx.Rngs(0, dropout=1))


def at(name, batch=(2,), time_major=False):
    """Parameters with no zeros among them, an initial carry, and inputs."""
    cell = cell_of(name)
    params = filled(nnx.state(cell, nnx.Param))
    carry = cell.initialize_carry((*batch, I), nnx.RngStream(3, tag="carry"))
    xs = random(*((T, *batch, I) if time_major else (*batch, T, I)))
    return params, filled(carry, 2), xs


def raw(a):
    """Keys as the numbers they are made of."""
    is_key = jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(a) if is_key else jnp.asarray(a)


def gradients(module, name, arguments, post=lambda out: out, call=None, **options):
    """Outputs, state and gradients of parameters, carry and inputs, by name."""
    graph, _, rest = nnx.split(module(cell_of(name), **options), nnx.Param, ...)

    def f(params, carry, xs):
        rnn = nnx.merge(graph, dict_of_cell(params), nnx.clone(rest))
        out = post(rnn(xs, initial_carry=carry, **(call or {})))
        state = jax.tree.leaves(nnx.state(rnn.cell, nnx.Not(nnx.Param)))
        return out, [raw(a).astype(jnp.float64) for a in state]

    return pulled_back(f, *arguments, **QUICK)


def dict_of_cell(params):
    return nnx.State(dict(cell=params))


def difference(options, name, arguments, ours=None, post=lambda out: out, **call):
    """The worst of all outputs and gradients, of ours against flax's."""
    found = gradients(
        interop.RNN, name, arguments, post, call, **options, **(ours or {})
    )
    return worst(found, gradients(nnx.RNN, name, arguments, post, call, **options))


def spy(seen):
    def through(cell, params, carry, xs, side):
        seen.append(cell)
        return unrolls.bptt(cell, params, carry, xs, side)

    return through


@pytest.mark.parametrize(
    "name", tiered(["lstm", "gru"], ["tanh", "relu, residual", "fused lstm"])
)
def test_known_cells_have_the_hand_derived_backward(name):
    seen, options = [], dict(return_carry=True)
    found = difference(options, name, at(name), dict(through=spy(seen)))
    assert found[0] < 1e-10, found
    assert seen[0] is KNOWN[name][1](dtype=jnp.dtype("float64"))


@pytest.mark.parametrize(
    "name",
    tiered(
        ["another map inside", "dropout"],
        ["own", "other gates", "not elementwise", "statistics"],
    ),
)
def test_other_cells_have_the_generic_one(name):
    """Its state, the counts of random streams among it, ends as in flax."""
    seen, options = [], dict(return_carry=True)
    found = difference(options, name, at(name), dict(through=spy(seen)))
    assert found[0] < 1e-10, found
    named = {ours(dtype=jnp.dtype("float64")) for _, ours in KNOWN.values()}
    assert seen
    assert not named & set(seen)


def test_gates_in_another_order_are_seen(monkeypatch):
    swapped = interop._KNOWN[nnx.GRUCell]._replace(gates="zrn")
    monkeypatch.setitem(interop._KNOWN, nnx.GRUCell, swapped)
    assert difference({}, "gru", at("gru"))[0] > 1e-2


@pytest.mark.parametrize("batch", tiered([(2, 3)], [()]))
@pytest.mark.parametrize("time_major", tiered([False], [True]))
def test_layouts(batch, time_major):
    options = dict(
        time_major=time_major, reverse=not time_major, keep_order=bool(batch)
    )
    found = difference(
        options | dict(return_carry=True), "gru", at("gru", batch, time_major)
    )
    assert found[0] < 1e-10, found


LENGTHS = np.array([3, 5, 1])


def on_valid_steps(out):
    """Outputs that are real: the others count for nothing."""
    carry, ys = out
    return carry, jnp.where((np.arange(T) < LENGTHS[:, None])[..., None], ys, 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gru", dict(reverse=True, keep_order=True)),
        pytest.param("lstm", {}, marks=pytest.mark.slow),
        pytest.param("own", dict(reverse=True), marks=pytest.mark.slow),
        pytest.param("dropout", {}, marks=pytest.mark.slow),
    ],
)
def test_sequences_of_different_lengths(name, options):
    call = dict(seq_lengths=LENGTHS, return_carry=True, **options)
    found = difference({}, name, at(name, (3,)), post=on_valid_steps, **call)
    assert found[0] < 1e-10, found


def test_padding_is_not_read():
    params, carry, xs = at("lstm", (3,))
    real = (np.arange(T) < LENGTHS[:, None])[..., None]
    found = gradients(
        interop.RNN, "lstm", (params, carry, jnp.where(real, xs, np.nan)),
        call=dict(seq_lengths=LENGTHS),
    )  # fmt: skip
    assert all(np.isfinite(a).all() for a in found.values())
    np.testing.assert_array_equal(found["out[0]"][0, 2], found["out[0]"][0, 4])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dropout", "lstm"])
def test_any_unroll(name):
    arguments = at(name)
    reference = gradients(nnx.RNN, name, arguments)
    for through in (
        functools.partial(unrolls.bptt, chunk=2),
        functools.partial(unrolls.checkpointed, slots=2, chunk=2),
    ):
        found = gradients(interop.RNN, name, arguments, through=through, unroll=3)
        assert worst(found, reference)[0] < 1e-10


class Model(nnx.Module):
    def __init__(self, module, rngs):
        gru = nnx.GRUCell(I, H, rngs=rngs)
        self.both = module.Bidirectional(
            module.RNN(nnx.LSTMCell(I, H, rngs=rngs)), module.RNN(gru)
        )
        self.back = module.RNN(nnx.SimpleCell(2 * H, H, rngs=rngs), reverse=True)
        self.out = nnx.Linear(H, 1, rngs=rngs)

    def __call__(self, xs):
        return self.out(self.back(self.both(xs)))


def test_a_model_trains_as_with_flax():
    """State, initial values and `nnx.jit`, `nnx.grad` around it, in float32."""
    xs = random(2, T, I).astype("f")

    @nnx.jit
    def step(model):
        def loss(model):
            return (model(xs) ** 2).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        params = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))
        return value

    models = [Model(m, nnx.Rngs(0)) for m in (interop, nnx)]
    before = [nnx.state(model) for model in models]
    assert jax.tree.structure(before[0]) == jax.tree.structure(before[1])
    equal = lambda a, b: np.testing.assert_array_equal(raw(a), raw(b))
    jax.tree.map(equal, *before)
    values = [[float(step(model)) for _ in range(2)] for model in models]
    np.testing.assert_allclose(*values, rtol=1e-5)
    assert values[0][0] != values[0][1]
    close = lambda a, b: np.testing.assert_allclose(raw(a), raw(b), atol=1e-5)
    jax.tree.map(close, *(nnx.state(model) for model in models))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "dropout"])
def test_vmap_over_modules(name):
    """A module for each of two keys."""
    xs = random(2, 2, T, I)

    def run(module):
        @nnx.split_rngs(splits=2)
        @nnx.vmap
        def make(rngs):
            return module.RNN(CELLS[name](rngs=rngs))

        @nnx.jit
        @nnx.vmap
        def loss_and_grads(rnn, xs):
            value = lambda rnn: (rnn(xs) ** 2).sum()
            return nnx.value_and_grad(value)(rnn)

        rnn = make(nnx.Rngs(0))
        value, grads = loss_and_grads(rnn, xs)
        return (
            value,
            jax.tree.leaves(grads),
            [raw(a) for a in jax.tree.leaves(nnx.state(rnn))],
        )

    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, run(interop), run(nnx))


def test_initial_carry_and_streams_are_those_of_flax():
    """Drawn from the module's own stream, from one that is given, call after call."""
    cell = cell_of("own")
    ours, theirs = (m.RNN(cell, return_carry=True) for m in (interop, nnx))
    xs = random(2, T, I)
    for rngs in (
        {},
        {},
        dict(rngs=nnx.Rngs(7)),
        dict(rngs=nnx.RngStream(8, tag="carry")),
    ):
        a, b = (
            rnn(xs, **jax.tree.map(lambda x: x, rngs_of(rngs)))
            for rnn in (ours, theirs)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), a, b)
    assert int(ours.rngs.count[...]) == int(theirs.rngs.count[...]) == 2


def rngs_of(given):
    return {name: nnx.clone(stream) for name, stream in given.items()}


@pytest.mark.slow
def test_state_axes_of_your_own_are_flax_s():
    options = dict(state_axes=nnx.StateAxes({nnx.RngState: None, ...: nnx.Carry}))
    found = difference(options, "dropout", at("dropout"))
    assert found[0] < 1e-12, found
    with pytest.raises(ValueError, match="state_axes are given"):
        interop.RNN(cell_of("dropout"), **options, through=unrolls.checkpointed)(
            random(2, T, I)
        )
    seen = []
    rnn = interop.RNN(
        cell_of("gru"), state_axes=nnx.StateAxes({...: None}), through=spy(seen)
    )
    rnn(random(2, T, I))
    assert seen


def test_mixed_precision_is_that_of_flax():
    cell = nnx.LSTMCell(I, H, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    xs = random(2, T, I).astype("f")
    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = (m.RNN(cell)(xs) for m in (interop, nnx))
    assert ours.dtype == theirs.dtype == jnp.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_module_made_anew_is_not_compiled_anew():
    for name in ("lstm", "own"):
        _, carry, xs = at(name)
        make = lambda name=name: interop.RNN(CELLS[name](rngs=nnx.Rngs(0)))
        make()(xs, initial_carry=carry)
        rnn = make()
        with compilations() as again:
            rnn(2 * xs, initial_carry=carry)
        assert not again


class Learning(Decay):
    def __call__(self, carry, x):
        self.dense.bias[...] = self.dense.bias[...] + 1
        return super().__call__(carry, x)


def test_what_does_not_fit_is_named():
    xs = random(2, T, I)
    rnn = interop.RNN(cell_of("gru"))
    with pytest.raises(ValueError, match=r"seq_lengths: expected \[2\].*got \[3\]"):
        rnn(xs, seq_lengths=np.ones(3, int))
    with pytest.raises(ValueError, match=r"xs: expected \[T, ..., 3\]"):
        rnn(xs[..., :2])
    with pytest.raises(TypeError, match="chunk"):
        interop.RNN(cell_of("gru"), chunk=3)
    with pytest.raises(ValueError, match="Learning, which changes them"):
        interop.RNN(Learning(I, H, rngs=nnx.Rngs(0)))(xs)
