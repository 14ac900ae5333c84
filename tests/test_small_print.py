"""What docstrings promise in passing: how numbers are drawn, what is refused, in which dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, Weighted, cells, layers, loops, objectives, unrolls
from bptt_jax._jax import enable_x64
from bptt_jax.types import Loop

KEY = 3  # no zero: what forgets its key draws from that of 0
H = 64


def drawn(cell, name="b", n=None):
    found = cell.init(jax.random.key(KEY))[name]
    return np.asarray(found if n is None else found.reshape(n, -1))


def test_forget_biases_are_at_the_gate_that_forgets():
    np.testing.assert_array_equal(
        drawn(cells.lstm(2, H, forget_bias=2.0), n=4)[:, 0], [0, 2, 0, 0]
    )
    np.testing.assert_array_equal(
        drawn(cells.mgu(2, H, forget_bias=2.0), n=2)[:, 0], [2, 0]
    )
    published = cells.mgu(2, H, forget_bias=2.0, as_published=True)  # its gate lets in
    np.testing.assert_array_equal(drawn(published, n=2)[:, 0], [-2, 0])


def test_chrono_biases_are_at_the_gates_that_keep():
    """log U[1, T - 1] (Tallec, Ollivier 2018): of f, negated of i; of a GRU at z."""
    i, f, g, o = drawn(cells.lstm(2, H, chrono=50), n=4)
    np.testing.assert_array_equal(i, -f)
    r, z, n = drawn(cells.gru(2, H, chrono=50), n=3)
    for bias in (f, z):
        assert bias.min() >= 0
        assert np.log(25) < bias.max() <= np.log(49)
    for nothing in (g, o, r, n):
        np.testing.assert_array_equal(nothing, 0)


@pytest.mark.parametrize("make", [cells.lstm, cells.gru, cells.mgu])
def test_recurrent_weights_are_an_orthogonal_matrix_for_each_gate(make):
    w_h = drawn(make(2, 8), "w_h")
    first, *others = np.split(w_h, w_h.shape[1] // 8, 1)
    for gate in (first, *others):
        np.testing.assert_allclose(gate.T @ gate, np.eye(8), atol=1e-5)
    assert all((gate != first).any() for gate in others)


@pytest.mark.parametrize(("make", "gates"), [(cells.lstm, 4), (cells.gru, 3)])
def test_gates_along_an_axis_have_the_gradient_of_gates_side_by_side(make, gates):
    """Of the plain loop, by JAX."""
    plain, cut = make(2, 3), make(2, 3, gate_axis=True)
    params = plain.init(jax.random.key(KEY))
    along = {
        name: a if name == "b_n" else a.reshape(*a.shape[:-1], gates, 3)
        for name, a in params.items()
    }
    xs = jax.random.normal(jax.random.key(0), (3, 2))

    def loss(params, unroll, cell):
        ys = unroll(cell, params, cell.init_carry(params, ()), xs)[1]
        return (ys**2).sum()

    want = jax.grad(loss)(params, unrolls.scan, plain)
    for name, found in jax.grad(loss)(along, unrolls.bptt, cut).items():
        np.testing.assert_allclose(found.reshape(want[name].shape), want[name], 1e-4)


def test_a_key_is_that_of_all_that_is_drawn():
    inner = cells.elman(2, 3)
    learned = cells.learned_carry(inner).init(jax.random.key(KEY))
    alone = inner.init(jax.random.key(KEY))
    np.testing.assert_array_equal(learned.cell["w_h"], alone["w_h"])
    first, second = layers.stack(cells.elman(3, 3), cells.elman(3, 3)).init(
        jax.random.key(KEY)
    )
    assert (first["w_h"] != second["w_h"]).any()


REFUSED = {
    "axes of gates beside peepholes": lambda: cells.lstm(
        2, 3, gate_axis=True, peepholes=True
    ),
    "axes of gates beside a projection": lambda: cells.lstm(
        2, 3, gate_axis=True, projection=2
    ),
    "a time constant that cannot be learned": lambda: cells.ctrnn(
        2, 3, dt=1.0, tau=1.0, learn_tau=True
    ),
    "a rate above one": lambda: cells.zoneout(cells.elman(2, 3), 1.5),
    "a rate below zero": lambda: cells.zoneout(cells.elman(2, 3), -0.5),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    with pytest.raises(ValueError, match="expected"):
        REFUSED[name]()


def step(params, h, x, *, scale=1.0, **_):
    h = jnp.tanh(params * h + scale * x)
    return h, 2 * h


def own(f=step, **options):
    init = lambda key: jnp.ones(())
    return cells.from_step(f, init, lambda p, batch: jnp.zeros((*batch, 2)), **options)


def test_arrays_that_a_step_holds_are_refused_wherever_they_are():
    array = jnp.ones(2)
    for f in (
        functools.partial(step, scale=array),
        functools.partial(lambda a, *x: step(*x), array),
    ):
        with pytest.raises(TypeError, match="closes over the array"):
            own(f)
    with pytest.raises(TypeError, match="gates closes over the array"):
        own(gates=lambda p, h, x: dict(a=array * h))


def test_an_output_that_is_no_state_is_zero_in_the_padding():
    mask = jnp.array([True, False, True])
    xs = jnp.ones((3, 2))
    for unroll in (unrolls.scan, unrolls.bptt):
        _, ys = unroll(
            own(output=None), jnp.ones(()), jnp.zeros(2), xs, Side(mask=mask)
        )
        np.testing.assert_array_equal(ys[1], 0)
        assert (ys[0] != 0).all()


def test_an_output_that_is_not_what_the_cell_says_is_refused():
    cell = cells.lstm(2, 3, projection=2)
    params = cell.init(jax.random.key(0))
    at = params, cell.init_carry(params, ()), jnp.ones((3, 2))
    with pytest.raises(ValueError, match="output: expected the leaves"):
        unrolls.bptt(cell._replace(output=lambda carry: carry.c), *at)
    with pytest.raises(TypeError, match="output: expected leaves"):
        unrolls.bptt(cell._replace(output=lambda carry: carry.h + 0.5), *at)


def test_a_loop_that_cannot_run_is_no_other_one():
    plain = loops.step_by_step
    never = Loop("never", plain.forward, plain.backward, lambda *_: "no reason")
    layer = layers.recurrent(cells.elman(2, 3), loop=never)
    params = layer.init(jax.random.key(0))
    with pytest.raises(ValueError, match="never cannot run this: no reason"):
        unrolls.bptt(layer, params, layer.init_carry(params, ()), jnp.ones((3, 2)))


def kept(cell, save) -> int:
    """How many leaves are kept of each step beside the states."""
    layer = layers.recurrent(cell, save=save)
    params = jax.eval_shape(layer.init, jax.random.key(0))
    carry = jax.eval_shape(lambda p: layer.init_carry(p, (2,)), params)
    xs = jax.ShapeDtypeStruct((3, 2, 2), jnp.float32)
    _, _, (_, more) = jax.eval_shape(layer.fwd, params, carry, xs, Side())
    return len(jax.tree.leaves(more))


def test_what_is_kept_is_what_was_asked_for():
    for cell in (cells.elman(2, 3), cells.lstm(2, 3), cells.gru(2, 3)):
        assert kept(cell, layers.STATES) == 0
    assert kept(cells.lstm(2, 3), layers.GATES) == 4
    assert kept(cells.gru(2, 3), layers.GATES) == 4  # and q_n
    assert kept(cells.elman(2, 3), layers.GATES) == 0  # its gate is its state


def itself(a):
    return a


def test_two_hooks_are_both_there():
    half, third = layers.scale_d_carry(0.5), layers.scale_d_carry(1 / 3)
    cell = cells.indrnn(1, 1, activation=itself)

    def slope(layer):
        """Of the second output, by the state before the first step."""
        params = dict(layer.init(jax.random.key(0)), w_h=jnp.ones(1))
        run = lambda c: unrolls.bptt(layer, params, c, jnp.zeros((2, 1)))[1][-1].sum()
        return jax.grad(run)(jnp.zeros(1))

    layer = layers.recurrent(cell, on_d_carry=half)
    both = layers.with_options(layer, on_d_carry=third)
    assert slope(layer) > 0
    np.testing.assert_allclose(slope(both), slope(layer) / 3, rtol=1e-6)


def test_sums_over_steps_are_in_float32():
    """Of gradients of parameters, losses of a batch and statistics of a layer norm."""
    half = jnp.bfloat16
    cell = cells.elman(2, 3, param_dtype=half)
    params = jax.tree.map(
        lambda a: jnp.ones(a.shape, half), cell.init(jax.random.key(0))
    )
    shape = lambda n: jax.ShapeDtypeStruct((5, n), half)
    sums, _ = jax.eval_shape(
        functools.partial(cells.contract, cell),
        params,
        shape(2),
        shape(3),
        shape(3),
        shape(3),
    )
    assert {a.dtype for a in jax.tree.leaves(sums)} == {jnp.dtype(jnp.float32)}

    layer = layers.with_loss(
        layers.dense(2, 3, param_dtype=half), lambda ys, targets: ys[..., 0]
    )
    params = layer.init(jax.random.key(0))
    xs = jnp.ones((2, 1000, 2), half)
    _, losses = unrolls.bptt(
        layer, params, layer.init_carry(params, (1000,)), xs, Side(targets=xs)
    )
    assert losses.dtype == jnp.float32

    norm = layers.layer_norm(37)
    params = norm.init(jax.random.key(0))
    x = (10 + 0.1 * jax.random.normal(jax.random.key(KEY), (1, 37))).astype(half)
    run = lambda x: unrolls.bptt(norm, params, norm.init_carry(params, ()), x)[1]
    np.testing.assert_allclose(
        np.asarray(run(x), np.float32), run(x.astype(jnp.float32)), atol=0.02
    )


@pytest.mark.parametrize(
    ("dtype", "want"), [(jnp.float32, jnp.complex64), (jnp.float64, jnp.complex128)]
)
def test_complex_arithmetic_has_the_digits_asked_for(dtype, want):
    cell = cells.elman(2, 3, dtype=dtype, param_dtype=jnp.complex64)

    def run(xs):
        params = cell.init(jax.random.key(0))
        return unrolls.bptt(cell, params, cell.init_carry(params, ()), xs)[1]

    with enable_x64(True):
        xs = jax.ShapeDtypeStruct((2, 2), want)
        assert jax.eval_shape(run, xs).dtype == want


def test_negative_weights_count():
    model = layers.with_loss(cells.elman(2, 3), objectives.squared_error)
    params = model.init(jax.random.key(0))
    xs, targets = jnp.ones((4, 2)), jnp.ones((4, 3))

    def losses(weights):
        side = Side(targets=Weighted(targets, weights))
        return unrolls.bptt(model, params, model.init_carry(params, ()), xs, side)[1]

    np.testing.assert_allclose(
        losses(jnp.full(4, -2.0)), -2 * losses(jnp.ones(4)), rtol=1e-6
    )


def test_every_layer_that_reads_targets_has_their_gradient():
    """Two in a stack, and one within `with_loss`: sums, not the first alone."""
    reads = layers.time_distributed(lambda key: (), lambda p, x: x)

    def fwd(params, carry, xs, side):
        return carry, xs + side.targets, ()

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        return (), d_carry, d_ys, d_ys

    reads = reads._replace(fwd=fwd, bwd=bwd)
    xs, targets = jnp.ones((3, 2)), jnp.full((3, 2), 2.0)

    def gradient(model):
        carry = model.init_carry(model.init(jax.random.key(0)), ())
        run = lambda t: unrolls.bptt(
            model, model.init(jax.random.key(0)), carry, xs, Side(targets=t)
        )[1].sum()
        return jax.grad(run)(targets)

    np.testing.assert_array_equal(gradient(layers.stack(reads, reads)), 2)
    lost = layers.with_loss(reads, lambda ys, t: ys.sum(-1) * 1.0 + 3 * t.sum(-1))
    np.testing.assert_array_equal(gradient(lost), 4)


@pytest.mark.parametrize("make", [
    lambda: layers.residual(cells.elman(2, 2)), lambda: layers.dense(2, 2),
], ids=["residual", "dense"])  # fmt: skip
def test_the_padding_is_not_read(make):
    layer = make()
    params = layer.init(jax.random.key(0))
    mask = jnp.array([True, True, False])
    xs = jnp.ones((3, 2)).at[2].set(jnp.nan)

    def loss(params, xs):
        carry = layer.init_carry(params, ())
        return unrolls.bptt(layer, params, carry, xs, Side(mask=mask))[1].sum()

    for a in jax.tree.leaves(jax.value_and_grad(loss, (0, 1))(params, xs)):
        assert np.isfinite(a).all()


def test_one_mask_of_variational_dropout_for_all_stretches():
    layer = layers.variational_dropout(0.5, 16)
    side = Side(keys=jax.random.split(jax.random.key(KEY), 6))
    _, ys = unrolls.bptt(
        layer, (), layer.init_carry((), (2,)), jnp.ones((6, 2, 16)), side, chunk=2
    )
    np.testing.assert_array_equal(ys, jnp.broadcast_to(ys[:1], ys.shape))
    assert len(np.unique(ys)) == 2


def test_the_plain_loop_resets_too():
    cell = cells.elman(2, 3)
    params = cell.init(jax.random.key(0))
    xs = jax.random.normal(jax.random.key(1), (4, 2))
    resets = jnp.array([False, False, True, False])
    carry = cell.init_carry(params, ())
    _, ys = unrolls.scan(cell, params, carry, xs, Side(resets=resets))
    _, anew = unrolls.scan(cell, params, carry, xs[2:])
    np.testing.assert_allclose(ys[2:], anew, rtol=1e-6)
