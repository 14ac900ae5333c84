"""What is constant in time, beside the parameters: its gradient is the plain loop's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_jax import InContext, Side, cells, layers, unrolls
from support.gradients import all_pulled_back, initial, quick_jit, worst

T, S, I, H = 7, 5, 3, 4
TOLERANCE = 1e-11


def linear(x, w):
    return jnp.einsum("...i,io->...o", x, w)


def attend(params, h, x):
    """A decoder that reads an encoder's states `[..., S, H]` by attention."""
    own, memory = params
    scores = jnp.einsum("...sh,...h->...s", memory, linear(h, own["w_q"]))
    read = jnp.einsum("...s,...sh->...h", jax.nn.softmax(scores), memory)
    h = jnp.tanh(
        linear(x, own["w_x"]) + linear(h, own["w_h"]) + linear(read, own["w_r"])
    )
    return h, linear(jnp.concatenate([h, read], -1), own["w_y"])


def generated(params, h, x):
    """A cell whose recurrent weights `[..., H, H]` another network made."""
    own, weights = params
    h = jnp.tanh(linear(x, own["w_x"]) + jnp.einsum("...i,...io->...o", h, weights))
    return h, h


def gained(params, h, x):
    """Unit by unit: gains and shifts `[..., H]`."""
    own, (gain, shift) = params
    h = jnp.tanh(linear(x, own["w_x"]) + gain * h + shift)
    return h, h


SHAPES = dict(w_q=(H, H), w_x=(I, H), w_h=(H, H), w_r=(H, H), w_y=(2 * H, 2))


def init(names, key):
    keys = jax.random.split(key, len(names))
    own = {n: jax.random.normal(k, SHAPES[n]) for n, k in zip(names, keys, strict=True)}
    return InContext(own)


def init_carry(params, batch_shape):
    return jnp.zeros((*batch_shape, H))


def cell(step, *names):
    return cells.from_step(step, functools.partial(init, names), init_carry)


CELLS = {
    "attention": (cell(attend, *SHAPES), (S, H)),
    "generated weights": (cell(generated, "w_x"), (H, H)),
    "gains and shifts": (cell(gained, "w_x"), None),
}
STEPS = {
    "attention": attend,
    "generated weights": generated,
    "gains and shifts": gained,
}


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape) * 0.6


def case(name, T=T, batch=(2,), side=""):
    made, shape = CELLS[name]
    context = (draw(1, *batch, *shape) if shape else
               (draw(1, *batch, H), draw(2, *batch, H)))  # fmt: skip
    params = initial(made, (0, 0))
    flags = np.random.default_rng(5).random((2, T, *batch))
    there = Side(
        mask=flags[0] < 0.7 if side else None,
        resets=flags[1] < 0.3 if side else None,
    )
    return (
        made,
        (params.params, draw(3, *batch, H), draw(4, T, *batch, I), context),
        there,
    )


def by_hand(name, side):
    """The loop in JAX alone, with the context in its closure."""
    step = STEPS[name]

    def run(own, carry, xs, context):
        zeros = jnp.zeros_like(carry)

        def one(carry, at):
            x, mask, resets = at
            if resets is not None:
                carry = jnp.where(resets[..., None], zeros, carry)
            after, y = step((own, context), carry, x)
            if mask is None:
                return after, y
            after = jnp.where(mask[..., None], after, carry)
            state_is_output = name != "attention"
            return after, after if state_is_output else jnp.where(mask[..., None], y, 0)

        return lax.scan(one, carry, (xs, side.mask, side.resets))

    return run


def of_library(made, unroll, side, **options):
    def run(own, carry, xs, context):
        at = InContext(own), carry, xs, side
        return unroll(made, *at, context=context, **options)

    return run


def differ(ours, plain, at) -> tuple[float, str]:
    """Outputs and gradients of both, of one program: the largest error and its leaf."""
    return worst(*all_pulled_back([ours, plain], *at))


