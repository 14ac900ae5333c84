"""Models against plain compositions of their parts, and text drawn from one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers, models, unrolls
from bptt_jax.types import Side
from support.gradients import pulled_back, quick_jit, worst

T, B, I, H, O = 7, 3, 3, 4, 5
TOLERANCE = 1e-10


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def tokens(*shape, n=O, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, n, shape), jnp.int32)


def params_of(layer, seed=0):
    """In float64, and none of them zero."""
    with jax.numpy_dtype_promotion("standard"):
        params = layer.init(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: jnp.asarray(np.asarray(a, "d") + 0.3 * rng.normal(size=a.shape)),
        params,
    )


def carry_like(layer, params, batch, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: jnp.asarray(rng.normal(size=a.shape)), layer.init_carry(params, batch)
    )


def agree(f, g, *arguments):
    error, name = worst(pulled_back(f, *arguments), pulled_back(g, *arguments))
    assert error <= TOLERANCE, name


def by_hand(kinds):
    """The recurrent layers one after another, then the readout; first the inputs."""

    def run(params, carry, xs, embedded=False):
        if embedded:
            xs = params[0]["embedding"][xs]
        each = params[embedded:]
        *recurrent, readout = each
        carries = []
        for cell, p, c in zip(kinds, recurrent, carry[embedded:], strict=False):
            c, xs = unrolls.scan(cell, p, c, xs)
            carries.append(c)
        return (*carry[:embedded], *carries, carry[-1]), (
            xs @ readout["kernel"] + readout["bias"]
        )

    return run


@pytest.mark.slow
def test_features():
    kinds = (cells.lstm(I, H), cells.gru(H, H))
    model = models.features(kinds, O, H)
    params = params_of(model)
    carry = carry_like(model, params, (B,))
    agree(
        lambda p, c, xs: unrolls.bptt(model, p, c, xs, chunk=3),
        by_hand(kinds),
        params,
        carry,
        draw(T, B, I),
    )


def test_symbols():
    kinds = (cells.elman(I, H), cells.lstm(H, H))
    model = models.symbols(O, I, kinds, O, H)
    params = params_of(model)
    carry = carry_like(model, params, (B,))
    xs = tokens(T, B)
    hand = by_hand(kinds)
    agree(
        lambda p, c: unrolls.bptt(model, p, c, xs, chunk=2),
        lambda p, c: hand(p, c, xs, embedded=True),
        params,
        carry,
    )


def test_equal_arguments_are_one_model():
    assert models.features((cells.gru(I, H),), O, H) is models.features(
        cells=(cells.gru(I, H),), n_out=O, n_hidden=H
    )
    assert models.features((cells.gru(I, H),), O, H) is not models.features(
        (cells.gru(I, H),), O, H, dropout=0.1
    )


def test_a_model_has_a_cell():
    with pytest.raises(ValueError, match="at least one cell"):
        models.features((), O, H)
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\)"):
        models.features((cells.gru(I, H),), O, H, dropout=1.0)


def test_dropout_follows_each_recurrent_layer():
    """It draws where there are keys, other noise at each step, and scales what stays."""
    model = models.features((cells.gru(I, H),), H, H, dropout=0.5)
    params = params_of(model)
    eye = dict(kernel=jnp.eye(H), bias=jnp.zeros(H))
    params = (*params[:-1], eye)
    carry, xs = carry_like(model, params, (B,)), draw(T, B, I)
    _, plain = unrolls.bptt(model, params, carry, xs)
    keys = jax.random.split(jax.random.key(0), T)
    _, ys = unrolls.bptt(model, params, carry, xs, Side(keys=keys))
    kept = np.asarray(ys != 0)
    np.testing.assert_allclose(ys, np.where(kept, 2 * plain, 0), rtol=1e-12)
    assert 0.2 < kept.mean() < 0.8
    assert len({step.tobytes() for step in kept}) == T
    same = jnp.broadcast_to(keys[:1], keys.shape)
    _, ys = unrolls.bptt(model, params, carry, xs, Side(keys=same))
    assert len({step.tobytes() for step in np.asarray(ys != 0)}) == 1


@pytest.mark.parametrize(
    "with_resets", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_bidirectional_is_two_unrolls(with_resets):
    ahead, back = cells.lstm(I, H), cells.gru(I, H)
    both = models.bidirectional(ahead, back)
    params = params_of(ahead, 0), params_of(back, 1)
    carry = carry_like(ahead, params[0], (B,)), carry_like(back, params[1], (B,), 2)
    flags = np.random.default_rng(3).random((T, B)) < 0.3
    resets = jnp.asarray(flags) if with_resets else None
    mirrored = None
    if with_resets:  # a boundary before t is one after t - 1, seen from the end
        mirrored = jnp.concatenate([resets[1:], jnp.zeros((1, B), bool)])[::-1]

    def hand(params, carry, xs):
        c, ys = unrolls.scan(ahead, params[0], carry[0], xs, Side(resets=resets))
        d, zs = unrolls.scan(back, params[1], carry[1], xs[::-1], Side(resets=mirrored))
        return (c, d), jnp.concatenate([ys, zs[::-1]], -1)

    agree(
        lambda p, c, xs: both(p, c, xs, Side(resets=resets), chunk=3),
        hand,
        params,
        carry,
        draw(T, B, I),
    )


def test_bidirectional_runs_by_the_unroll_it_is_given():
    cell = cells.gru(I, H)
    params, xs = params_of(cell), draw(T, B, I)
    carry = carry_like(cell, params, (B,))
    both = models.bidirectional(cell, layers.recurrent(cell), unrolls.scan)
    _, tangent = jax.jvp(
        lambda xs: both((params, params), (carry, carry), xs)[1], (xs,), (xs,)
    )
    assert tangent.shape == (T, B, 2 * H)
    assert both is models.bidirectional(cell, layers.recurrent(cell), unrolls.scan)


def writer():
    model = models.symbols(O, I, (cells.lstm(I, H),), O, H, dropout=0.3)
    return model, params_of(model)


def step_by_step(model, params, beginning, n):
    """The likeliest symbol, n times; the whole text is run again for each."""
    at = len(beginning)
    text = np.zeros((at + n, 1), np.int32)  # what is not yet written comes after it
    text[:at, 0] = beginning
    run = quick_jit(
        lambda xs: unrolls.scan(model, params, model.init_carry(params, (1,)), xs)[1]
    )
    for i in range(at, at + n):
        text[i] = np.asarray(run(text))[i - 1, 0].argmax()
    return text[at:, 0].tolist()


@pytest.mark.parametrize("begin", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_generate_is_greedy_where_it_is_cold(begin):
    """Zero, too, and numbers that are zero in float32 or to its arithmetic."""
    model, params = writer()
    beginning = tokens(begin, seed=2)
    wanted = step_by_step(model, params, beginning, 6)
    for kind in (jnp.float64, jnp.float32, jnp.bfloat16):
        rounded = jax.tree.map(lambda a, k=kind: a.astype(k), params)
        if kind is not jnp.float64:
            wanted = step_by_step(model, rounded, beginning, 6)
        for seed, temperature in enumerate((0, 0.0, 1e-46, 1e-38, 1e-9, jnp.zeros(()))):
            key = jax.random.key(seed)
            drawn = models.generate(model, rounded, beginning, 6, temperature, key)
            assert drawn.shape == (6,)
            assert jnp.issubdtype(drawn.dtype, jnp.integer)
            assert drawn.tolist() == wanted, (kind, temperature)


def test_generate_takes_the_first_of_several_most_probable_symbols():
    model, params = writer()
    equal = jax.tree.map(jnp.zeros_like, params)
    for seed in range(3):
        key = jax.random.key(seed)
        drawn = models.generate(model, equal, tokens(3), 4, 0, key)
        assert drawn.tolist() == [0, 0, 0, 0]


def test_generate_refuses_a_temperature_that_is_none():
    model, params = writer()
    at, key = (model, params, tokens(3), 4), jax.random.key(0)
    for temperature in (-1, -1e-40, float("nan"), jnp.array(-0.5)):
        with pytest.raises(ValueError, match="temperature: expected at least 0, got"):
            models.generate(*at, temperature, key)
    traced = jax.jit(lambda t: models.generate(*at, t, key))
    for temperature in (-1.0, float("nan")):
        assert traced(temperature).tolist() == [-1] * 4  # no symbol
    assert traced(0.0).tolist() == models.generate(*at, 0, key).tolist()


def test_generate_draws_from_the_softmax():
    """The first symbol of many, at two temperatures; the key is all that is random."""
    model, params = writer()
    beginning, n = tokens(3, seed=2), 4000
    carry = model.init_carry(params, (1,))
    logits = unrolls.scan(model, params, carry, beginning[:, None])[1][-1, 0]
    draw_one = quick_jit(
        jax.vmap(
            lambda t, key: models.generate(model, params, beginning, 1, t, key)[0],
            (None, 0),
        )
    )
    keys = jax.random.split(jax.random.key(0), n)
    for temperature in (1.0, 0.3):
        found = np.bincount(draw_one(temperature, keys), minlength=O) / n
        expected = np.asarray(jax.nn.softmax(logits / temperature))
        # five standard deviations of a frequency
        assert (np.abs(found - expected) < 5 * np.sqrt(0.25 / n)).all()
    again = draw_one(1.0, keys)
    np.testing.assert_array_equal(again, draw_one(1.0, keys))
    assert len(set(np.asarray(again).tolist())) > 1
