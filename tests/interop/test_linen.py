"""`interop.linen.RNN` against `flax.linen.RNN`, which shares no code with our backward."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, loops, unrolls
from bptt_jax.interop import linen
from bptt_jax.interop.weights import LSTM
from support import hlo
from support.compilations import compilations
from support.compiled import hlo_as_users
from support.gradients import QUICK, pulled_back, quick_jit, worst

T, I, H = 5, 3, 4
NEW = dict(param_dtype=jnp.float64)  # of every cell


class Decay(nn.RNNCellBase):
    """A cell of a user: two leaves of state, the output is none of them."""

    features: int

    @nn.compact
    def __call__(self, carry, x):
        slow, fast = carry
        fast = nn.Dense(self.features, param_dtype=jnp.float64)(x) + 0.5 * fast
        slow = jnp.sin(slow + fast)
        return (slow, fast), slow * fast

    def initialize_carry(self, rng, input_shape):
        shape = (*input_shape[:-1], self.features)
        return jnp.ones(shape), jax.random.normal(rng, shape)

    @property
    def num_feature_axes(self):
        return 1


class Dropped(Decay):
    """It draws at each step."""

    @nn.compact
    def __call__(self, carry, x):
        carry, y = Decay(self.features, name="inner")(carry, x)
        return carry, nn.Dropout(0.5, deterministic=False)(y)


KNOWN = {
    "tanh": (nn.SimpleCell(H, **NEW), lambda **k: cells.elman(I, H, **k)),
    "relu, residual": (
        nn.SimpleCell(H, activation_fn=nn.relu, residual=True, **NEW),
        lambda **k: cells.elman(I, H, activation=jax.nn.relu, **k),
    ),
    "lstm": (nn.LSTMCell(H, **NEW), lambda **k: cells.lstm(I, H, **k)),
    "fused lstm": (nn.OptimizedLSTMCell(H, **NEW), lambda **k: cells.lstm(I, H, **k)),
    "gru": (nn.GRUCell(H, **NEW), lambda **k: cells.gru(I, H, **k)),
    "mgu": (nn.MGUCell(H, **NEW), lambda **k: cells.mgu(I, H, **k)),
}
OTHER = {
    "lstm, other gates": nn.LSTMCell(H, gate_fn=nn.hard_sigmoid, **NEW),
    "gru, other function": nn.GRUCell(H, activation_fn=nn.softplus, **NEW),
    "not elementwise": nn.SimpleCell(H, activation_fn=nn.softmax, **NEW),
    "mgu without reset": nn.MGUCell(H, reset_gate=False, **NEW),
    "own": Decay(H),
    "remat": nn.remat(nn.LSTMCell)(H, **NEW),
    "images": nn.ConvLSTMCell(2, kernel_size=(2,), **NEW),
}


def tiered(fast, others):
    """Parameters of a test: those of the fast tier, and the others."""
    return [*fast, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def inputs(cell, batch=(2,), time_major=False):
    features = (I,) if cell.num_feature_axes == 1 else (6, I)
    before, after = ((T,), batch) if time_major else (batch, (T,))
    return random(*before, *after, *features)


def filled(tree, seed=1):
    """Arrays of these shapes with no zeros among them; nothing is compiled for it."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: (0.5 * rng.normal(size=a.shape)).astype(a.dtype), tree
    )


def variables_of(module, xs, **call):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), xs, **call))
    return filled(nn.unbox(shapes))


def at(cell, xs, **options):
    """Variables, an initial carry, and inputs."""
    axis = 0 if options.get("time_major") else xs.ndim - cell.num_feature_axes - 1
    shape = xs.shape[:axis] + xs.shape[axis + 1 :]
    carry = jax.eval_shape(lambda: cell.initialize_carry(jax.random.key(2), shape))
    return variables_of(nn.RNN(cell, **options), xs), filled(carry, 2), xs