def compared(name, unroll, *, T=T, batch=(2,), side="", layer=lambda c: c, **options):
    made, at, beside = case(name, T, batch, side)
    ours = of_library(layer(made), unroll, beside, **options)
    error, leaf = differ(ours, by_hand(name, beside), at)
    assert error < TOLERANCE, leaf


UNROLLS = {
    "scan": (unrolls.scan, {}),
    "bptt": (unrolls.bptt, {}),
    "bptt, chunks": (unrolls.bptt, dict(chunk=3)),
    "both_modes": (unrolls.both_modes, dict(chunk=3)),
    "checkpointed": (unrolls.checkpointed, dict(slots=1, chunk=2)),
    "checkpointed, by bytes": (unrolls.checkpointed, dict(memory=10_000_000)),
    "truncated, the whole": (unrolls.truncated, dict(window=2048)),
}


LONG = [pytest.param("checkpointed, by bytes", marks=pytest.mark.slow)]


@pytest.mark.parametrize("unroll", [n for n in UNROLLS if "bytes" not in n] + LONG)
def test_every_unroll(unroll):
    run, options = UNROLLS[unroll]
    masked = {"scan": "", "both_modes": ""}.get(unroll, "both")
    compared("attention", run, side=masked, **options)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("T", "batch"), [(1, ()), (2, (2, 3)), (7, (2,))])
def test_every_cell(name, T, batch):
    compared(name, unrolls.bptt, T=T, batch=batch, side="both")


def test_one_for_all_examples():
    """Without the batch axes it is as parameters are."""
    made, (own, carry, xs, _), side = case("generated weights")
    at = own, carry, xs, draw(9, H, H)
    ours = of_library(made, unrolls.bptt, side)
    assert differ(ours, by_hand("generated weights", side), at)[0] < TOLERANCE


def test_from_the_end():
    made, at, _ = case("attention")
    back = unrolls.reverse(unrolls.bptt)

    def flipped(own, carry, xs, context):
        carry, ys = by_hand("attention", Side())(own, carry, xs[::-1], context)
        return carry, ys[::-1]

    assert differ(of_library(made, back, Side()), flipped, at)[0] < TOLERANCE


@pytest.mark.parametrize(
    "around",
    [
        layers.remat,
        lambda c: layers.recurrent(c, save=layers.COEFFICIENTS),
        lambda c: layers.stack(c),
    ],
)
def test_within_layers(around):
    made, at, side = case("generated weights", side="both")
    layer = around(made)
    alone = initial(layer, (0, 0))

    def run(own, carry, xs, context):
        params = jax.tree.unflatten(jax.tree.structure(alone), jax.tree.leaves(own))
        start = jax.tree.map(lambda _: carry, layer.init_carry(alone, (2,)))
        after, ys = unrolls.bptt(layer, params, start, xs, side, context=context)
        return jax.tree.leaves(after)[0], ys

    assert differ(run, by_hand("generated weights", side), at)[0] < TOLERANCE


def test_several_parts_that_see_it():
    """Each has it, and its gradient is the sum of theirs; a layer without time too."""
    first, last = CELLS["generated weights"][0], CELLS["attention"][0]
    scale = layers.time_distributed(
        lambda key: InContext(jnp.ones(())),
        lambda p, xs: xs * p.params * p.context[None, :, 0],
    )
    narrow = layers.dense(H, I)
    model = layers.stack(zone=first, scale=scale, narrow=narrow, attend=last)
    params = jax.tree.map(
        lambda a: a.astype(float), layers.without_context(initial(model, (0, 0)))
    )
    context = draw(1, 2, H, H)
    carry = model.init_carry(params, (2,))
    at = params, carry["zone"], carry["attend"], draw(4, T, 2, I), context

    def run(unroll, params, zone, attend, xs, context):
        carry = dict(zone=zone, scale=(), narrow=(), attend=attend)
        return unroll(model, params, carry, xs, context=context)

    def plain(params, zone, attended, xs, context):
        zone, hs = by_hand("generated weights", Side())(
            params["zone"].params, zone, xs, context
        )
        hs = hs * params["scale"].params * context[None, :, 0]
        xs = linear(hs, params["narrow"]["kernel"]) + params["narrow"]["bias"]
        attended, ys = by_hand("attention", Side())(
            params["attend"].params, attended, xs, context
        )
        return dict(zone=zone, scale=(), narrow=(), attend=attended), ys

    error, leaf = differ(functools.partial(run, unrolls.bptt), plain, at)
    assert error < TOLERANCE, leaf


