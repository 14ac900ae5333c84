"""The laws of unrolls: every kind of argument, every error. Transformations have a file
of their own."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers, loops, unrolls
from bptt_jax.types import Cell, Side
from support import tiers
from support.gradients import (
    QUICK,
    Case,
    arguments_of,
    error,
    gradients,
    of_unrolls,
    quick_jit,
    worst,
)
from support.members import CELLS, LAYERS, UNROLLS, Member
from support.reference import AS_REFERENCE

T, B, I, H = 6, 2, 3, 4
CHUNKED = functools.partial(unrolls.bptt, chunk=3)


@functools.cache
def elman():
    cell = cells.elman(I, H)
    member = Member(lambda: cell)
    return cell, arguments_of(member, cell, Case(T, (B,), "plain", ()))


# Arguments of every kind


def compare(
    layer, at, tolerance=1e-10, unroll=unrolls.bptt, plain=unrolls.scan, **options
):
    arms = functools.partial(unroll, **options), plain
    found, want = of_unrolls(layer, at, *arms, compiler_options=AS_REFERENCE)
    alike(found, want, tolerance)
    return found


def alike(found, want, tolerance=1e-10):
    largest, leaf = worst(found, want)
    assert largest <= tolerance, f"{leaf}: {largest:.1e}"
    assert any(np.abs(v).max() > 1e-3 for k, v in want.items() if k.startswith("grad"))


@pytest.mark.parametrize("steps", [1, 2, 5, 7, 11])
def test_any_length_and_chunk(steps):
    cell, at = elman()
    xs = np.concatenate([at.xs, at.xs])[:steps]
    at = at._replace(xs=xs, T=steps)
    chunks = 1, 3, 7, 20
    arms = [functools.partial(unrolls.bptt, chunk=chunk) for chunk in chunks]
    *found, want = of_unrolls(cell, at, *arms, unrolls.scan, compiler_options=QUICK)
    for chunk, each in zip(chunks, found, strict=True):
        assert worst(each, want)[0] <= 1e-12, chunk


def test_integer_inputs():
    member = LAYERS["character model"]
    layer = member.make()
    found = compare(
        layer, arguments_of(member, layer, Case(5, (B,), "plain", ())), chunk=2
    )
    assert not any(k.startswith("grad[2]") for k in found)


def _gated(p, h, x):
    number, flag = x["number"], x["flag"]
    drive = jnp.where(flag[..., None], p["table"][number], p["b"])
    h = jnp.tanh(h @ p["w"] * p["times"].astype(h.dtype) + drive)
    return h, h


def _gated_init(key):
    k_w, k_t = jax.random.split(key)
    return dict(
        w=jax.random.normal(k_w, (H, H)),
        table=jax.random.normal(k_t, (5, H)),
        b=jnp.ones(H),
        times=jnp.asarray(1, jnp.int32),
    )


def _gated_inputs(key, T, batch_shape):
    return dict(
        number=jax.random.randint(key, (T, *batch_shape), 0, 5),
        flag=jax.random.bernoulli(key, 0.5, (T, *batch_shape)),
    )


def _zeros(params, batch_shape):
    return jnp.zeros((*batch_shape, H), params["b"].dtype)


@pytest.mark.parametrize("side", ["plain", "both"])
def test_integer_and_bool_leaves_in_inputs_and_params(side):
    cell = cells.from_step(_gated, _gated_init, _zeros)
    member = Member(lambda: cell, _gated_inputs)
    found = compare(cell, arguments_of(member, cell, Case(5, (B,), side, ())), chunk=2)
    assert {k for k in found if k.startswith("grad")} == {
        "grad[0]['b']", "grad[0]['table']", "grad[0]['w']", "grad[1]",
    }  # fmt: skip


def _autonomous(p, h, x):
    assert x is None
    h = jnp.tanh(h @ p["w"])
    return h, h


def test_no_inputs():
    cell = cells.from_step(_autonomous, _just_w, _carry_like_w)
    at = arguments_of(Member(lambda: cell, None), cell, Case(7, (B,), "plain", ()))
    found = compare(cell, at, chunk=3)
    assert found["out[1]"].shape == (7, B, H)


def _just_w(key):
    return dict(w=jax.random.normal(key, (H, H)))


def _carry_like_w(params, batch_shape):
    return jnp.zeros((*batch_shape, H), params["w"].dtype)


def test_chunks_of_every_size_agree_with_a_number_of_batch_axes():
    member = CELLS["gru"]
    cell = member.make()
    at = arguments_of(member, cell, Case(5, (2, 1, 2), "both", ()))
    compare(cell, at, chunk=2)


NESTED = {
    "learned carry of a cell of bfloat16's rival": lambda: cells.learned_carry(
        cells.in_dtype(cells.lstm(I, H), jnp.float64)
    ),
    "learned carry of a user's cell": lambda: cells.learned_carry(
        CELLS["from_step"].make()
    ),
    "remat of residual of stack": lambda: layers.remat(
        layers.residual(
            layers.stack(layers.recurrent(cells.elman(I, H)), layers.dense(H, I))
        )
    ),
    "stack of stacks": lambda: layers.stack(
        layers.remat(layers.recurrent(cells.elman(I, H))),
        layers.stack(layers.layer_norm(H), layers.recurrent(cells.elman(H, 2))),
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_combinators(name):
    """Step by step: kernels of what is combined are in `test_gradients`."""
    layer = NESTED[name]()
    at = arguments_of(Member(lambda: layer), layer, Case(5, (B,), "both", ()))
    with loops.preferred(loops.step_by_step):
        compare(layer, at, chunk=2, tolerance=1e-10)


@pytest.mark.parametrize("name", ["elman", "from_step"])
def test_masked_and_resets_as_cells_are_what_side_does(name):
    member = CELLS[name]
    cell = member.make()
    at = arguments_of(member, cell, Case(5, (B,), "both", ()))
    by_side = gradients(cell, at, chunk=2)
    wrapped = cells.resets(cells.masked(cell))
    xs = ((at.xs, at.side.mask), at.side.resets)
    by_cell = gradients(wrapped, at._replace(xs=xs, side=Side()), chunk=2)
    assert worst(
        {k.replace("grad[2]", "xs"): v for k, v in by_side.items()},
        {k.replace("grad[2][0][0]", "xs"): v for k, v in by_cell.items()},
    )[0] <= 1e-12  # fmt: skip


# Time reversed


def test_reverse_runs_each_segment_from_its_own_end():
    """Two sequences in a row with a reset between them, against each by itself."""
    cell, at = elman()
    zero = np.zeros((B, H))
    resets = np.zeros((T, B), bool)
    resets[4] = True
    backward = unrolls.reverse(CHUNKED)
    carry, ys = backward(cell, at.params, zero, at.xs, Side(resets=resets))
    first_carry, first = unrolls.scan(cell, at.params, zero, at.xs[:4][::-1])
    _, second = unrolls.scan(cell, at.params, zero, at.xs[4:][::-1])
    chex.assert_trees_all_close(carry, first_carry, rtol=1e-12)
    chex.assert_trees_all_close(
        ys, jnp.concatenate([first[::-1], second[::-1]]), rtol=1e-12
    )


def test_reverse_with_padding_begins_at_the_last_real_step():
    cell, at = elman()
    lengths = np.array([2, 5])
    mask = unrolls.sequence_mask(lengths, T)
    zero = np.zeros((B, H))
    _, ys = unrolls.reverse(unrolls.bptt)(cell, at.params, zero, at.xs, Side(mask=mask))
    for b, n in enumerate(lengths):
        _, alone = unrolls.scan(cell, at.params, zero[b], at.xs[:n, b][::-1])
        chex.assert_trees_all_close(ys[:n, b], alone[::-1], rtol=1e-12)


def test_last_output_is_that_of_the_last_real_step():
    cell, at = elman()
    lengths = np.array([2, 5])
    mask = unrolls.sequence_mask(lengths, T)
    _, ys = CHUNKED(cell, at.params, at.carry, at.xs, Side(mask=mask))
    for b, n in enumerate(lengths):
        np.testing.assert_array_equal(ys[-1, b], ys[n - 1, b])


# Editing the cotangent of the state


def clip(d, aux):
    return jax.tree.map(lambda a: jnp.clip(a, -0.3, 0.3), d)


def detach(d, keep):
    return jax.tree.map(lambda a: jnp.where(keep, a, 0.0), d)


def scale(d, gain):
    return jax.tree.map(lambda a: a * gain, d)


def identity(d, aux):
    return d


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def edited(on_d_carry, carry, aux):
    return carry


def _edited_bwd(on_d_carry, aux, d):
    zeros = jax.tree.map(lambda a: np.zeros(np.shape(a), jax.dtypes.float0), aux)
    floats = jax.tree.map(lambda a: jnp.zeros_like(a), aux)
    is_float = (
        jnp.issubdtype(jnp.result_type(aux), jnp.floating) if aux is not None else True
    )
    return on_d_carry(d, aux), floats if is_float else zeros


edited.defvjp(lambda f, carry, aux: (carry, aux), _edited_bwd)


def by_custom_vjp(cell, on_d_carry):
    """The plain loop with an identity in it that edits what passes backward."""

    def unroll(layer, params, carry, xs, side):
        ys = []
        for t in range(len(xs)):
            new, y = cell.step(params, carry, xs[t])
            if side.mask is not None:
                kept = jnp.where(side.mask[t][..., None], new, carry)
                y = kept
                aux = None if side.aux is None else side.aux[t]
                touched = edited(on_d_carry, kept, aux)
                carry = jnp.where(side.mask[t][..., None], touched, kept)
            else:
                carry = edited(
                    on_d_carry, new, None if side.aux is None else side.aux[t]
                )
            ys.append(y)
        return carry, jnp.stack(ys)

    return unroll


AUX = {
    "clip": (clip, None),
    "scale": (scale, np.linspace(0.0, 2.0, T)),
    "detach": (detach, np.arange(T) % 2 == 0),
}


FAST_EDITS = {("clip", True), ("scale", False), ("detach", True)}


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        tiers.slow((name, masked), (name, masked) in FAST_EDITS)
        for name in AUX
        for masked in (False, True)
    ],
)
def test_on_d_carry(name, masked):
    cell, at = elman()
    on_d_carry, aux = AUX[name]
    mask = np.random.default_rng(0).random((T, B)) < 0.6 if masked else None
    at = at._replace(side=Side(mask=mask, aux=aux))
    layer = layers.recurrent(cell, on_d_carry)
    arms = (
        functools.partial(unrolls.bptt, chunk=4),
        by_custom_vjp(cell, on_d_carry),
        lambda _, *given: unrolls.bptt(cell, *given),
    )
    found, want, without = of_unrolls(layer, at, *arms, compiler_options=AS_REFERENCE)
    alike(found, want)
    assert worst(found, without)[0] > 1e-3  # it did something


def test_on_d_carry_detach_is_stop_gradient():
    cell, at = elman()
    keep = np.arange(T) % 3 != 0
    layer = layers.recurrent(cell, detach)

    def stopped(layer, params, carry, xs, side):
        ys = []
        for t in range(T):
            carry, y = cell.step(params, carry, xs[t])
            carry = carry if keep[t] else jax.lax.stop_gradient(carry)
            ys.append(y)
        return carry, jnp.stack(ys)

    compare(layer, at._replace(side=Side(aux=keep)), plain=stopped, chunk=2)


def test_on_d_carry_of_identity_is_exactly_nothing():
    cell, at = elman()
    found = gradients(layers.recurrent(cell, identity), at, chunk=2)
    want = gradients(cell, at, chunk=2)
    chex.assert_trees_all_equal(found, want)


# Errors name the argument, what was expected and what came

GOOD = dict(params=None, carry=None, xs=None, side=Side())


def _bad(**changes):
    cell, at = elman()
    arguments = dict(
        layer=cell, params=at.params, carry=at.carry, xs=at.xs, side=Side()
    )
    return {**arguments, **changes}


F = np.float64
ERRORS = {
    "not a layer": (TypeError, r"layer: .*order of arguments", dict(layer=3)),
    "no time": (ValueError, r"xs: .*T of at least 1", dict(xs=np.zeros((0, B, I)))),
    "scalar input": (ValueError, r"xs: .*\[T, \.\.\.\]", dict(xs=np.float64(1.0))),
    "features": (
        ValueError,
        r"xs: .*got \[6, 2, 5\]",
        dict(xs=np.zeros((T, B, 5))),
    ),
    "lengths differ": (
        ValueError,
        r"xs\['b'\].*expected 6 steps.*got 5",
        dict(xs=dict(a=np.zeros((T, B, I)), b=np.zeros((5, B, I)))),
    ),
    "no length": (ValueError, r"length=", dict(xs=None)),
    "length 0": (ValueError, r"length: .*got 0", dict(xs=None, length=0)),
    "two lengths": (ValueError, r"length: 4 given, but xs has 6", dict(length=4)),
    "side": (TypeError, r"side: expected a Side", dict(side=np.ones(T))),
    "mask dtype": (
        TypeError,
        r"side\.mask: expected bool",
        dict(side=Side(mask=np.ones((T, B)))),
    ),
    "mask shape": (
        ValueError,
        r"side\.mask: .*\[6, 2, 3\].*\[6, 3\]",
        dict(side=Side(mask=np.ones((T, 3), bool))),
    ),
    "resets time": (
        ValueError,
        r"side\.resets: .*T = 6.*\[5, 2\]",
        dict(side=Side(resets=np.ones((5, B), bool))),
    ),
    "keys": (
        TypeError,
        r"side\.keys: expected \[T\] keys",
        dict(side=Side(keys=np.ones(T))),
    ),
    "keys with a batch": (
        TypeError,
        r"side\.keys: expected \[T\] keys.*\[6, 2\]",
        dict(side=Side(keys=np.zeros((T, B, 2), np.uint32))),
    ),
    "carry shape": (
        ValueError,
        r"carry: .*\[2, 4\].*\[3, 4\]",
        dict(carry=np.zeros((3, H))),
    ),
    "carry dtype": (
        TypeError,
        r"carry: .*float64.*float32",
        dict(carry=np.zeros((B, H), "f")),
    ),
    "params shape": (
        ValueError,
        r"params\['b'\]: expected \[4\], got \[5\]",
        dict(params=dict(w_x=np.zeros((I, H)), w_h=np.zeros((H, H)), b=np.zeros(5))),
    ),
    "params structure": (
        ValueError,
        r"params: .*structure",
        dict(params=dict(b=np.zeros(H))),
    ),
    "chunk": (ValueError, r"chunk: .*got 0", dict(chunk=0)),
    "chunk type": (ValueError, r"chunk: .*got 1.5", dict(chunk=1.5)),
}


@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize("name", ERRORS)
def test_error(name, unroll):
    kind, message, changes = ERRORS[name]
    with pytest.raises(kind, match=message):
        UNROLLS[unroll].unroll(**_bad(**changes))


# Precision

BOUNDS = {"float32": 5e-6, "bfloat16": 3e-2}


@pytest.mark.parametrize("steps", [64, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["elman", "lstm", "gru"])
def test_error_against_the_float64_truth(name, steps):
    """At most a fixed bound, or twice the error of autodiff in the same dtype."""
    member = CELLS[name]._replace(options=dict(noise=0.05))
    cell = CELLS[name].make(16)
    at = arguments_of(member, cell, Case(steps, (B,), "plain", ()))
    exact = cast(cast(at, jnp.bfloat16), np.float64)  # what every dtype can hold
    truth = gradients(cell, exact)
    leaves = [k for k in truth if k.startswith("grad")]
    for dtype, bound in BOUNDS.items():
        low = cast(exact, dtype)
        by_hand = gradients(cell, low)
        assert all(by_hand[k].dtype == dtype for k in truth)
        off = {leaf: error(by_hand[leaf], truth[leaf]) for leaf in leaves}
        if max(off.values()) > bound:
            by_jax = gradients(cell, low, unrolls.scan)
            of_jax = {leaf: error(by_jax[leaf], truth[leaf]) for leaf in leaves}
            assert all(e <= max(bound, 2 * of_jax[leaf]) for leaf, e in off.items())


def cast(at, dtype):
    """All that is floating in another dtype."""
    floats = {
        k: jax.tree.map(lambda a: np.asarray(a, jnp.dtype(dtype)), getattr(at, k))
        for k in ("params", "carry", "xs")
    }
    return at._replace(**floats)


def test_cell_or_layer():
    cell, at = elman()
    assert isinstance(cell, Cell)
    chex.assert_trees_all_equal(
        unrolls.bptt(cell, *at[:3]), unrolls.bptt(layers.recurrent(cell), *at[:3])
    )


@pytest.mark.parametrize("name", ["elman", "lstm", "gru", "indrnn", "ctrnn", "mgu"])
def test_parameters_in_bfloat16(name):
    cell = getattr(cells, name)(I, H, param_dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(a.dtype) / 2,
        jax.eval_shape(cell.init, jax.random.key(0)),
    )
    xs = np.ones((T, B, I), jnp.bfloat16)

    def loss(params):
        return (CHUNKED(cell, params, cell.init_carry(params, (B,)), xs)[1] ** 2).sum()

    grads = quick_jit(jax.grad(loss))(params)
    for d in jax.tree.leaves(grads):
        assert d.dtype == jnp.bfloat16
        assert np.isfinite(np.asarray(d, np.float32)).all()
    assert np.abs(np.asarray(grads["w_h"], np.float32)).max() > 0


IN_STRETCHES = {
    "bptt": functools.partial(unrolls.bptt, chunk=1),
    "both_modes": functools.partial(unrolls.both_modes, chunk=1),
    "checkpointed": functools.partial(unrolls.checkpointed, chunk=1, slots=40),
    "checkpointed, kept": functools.partial(unrolls.checkpointed, chunk=1, kept=300),
    "truncated": functools.partial(unrolls.truncated, window=1),
}


@pytest.mark.parametrize("name", IN_STRETCHES)
def test_stretches_are_summed_in_float32(name):
    """In bfloat16 256 + 1 is 256."""
    cell = cells.elman(1, 2, activation=lambda z: z, param_dtype=jnp.bfloat16)
    shapes = jax.eval_shape(cell.init, jax.random.key(0))
    params = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
    xs = np.ones((600, 1), jnp.bfloat16)

    def loss(params):
        carry = cell.init_carry(params, ())
        return IN_STRETCHES[name](cell, params, carry, xs)[1].astype(jnp.float32).sum()

    d_params = quick_jit(jax.grad(loss))(params)
    assert d_params["b"].tolist() == d_params["w_x"][0].tolist() == [600, 600]


def test_a_stretch_is_a_small_part_of_time():
    for T in (200, 784, 1000, 1023, 5000):
        assert T / 40 <= unrolls.default_chunk(T) <= T / 10
        assert unrolls.default_chunk(T, units=2**17) <= 16
    assert unrolls.default_chunk(64, units=2**30) <= 16