def gradients(module, cell, arguments, post=lambda out: out, call=None, **options):
    """Outputs and gradients of variables, carry and inputs, by name."""

    def f(variables, carry, xs):
        rnn = module(cell, **options)
        return post(rnn.apply(variables, xs, initial_carry=carry, **(call or {})))

    return pulled_back(f, *arguments, **QUICK)


def difference(options, cell, arguments, ours=None, post=lambda out: out, **call):
    """The worst of all outputs and gradients, of ours against flax's."""
    found = gradients(linen.RNN, cell, arguments, post, call, **options, **(ours or {}))
    return worst(found, gradients(nn.RNN, cell, arguments, post, call, **options))


def spy(seen):
    def through(cell, params, carry, xs, side):
        seen.append(cell)
        return unrolls.bptt(cell, params, carry, xs, side)

    return through


@pytest.mark.parametrize(
    "name", tiered(["lstm", "gru", "mgu"], ["tanh", "relu, residual", "fused lstm"])
)
def test_known_cells_have_the_hand_derived_backward(name):
    cell, ours = KNOWN[name]
    seen = []
    found = difference(
        dict(return_carry=True), cell, at(cell, inputs(cell)), dict(through=spy(seen))
    )
    assert found[0] < 1e-10, found
    assert seen[0] is ours(dtype=jnp.dtype("float64"))


@pytest.mark.parametrize(
    "name",
    tiered(["not elementwise", "own"], sorted({*OTHER} - {"not elementwise", "own"})),
)
def test_other_cells_have_the_generic_one(name):
    cell, seen = OTHER[name], []
    found = difference(
        dict(return_carry=True), cell, at(cell, inputs(cell)), dict(through=spy(seen))
    )
    assert found[0] < 1e-10, found
    named = {make(dtype=jnp.dtype("float64")) for _, make in KNOWN.values()}
    assert seen
    assert not named & set(seen)


@pytest.mark.parametrize("order", tiered(["ifog"], ["figo", "iofg"]))
def test_gates_in_another_order_are_seen(order, monkeypatch):
    swapped = linen._KNOWN[nn.LSTMCell]._replace(gates=order)
    monkeypatch.setitem(linen._KNOWN, nn.LSTMCell, swapped)
    cell = KNOWN["lstm"][0]
    assert difference({}, cell, at(cell, inputs(cell)))[0] > 1e-2


@hlo_as_users
@pytest.mark.parametrize("loop", [loops.step_by_step, loops.native], ids=repr)
def test_kernels_are_put_together_once_and_before_time(loop):
    cell = KNOWN["lstm"][0]
    variables, carry, xs = at(cell, inputs(cell))

    def loss(variables):
        rnn = linen.RNN(cell, through=functools.partial(unrolls.bptt, chunk=2))
        return (rnn.apply(variables, xs, initial_carry=carry) ** 2).sum()

    with loops.preferred(loop):
        compiled = jax.jit(jax.grad(loss)).lower(variables).compile()
    module = hlo.parse(compiled.as_text())
    in_loops = {i.name for body in bodies(module) for i in hlo.inside(module, body)}
    for kernel in ((I, 4 * H), (H, 4 * H)):
        found = [
            i.name
            for of in module.values()
            for i in of
            if i.op == "concatenate" and i.shapes == [kernel]
        ]
        assert 1 <= len(found) <= 1 + (loop is loops.native)  # once each way
        assert not set(found) & in_loops


def bodies(module: hlo.Module) -> list[str]:
    return [i.body for of in module.values() for i in of if i.body]


@pytest.mark.slow
def test_a_carry_the_wrong_way_round_is_seen(monkeypatch):
    _, give = linen._flax.CARRIES[LSTM]
    swapped = (lambda carry: cells.LSTMCarry(*carry), give)
    monkeypatch.setitem(linen._flax.CARRIES, LSTM, swapped)
    cell = KNOWN["lstm"][0]
    assert difference({}, cell, at(cell, inputs(cell)))[0] > 1e-2