def test_a_carry_that_is_made_of_it():
    def begin(params, batch_shape):
        return params.context.mean(-2)

    made = cells.from_step(attend, functools.partial(init, tuple(SHAPES)), begin)
    params = initial(made, (0, 0))
    context, xs = draw(1, 2, S, H), draw(4, T, 2, I)

    def loss(unroll, context):
        whole = layers.with_context(params, context)
        return (unroll(made, whole, made.init_carry(whole, (2,)), xs)[1] ** 2).sum()

    each = [functools.partial(loss, f) for f in (unrolls.bptt, unrolls.scan)]
    found, want = quick_jit(lambda c: [jax.grad(f)(c) for f in each])(context)
    np.testing.assert_allclose(found, want, rtol=1e-10)


def test_truncated_cuts_states_alone():
    """A block's losses reach the context in all the steps that they reach."""
    made, (own, carry, xs, context), _ = case("generated weights", T=6)

    def loss(context):
        run = functools.partial(unrolls.truncated, window=2)
        return run(made, InContext(own), carry, xs, context=context)[1].sum()

    def plain(context):
        total = 0.0
        for start in range(0, 6, 2):
            state = carry
            for t in range(start + 2):
                state = state if t != start else lax.stop_gradient(state)
                state, y = generated((own, context if t >= start else
                                      lax.stop_gradient(context)), state, xs[t])  # fmt: skip
                total = total + (y.sum() if t >= start else 0.0)
        return total

    found, want = quick_jit(lambda c: [jax.grad(f)(c) for f in (loss, plain)])(context)
    np.testing.assert_allclose(found, want, rtol=1e-10)


def test_randomly_truncated_is_right_where_nothing_is_cut():
    made, at, _ = case("attention")
    options = dict(mean_length=1e9, key=jax.random.key(0))
    ours = of_library(made, unrolls.randomly_truncated, Side(), **options)
    assert differ(ours, by_hand("attention", Side()), at)[0] < 1e-4


def test_one_step_after_another():
    made, (own, carry, xs, context), _ = case("attention")
    _, want = by_hand("attention", Side())(own, carry, xs, context)
    for x, y in zip(xs, want, strict=True):
        carry, found = unrolls.step(made, InContext(own), carry, x, context=context)
        np.testing.assert_allclose(found, y, rtol=1e-10)


def test_what_a_watch_sees_and_what_comes_back():
    made, (own, carry, xs, context), _ = case("attention")
    at = InContext(own), carry, xs
    (last, ys), back = unrolls.pullback(
        made, *at, context=context, watch=lambda s: (unrolls.contract(s), s.d_states)
    )
    pulled = back(jnp.zeros_like(last), jnp.ones_like(ys))
    plain = lambda own, c: by_hand("attention", Side())(own, carry, xs, c)[1].sum()
    d_own, d_context = quick_jit(jax.grad(plain, (0, 1)))(own, context)
    np.testing.assert_allclose(pulled.d_context, d_context, rtol=1e-9)
    assert pulled.d_params.context == ()
    np.testing.assert_allclose(pulled.d_params.params["w_q"], d_own["w_q"], rtol=1e-9)


def test_under_vmap_each_example_has_its_own():
    made, (own, carry, xs, context), side = case("attention")
    run = of_library(made, unrolls.bptt, side)
    over = jax.vmap(run, (None, 0, 1, 0), (0, 1))
    at = own, carry, xs, context
    assert differ(over, run, at)[0] < TOLERANCE


