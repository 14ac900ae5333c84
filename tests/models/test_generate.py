"""What is left of a distribution, by its definition; symbols drawn from several beginnings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, models, unrolls
from support.gradients import quick_jit

V, B = 7, 3
RNG = np.random.default_rng(0)
ODDS = RNG.dirichlet(np.ones(V), 4)
EQUAL = np.array([[0.25, 0.25, 0.25, 0.25, 0, 0, 0]])


def left(odds, **how):
    """Probabilities of what is drawn from after a filter."""
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(odds))
    return np.asarray(jax.nn.softmax(models.filtered(logits, **how)))


def of_the_most_probable(odds, k):
    """By the definition: of the symbols in their order, the first of equal ones first."""
    found = np.zeros_like(odds)
    for row, p in zip(found, odds, strict=True):
        kept = sorted(range(V), key=lambda i, p=p: (-p[i], i))[:k]
        row[kept] = p[kept] / p[kept].sum()
    return found


def nucleus(odds, top_p):
    """By the definition: the fewest, from the most probable on, that add up to it."""
    found = np.zeros_like(odds)
    for row, p in zip(found, odds, strict=True):
        kept, total = [], 0.0
        for i in sorted(range(V), key=lambda i, p=p: (-p[i], i)):
            kept.append(i)
            total += p[i]
            if total >= top_p:
                break
        row[kept] = p[kept] / p[kept].sum()
    return found


@pytest.mark.parametrize("k", [1, 2, 5, V, V + 3])
def test_top_k_is_its_definition(k):
    np.testing.assert_allclose(left(ODDS, top_k=k), of_the_most_probable(ODDS, k))
    np.testing.assert_allclose(left(EQUAL, top_k=k), of_the_most_probable(EQUAL, k))


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.62, 0.9, 0.999])
def test_top_p_is_its_definition(p):
    np.testing.assert_allclose(left(ODDS, top_p=p), nucleus(ODDS, p))
    np.testing.assert_allclose(left(EQUAL, top_p=p), nucleus(EQUAL, p))


def test_all_of_it_is_left():
    np.testing.assert_allclose(left(ODDS, top_p=1.0), ODDS)
    np.testing.assert_array_equal(left(ODDS), left(ODDS, top_k=None))


def test_one_after_the_other():
    """The second by what the first has left."""
    want = nucleus(of_the_most_probable(ODDS, 4), 0.8)
    np.testing.assert_allclose(left(ODDS, top_k=4, top_p=0.8), want)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(top_k=0), "top_k: expected a whole number of at least 1, got 0"),
        (dict(top_k=2.0), "top_k: expected a whole number"),
        (dict(top_p=0), r"top_p: expected a number in \(0, 1\], got 0"),
        (dict(top_p=1.1), "top_p: expected a number in"),
        (dict(top_p=float("nan")), "top_p: expected a number in"),
        (dict(top_p="all"), "top_p: expected a number, got str"),
    ],
)
def test_what_is_no_filter(how, message):
    with pytest.raises((TypeError, ValueError), match=message):
        models.filtered(jnp.zeros(V), **how)


MODEL = models.symbols(V, 3, cells.elman(3, 4), V, 4)


def params():
    made = MODEL.init(jax.random.key(0))
    return jax.tree.map(lambda a: 3 * a, made)


def test_symbols_are_drawn_from_what_is_left():
    """Frequencies of the first symbol, under the model's own logits and a temperature."""
    at, n = params(), 4000
    carry = MODEL.init_carry(at, (1,))
    tokens = jnp.array([1, 2, 3])
    logits = unrolls.scan(MODEL, at, carry, tokens[:, None])[1][-1, 0]
    draw = quick_jit(
        jax.vmap(
            lambda key: models.generate(
                MODEL, at, tokens, 1, 0.7, key, top_k=4, top_p=0.9
            )[0]
        )
    )
    found = draw(jax.random.split(jax.random.key(0), n))
    found = np.bincount(found, minlength=V) / n
    odds = np.asarray(jax.nn.softmax(logits / 0.7))[None]
    want = nucleus(of_the_most_probable(odds, 4), 0.9)[0]
    assert (found[want == 0] == 0).all()
    assert (np.abs(found - want) < 5 * np.sqrt(0.25 / n)).all()


def test_beginnings_of_unequal_lengths():
    """What is greedily drawn after each is what is drawn after it alone."""
    at, lengths = params(), [3, 1, 2]
    tokens = np.random.default_rng(1).integers(0, V, (3, B))
    key = jax.random.key(0)
    found = models.generate(
        MODEL, at, tokens, 6, 0, key, lengths=np.array(lengths, np.int32)
    )
    assert found.shape == (6, B)
    for i, n in enumerate(lengths):
        alone = models.generate(MODEL, at, tokens[:n, i], 6, 0, key)
        np.testing.assert_array_equal(found[:, i], alone)
    with pytest.raises(ValueError, match=r"lengths: expected \[3\], got \[2\]"):
        models.generate(MODEL, at, tokens, 2, 0, key, lengths=np.array([1, 2]))


def test_a_length_that_is_none():
    """The last row and the nearest would be read in its place."""
    at, key = params(), jax.random.key(0)
    tokens = np.array([[1, 2], [2, 0], [0, 3]])

    def go(lengths):
        return models.generate(MODEL, at, tokens, 4, 0, key, lengths=lengths)

    for bad in ([2, 0], [2, -1], [3, 4]):
        message = (
            rf"lengths: .*from 1 to the 3 symbols of tokens, got {bad[1]} at \[1\]"
        )
        with pytest.raises(ValueError, match=message):
            go(np.array(bad))
        found = jax.jit(go)(np.array(bad))
        assert (found[:, 1] == -1).all()
        np.testing.assert_array_equal(found[:, 0], go(np.array([bad[0], 1]))[:, 0])
    with pytest.raises(TypeError, match="lengths: expected integers, got float"):
        go(np.array([2.0, 1.0]))