@pytest.mark.parametrize("batch", tiered([(2, 3)], [(), (2,)]))
@pytest.mark.parametrize("time_major", tiered([False], [True]))
def test_layouts(batch, time_major):
    options = dict(
        time_major=time_major, reverse=not time_major, keep_order=bool(batch)
    )
    cell = KNOWN["lstm"][0]
    xs = inputs(cell, batch, time_major)
    arguments = at(cell, xs, **options)
    found = difference(options | dict(return_carry=True), cell, arguments)
    assert found[0] < 1e-10, found


LENGTHS = np.array([3, 5, 1])


def on_valid_steps(out):
    """Outputs that are real: the others count for nothing."""
    carry, ys = out
    real = np.arange(T) < LENGTHS[:, None]
    return carry, jnp.where(real.reshape(3, T, *(1,) * (ys.ndim - 2)), ys, 0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lstm", dict(reverse=True)),
        ("own", dict(reverse=True, keep_order=True)),
        pytest.param("lstm", {}, marks=pytest.mark.slow),
        pytest.param(
            "gru", dict(reverse=True, keep_order=True), marks=pytest.mark.slow
        ),
        pytest.param("images", dict(reverse=True), marks=pytest.mark.slow),
    ],
)
def test_sequences_of_different_lengths(name, options):
    """In the call, where they stand in for the attributes."""
    cell = KNOWN[name][0] if name in KNOWN else OTHER[name]
    arguments = at(cell, inputs(cell, (3,)))
    call = dict(seq_lengths=LENGTHS, return_carry=True, **options)
    found = difference({}, cell, arguments, post=on_valid_steps, **call)
    assert found[0] < 1e-10, found


@pytest.mark.parametrize("reverse", tiered([True], [False]))
def test_padding_is_not_read(reverse):
    cell = KNOWN["gru"][0]
    variables, carry, xs = at(cell, inputs(cell, (3,)))
    lengths = jnp.array([3, 5, 0])
    padded = jnp.where((np.arange(T) < lengths[:, None])[..., None], xs, np.nan)

    def loss(variables, xs):
        rnn = linen.RNN(cell, return_carry=True, reverse=reverse, keep_order=reverse)
        last, ys = rnn.apply(variables, xs, initial_carry=carry, seq_lengths=lengths)
        return (ys**2).sum(), (last, ys)

    gradient = quick_jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, (last, ys)), grads = gradient(variables, padded)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((last, ys, grads)))
    np.testing.assert_array_equal(ys[0, 3], ys[0, 4])
    np.testing.assert_array_equal(last[2], carry[2])
    np.testing.assert_array_equal(grads[1][0, 3:], 0)
    np.testing.assert_array_equal(last[0], ys[0, 0 if reverse else 2])


@pytest.mark.slow
def test_lengths_go_with_any_batch_axes():
    """Where flax has no answer: against sequences one by one, cut to their length."""
    cell = KNOWN["gru"][0]
    variables, _, xs = at(cell, inputs(cell, (2, 2)))
    lengths, rnn = np.array([[3, 5], [2, 4]]), linen.RNN(cell, return_carry=True)
    last, ys = rnn.apply(variables, xs, seq_lengths=lengths)
    for b in np.ndindex(2, 2):
        alone = nn.RNN(cell, return_carry=True).apply(variables, xs[b][: lengths[b]])
        np.testing.assert_allclose(last[b], alone[0], rtol=1e-12)
        np.testing.assert_allclose(ys[b][: lengths[b]], alone[1], rtol=1e-12)