def test_tangents_of_a_context():
    made, (own, carry, xs, context), _ = case("attention")
    at = [(own, carry, xs, context), (own, carry, xs, draw(8, *context.shape))]
    each = of_library(made, unrolls.both_modes, Side()), by_hand("attention", Side())
    found, want = quick_jit(lambda *at: [jax.jvp(f, *at) for f in each])(*at)
    np.testing.assert_allclose(found[1][1], want[1][1], rtol=1e-9)


def temporaries(run, *at):
    def loss(*at):
        carry, ys = run(*at)
        return (ys**2).sum() + (jax.tree.leaves(carry)[0] ** 2).sum()

    program = jax.jit(jax.grad(loss, (0, 3))).lower(*at).compile()
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_it_takes_the_memory_of_parameters_and_not_of_a_state():
    """B, T, S = 8, 64, 20, as wide as 32."""
    B, T, S, H = 8, 64, 20, 32
    shapes = {
        n: tuple(b // 4 * H if b > 3 else b for b in s) for n, s in SHAPES.items()
    }
    shapes |= dict(w_x=(I, H), w_y=(2 * H, 2))
    own = {n: draw(0, *s).astype("f") for n, s in shapes.items()}
    carry, xs, context = (
        draw(i, *s).astype("f") for i, s in enumerate([(B, H), (T, B, I), (B, S, H)])
    )

    made = cells.from_step(
        attend,
        lambda key, shapes=tuple(shapes.items()): InContext(
            {n: jnp.zeros(s, "f") for n, s in shapes}
        ),
        lambda p, b: jnp.zeros((*b, H), "f"),
    )
    beside = cells.from_step(
        lambda p, h, x: attend(p, h, x),
        lambda key, shapes=tuple(shapes.items()): (
            {n: jnp.zeros(s, "f") for n, s in shapes},
            jnp.zeros((B, S, H), "f"),
        ),
        lambda p, b: jnp.zeros((*b, H), "f"),
    )

    def carried_step(p, carry, x):
        h, memory = carry
        h, y = attend((p, memory), h, x)
        return (h, memory), y

    carried = cells.from_step(
        carried_step,
        lambda key, shapes=tuple(shapes.items()): {
            n: jnp.zeros(s, "f") for n, s in shapes
        },
        lambda p, b: (jnp.zeros((*b, H), "f"), jnp.zeros((*b, S, H), "f")),
    )
    at = own, carry, xs, context
    of_context = temporaries(of_library(made, unrolls.bptt, Side()), *at)
    as_leaf = temporaries(
        lambda own, c, xs, m: unrolls.bptt(beside, (own, m), c, xs), *at
    )
    in_carry = temporaries(
        lambda own, c, xs, m: unrolls.bptt(carried, own, (c, m), xs), *at
    )
    by_scan = temporaries(of_library(made, unrolls.scan, Side()), *at)
    assert of_context <= as_leaf
    assert of_context < by_scan
    assert of_context < in_carry / 4


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        (
            "attention",
            (),
            r"context: expected what is constant in time, which params see",
        ),
        ("plain", 1.0, "context: expected none, for no part of the model sees one"),
    ],
)
@pytest.mark.parametrize("unroll", [unrolls.scan, unrolls.bptt, unrolls.checkpointed])
def test_what_is_refused(name, given, says, unroll):
    made = cells.elman(I, H) if name == "plain" else CELLS[name][0]
    params, xs = made.init(jax.random.key(0)), draw(0, T, 2, I)
    with pytest.raises(ValueError, match=says):
        unroll(made, params, made.init_carry(params, (2,)), xs, context=given)


def test_parameters_are_checked_beside_it():
    made, (own, carry, xs, context), _ = case("attention")
    wrong = InContext({**own, "w_q": jnp.zeros((H, H + 1))})
    with pytest.raises(ValueError, match=r"params.params\['w_q'\]: expected \[4, 4\]"):
        unrolls.bptt(made, wrong, carry, xs, context=context)
