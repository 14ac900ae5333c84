"""What a cell says of itself is put to the test where its gradient is right."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from bptt_jax import cells, layers, verify
from bptt_jax.cli import _check
from bptt_jax.types import Cell
from support import tiers
from support.changed import with_parts

ONE = dict(lengths=(3,), chunks=(None,), batch_shapes=((2,),), sides=("plain",))
LEAK = 0.3


class Wrong(NamedTuple):
    """A cell whose gradient is right, the claim that is not, and what is said of it."""

    cell: Any
    claim: str
    words: str
    inputs: int | None = 3


def leaky_init(key):
    k_x, k_h, k_c = jax.random.split(key, 3)
    draw = jax.random.normal
    return dict(w_x=draw(k_x, (3, 4)), w_h=draw(k_h, (4, 4)), w_c=draw(k_c, (4, 4)))


def leaky_carry(p, batch_shape):
    return jnp.zeros((*batch_shape, 4), p["w_h"].dtype)


def leaky_forward(p, h, u):
    """Two products with the state, both hidden in `forward`."""
    h = (1 - LEAK) * h + LEAK * jnp.tanh(u + h @ p["w_h"] + jnp.sin(h) @ p["w_c"])
    return h, h


def from_parts(**claims) -> Cell:
    def pulled(p, h, u):
        return jax.vjp(leaky_forward, p, h, u)[1]

    def project(p, xs):
        return xs @ p["w_x"]

    def backward(p, at, d_h, d_y):
        _, d_before, d_u = pulled(p, *at)((d_h, d_y))
        return d_before, (d_h, d_y, d_u)

    def contract(p, xs, hs, at, deltas):
        d_h, d_y, d_u = deltas
        every = jax.vmap(lambda *a: pulled(p, *a[:2])(a[2:])[0])(*at, d_h, d_y)
        d_p = jax.tree.map(lambda d: d.sum(0), every)
        d_w_x = jnp.einsum("k...i,k...h->ih", xs, d_u)
        return d_p | dict(w_x=d_w_x), d_u @ p["w_x"].T

    return cells.from_parts(
        leaky_init, leaky_carry, project=project, forward=leaky_forward,
        linearize=lambda p, hs, us, nexts: (hs, us), backward=backward,
        contract=contract, output=lambda h: h, **claims,
    )  # fmt: skip


def mean_apart(cell: Cell) -> Cell:
    """Its coefficients are those of `cell` less their mean over units, and that mean."""

    def local(*at):
        slopes = cell.vjp.local(*at)
        mean = slopes.mean(-1, keepdims=True)
        return slopes - mean, mean

    def backward(p, coeffs, *ds):
        return cell.vjp.backward(p, sum(coeffs), *ds)

    def factors(p, xs, hs, coeffs, deltas):
        return cell.vjp.factors(p, xs, hs, sum(coeffs), deltas)

    return with_parts(cell, local=local, backward=backward, factors=factors)


def named(*names):
    return lambda f, p: p | {name: f(p[name]) for name in names}


ELMAN = cells.elman(3, 4)
WRONG = {
    "a product in move": Wrong(
        partial(from_parts, pointwise=True), "pointwise",
        "in move unit 0 of the new carry depends on unit 1 of carry",
    ),
    "a projection after the gates": Wrong(
        lambda: cells.lstm(3, 4, projection=4)._replace(pointwise=True), "pointwise",
        "reaches unit 0 and unit 1 of the new carry",
    ),
    "a mean in move": Wrong(
        lambda: cells.lstm(3, 4, layer_norm=True)._replace(pointwise=True), "pointwise",
        "reaches unit 0 and unit 1 of the new carry",
    ),
    "a mean in local": Wrong(
        lambda: mean_apart(ELMAN), "pointwise",
        "in local a number of coeffs[0] depends on unit 0 of",
    ),
    "one of two matrices": Wrong(
        partial(from_parts, couplings=named("w_h")), "couplings",
        "unit 0 of the new carry depends on unit 1 of carry and unit 2 of carry, "
        "through params['w_c']",
    ),
    "none of one": Wrong(
        lambda: cells.gru(3, 4)._replace(couplings=lambda f, p: p), "couplings",
        "through params['w_h']",
    ),
    "the projection forgotten": Wrong(
        lambda: cells.lstm(3, 4, projection=4)._replace(couplings=named("w_h")),
        "couplings", "through params['w_r']",
    ),
    "another one": Wrong(
        lambda: ELMAN._replace(couplings=named("w_x")), "couplings",
        "through params['w_h']",
    ),
    "more than f does": Wrong(
        lambda: ELMAN._replace(couplings=lambda f, p: named("w_h")(f, p) | dict(b=0 * p["b"])),
        "couplings", "with an f that changes nothing it gives other parameters",
    ),
    "tanh": Wrong(
        lambda: ELMAN._replace(affine=True), "affine", "half way between two states",
    ),
    "relu": Wrong(
        lambda: cells.indrnn(3, 4)._replace(affine=True), "affine",
        "half way between two states",
    ),
}  # fmt: skip
FAST = "a product in move", "one of two matrices", "tanh"


def check(cell, inputs: Any = 3, **options):
    return verify.check(cell, inputs, **{**ONE, **options})


@pytest.mark.parametrize("name", [tiers.slow(n, n not in FAST) for n in WRONG])
def test_a_wrong_claim_is_refused(name):
    cell, claim, words, inputs = WRONG[name]
    with pytest.raises(verify.ClaimError, match=f"^{claim} is wrong: ") as caught:
        check(cell(), inputs)
    assert list(caught.value.claims) == [claim]
    assert words in caught.value.claims[claim]
    assert caught.value.report.wrong == ()
    assert str(caught.value.report) in str(caught.value)


def test_what_is_right_is_in_the_report():
    member = verify.CELLS["from_parts"]
    report = check(member.make(), member.inputs)
    assert report.claims == ("pointwise", "couplings", "affine")
    assert "; the cell says rightly pointwise, couplings, affine; " in str(report)


@pytest.mark.slow
def test_what_is_not_said_is_not_tested():
    assert check(from_parts()).claims == ()
    assert check(layers.recurrent(ELMAN)).claims == ()
    assert check(ELMAN._replace(affine=True), quick=True).claims == ()


def test_a_wrong_gradient_comes_first():
    wrong = with_parts(ELMAN, local=lambda p, g, hs, nexts: 1 - nexts)
    with pytest.raises(verify.GradientError):
        check(wrong._replace(affine=True))


@pytest.mark.slow
def test_what_several_units_share():
    """A state of one number for all units, and a unit that reads it."""

    def step(p, carry, x):
        h, clock = carry
        return (jnp.tanh(x @ p + h * clock[..., None]), clock + 1), h

    def carry(p, batch_shape):
        return jnp.zeros((*batch_shape, 4), p.dtype), jnp.zeros(batch_shape, p.dtype)

    cell = cells.from_step(step, lambda key: jax.random.normal(key, (3, 4)), carry)
    cell = cell._replace(couplings=lambda f, p: p)
    with pytest.raises(verify.ClaimError, match="depends on the one number of carry"):
        check(cell)


@pytest.mark.slow
def test_states_without_inputs_of_complex_numbers():
    """A rotation of each unit, which is affine."""

    def step(p, z, x):
        assert x is None
        z = z * jnp.exp(1j * p)
        return z, z.real

    def carry(p, batch_shape):
        return jnp.ones((*batch_shape, 4), jnp.result_type(p, jnp.complex64))

    cell = cells.from_step(step, lambda key: jax.random.normal(key, (4,)), carry)
    cell = cell._replace(affine=True, couplings=lambda f, p: p)
    assert check(cell, None).claims == ("couplings", "affine")
    with pytest.raises(verify.ClaimError, match="^pointwise is wrong: in move"):
        mixed = cells.from_step(
            lambda p, z, x: step(p, z + z.mean(-1, keepdims=True), x),
            lambda key: jax.random.normal(key, (4,)),
            carry,
        )
        check(mixed._replace(pointwise=True), None)


def test_the_command_line_says_it():
    make = lambda: ELMAN._replace(affine=True)
    console = Console(record=True, quiet=False, width=200)
    member = verify.Member(make, options=ONE)
    assert not _check._show(console, "mine", member, _check.Check())
    assert "mine: affine is wrong: half way between two states" in console.export_text()