class Model(nn.Module):
    """Cells made inside and outside, shared, in two directions."""

    RNN: type
    Bidirectional: type

    def setup(self):
        self.first = self.RNN(nn.LSTMCell(H, **NEW))

    @nn.compact
    def __call__(self, xs):
        xs = self.first(xs)
        gru = nn.GRUCell(H, **NEW)
        both = self.Bidirectional(self.RNN(gru), self.RNN(nn.MGUCell(H, **NEW)))
        ys = self.RNN(gru, reverse=True)(nn.Dense(H, param_dtype=jnp.float64)(both(xs)))
        return self.RNN(Decay(H))(ys)


Theirs = functools.partial(Model, nn.RNN, nn.Bidirectional)
Ours = functools.partial(Model, linen.RNN, linen.Bidirectional)


@pytest.mark.slow
def test_a_model_has_the_same_parameters_from_the_same_key_and_the_same_gradient():
    xs = random(2, T, H)
    theirs, ours = (quick_jit(m().init)(jax.random.key(0), xs) for m in (Theirs, Ours))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    f, g = (lambda v, xs, m=m: m().apply(v, xs) for m in (Ours, Theirs))
    found = worst(pulled_back(f, theirs, xs), pulled_back(g, theirs, xs))
    assert found[0] < 1e-10, found


@pytest.mark.parametrize("name", tiered(["lstm"], ["mgu", "own"]))
def test_initial_values(name):
    cell = KNOWN[name][0] if name in KNOWN else OTHER[name]
    xs, key = inputs(cell), jax.random.key(3)
    ours = quick_jit(linen.RNN(cell).init)(key, xs)
    theirs = quick_jit(nn.RNN(cell).init)(key, xs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
def test_the_initial_carry_is_drawn_as_in_flax():
    cell, key = nn.GRUCell(H, carry_init=nn.initializers.normal(), **NEW), None
    for key in (None, jax.random.key(5)):
        variables, _, xs = at(cell, inputs(cell))
        ours, theirs = (
            quick_jit(m.RNN(cell).apply)(variables, xs, init_key=key)
            for m in (linen, nn)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def lifted(RNN, kind):
    def make(*, name="rnn"):
        return RNN(nn.LSTMCell(H, parent=None, **NEW), name=name)

    if kind == "vmap":
        return nn.vmap(
            RNN, variable_axes=dict(params=0), split_rngs=dict(params=True), axis_size=2
        )(nn.LSTMCell(H, **NEW))
    if kind == "remat":
        return nn.remat(RNN)(nn.LSTMCell(H, **NEW))

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, xs):
            def layer(self, xs, _):
                return make()(xs), None

            over = nn.scan(
                layer, variable_axes=dict(params=0), split_rngs=dict(params=True)
            )
            return over(self, xs, jnp.arange(3))[0]

    return Layers()


@pytest.mark.parametrize("kind", tiered([], ["scan", "vmap", "remat"]))
def test_lifted_transformations(kind):
    xs = random(2, 2, T, H) if kind == "vmap" else random(2, T, H)
    theirs, ours = lifted(nn.RNN, kind), lifted(linen.RNN, kind)
    variables = variables_of(theirs, xs)
    jax.tree.map(np.testing.assert_array_equal, variables, variables_of(ours, xs))
    found = worst(
        pulled_back(ours.apply, variables, xs), pulled_back(theirs.apply, variables, xs)
    )
    assert found[0] < 1e-10, found


def test_dropout_inside_of_a_cell_draws_as_in_flax():
    options = dict(split_rngs=dict(params=False, dropout=True))
    cell, rngs = Dropped(H), dict(dropout=jax.random.key(7))
    variables, carry, xs = at(Decay(H), inputs(Decay(H)))
    variables = dict(params=dict(cell=dict(inner=variables["params"]["cell"])))
    found = difference(options, cell, (variables, carry, xs), rngs=rngs)
    assert found[0] < 1e-12, found
    with pytest.raises(ValueError, match="random numbers from 'dropout'"):
        linen.RNN(cell, **options, through=unrolls.checkpointed).apply(
            variables, xs, rngs=rngs
        )


class Counting(Decay):
    """It keeps a statistic."""

    @nn.compact
    def __call__(self, carry, x):
        n = self.variable("statistics", "n", lambda: jnp.zeros(()))
        if not self.is_initializing():
            n.value += x.sum()
        return Decay(self.features, name="inner")(carry, x * (1 + n.value))


def test_variables_that_change_are_flax_s():
    options = dict(variable_carry="statistics")
    xs = inputs(Decay(H))
    inner = variables_of(nn.RNN(Decay(H)), xs)["params"]["cell"]
    variables = dict(
        params=dict(cell=dict(inner=inner)),
        statistics=dict(cell=dict(n=jnp.zeros(()))),
    )
    ours, theirs = (
        m.RNN(Counting(H), **options).apply(variables, xs, mutable=["statistics"])
        for m in (linen, nn)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert ours[1]["statistics"]["cell"]["n"] != 0


@pytest.mark.slow
def test_parameters_of_each_step_are_flax_s():
    options = dict(
        variable_axes=dict(params=0), variable_broadcast=False,
        split_rngs=dict(params=True),
    )  # fmt: skip
    cell = KNOWN["gru"][0]
    found = difference(options, cell, at(cell, inputs(cell), **options))
    assert found[0] < 1e-12, found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "own"])
def test_forward_mode(name):
    cell = KNOWN[name][0] if name in KNOWN else OTHER[name]
    variables, carry, xs = at(cell, inputs(cell))

    @functools.partial(quick_jit, static_argnums=0)
    def tangent(rnn, *at):
        run = lambda v, c, xs: rnn.apply(v, xs, initial_carry=c)
        return jax.jvp(run, at, jax.tree.map(lambda a: a + 0.1, at))[1]

    arguments = jax.tree.map(jnp.asarray, (variables, carry, xs))
    ours = tangent(linen.RNN(cell, through=unrolls.both_modes), *arguments)
    np.testing.assert_allclose(
        ours, tangent(nn.RNN(cell), *arguments), rtol=1e-10, atol=1e-12
    )
    with pytest.raises(TypeError, match="forward-mode"):
        tangent(linen.RNN(cell), *arguments)


class Wrapper(nn.RNNCellBase):
    """Its inner cell may belong to another module."""

    inner: nn.Module

    def __call__(self, carry, x):
        return self.inner(carry, 2 * x)

    def initialize_carry(self, rng, input_shape):
        return self.inner.initialize_carry(rng, input_shape)

    @property
    def num_feature_axes(self):
        return 1


class Outside(nn.Module):
    RNN: type

    @nn.compact
    def __call__(self, xs):
        return self.RNN(Wrapper(nn.GRUCell(H, **NEW)))(xs)


def test_a_function_around_a_traced_value():
    """No argument of the step, so time is flax's own scan."""
    variables, _, xs = at(KNOWN["gru"][0], inputs(KNOWN["gru"][0]))

    def loss(scale, module, **options):
        cell = nn.GRUCell(H, activation_fn=lambda a: jnp.tanh(scale * a), **NEW)
        return module.RNN(cell, **options).apply(variables, xs).sum()

    ours, theirs = (
        quick_jit(jax.grad(functools.partial(loss, module=m)))(0.7) for m in (linen, nn)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert abs(ours) > 1e-3
    with pytest.raises(ValueError, match="closes over an array"):
        jax.grad(loss)(0.7, linen, through=unrolls.checkpointed)


@pytest.mark.slow
def test_a_cell_around_a_module_of_another():
    xs = random(2, T, I)
    variables = variables_of(Outside(nn.RNN), xs)
    ours, theirs = (quick_jit(Outside(m.RNN).apply)(variables, xs) for m in (linen, nn))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    own = Wrapper(nn.GRUCell(H, **NEW))
    seen = []
    found = difference({}, own, at(own, xs), dict(through=spy(seen)))
    assert found[0] < 1e-10, found
    assert seen


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "own"])
def test_any_unroll(name):
    cell = KNOWN[name][0] if name in KNOWN else OTHER[name]
    arguments, reference = at(cell, inputs(cell)), None
    for through in (
        unrolls.scan,
        functools.partial(unrolls.bptt, chunk=2),
        functools.partial(unrolls.checkpointed, slots=2, chunk=2),
    ):
        found = gradients(linen.RNN, cell, arguments, through=through, unroll=3)
        reference = reference or found
        assert worst(found, reference)[0] < 1e-12
    assert worst(reference, gradients(nn.RNN, cell, arguments))[0] < 1e-10


@pytest.mark.parametrize(
    ("options", "xs"),
    [
        (dict(dtype=jnp.bfloat16, param_dtype=jnp.float32), jnp.float32),
        (dict(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16), jnp.bfloat16),
        (dict(param_dtype=jnp.float32), jnp.bfloat16),
        (dict(dtype=jnp.float32), jnp.int32),
    ],
    ids=["mixed", "bfloat16", "inputs", "integers"],
)
@pytest.mark.parametrize("cell", tiered([nn.LSTMCell], [nn.GRUCell]))
def test_dtypes(cell, options, xs):
    """As flax rounds; where all is bfloat16 the order of sums is another one."""
    init = nn.initializers.lecun_normal()  # the default one knows no bfloat16
    cell = cell(H, recurrent_kernel_init=init, **options)
    xs = (3 * random(2, T, I)).astype(xs)
    with jax.numpy_dtype_promotion("standard"):
        variables = variables_of(nn.RNN(cell), xs)
        ours, theirs = (
            quick_jit(m.RNN(cell, return_carry=True).apply)(variables, xs)
            for m in (linen, nn)
        )
    same = jax.tree.map(
        lambda a, b: (a.dtype, a.shape) == (b.dtype, b.shape), ours, theirs
    )
    assert all(jax.tree.leaves(same)), same
    tolerance = 0.05 if options.get("param_dtype") == jnp.bfloat16 else 1e-6
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a.astype("d"), b.astype("d"), atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lambda cell: cell, Wrapper], ids=["known", "other"])
def test_boxed_parameters(kind):
    init = nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out"))
    cell = kind(nn.GRUCell(H, kernel_init=init, parent=None, **NEW))
    xs = inputs(cell)
    variables = quick_jit(nn.RNN(cell).init)(jax.random.key(0), xs)
    boxed = jax.tree.leaves(variables, is_leaf=lambda a: isinstance(a, nn.Partitioned))
    assert any(isinstance(a, nn.Partitioned) for a in boxed)
    ours, theirs = (quick_jit(m.RNN(cell).apply)(variables, xs) for m in (linen, nn))
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("name", ["lstm", "own"])
def test_a_module_made_anew_is_not_compiled_anew(name):
    cell = KNOWN[name][0] if name in KNOWN else OTHER[name]
    variables, _, xs = at(cell, inputs(cell))
    linen.RNN(cell.clone()).apply(variables, xs)
    with compilations() as again:
        linen.RNN(cell.clone()).apply(variables, 2 * xs)
    assert not again


def test_what_does_not_fit_is_named():
    cell = KNOWN["gru"][0]
    variables, _, xs = at(cell, inputs(cell))
    rnn = linen.RNN(cell)
    with pytest.raises(ValueError, match=r"seq_lengths: expected \[2\].*got \[3\]"):
        rnn.apply(variables, xs, seq_lengths=np.ones(3, int))
    with pytest.raises(ValueError, match="inputs: expected an axis of time"):
        rnn.apply(variables, xs[0, 0])
    with pytest.raises(ValueError, match=r"xs: expected \[T, ..., 3\]"):
        rnn.apply(variables, xs[..., :2])
    with pytest.raises(nn.module.errors.ScopeParamNotFoundError):
        rnn.apply(dict(params=dict(cell=dict(hr=variables))), xs)
