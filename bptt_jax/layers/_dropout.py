"""Dropout of features (Srivastava et al. 2014), anew at each step or once for all.

    ys_t = xs_t · m_t / (1 - rate),     m_t ~ Bernoulli(1 - rate) for each feature

and backward d xs_t = d ys_t · m_t / (1 - rate). The noise is drawn again from the keys
in the backward pass, so nothing is stored. Without keys (evaluation) it is the identity.
"""

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax._factory import factory
from bptt_jax.layers._time_distributed import no_carry
from bptt_jax.types import Layer


def check_rate(name: str, rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"{name}: rate must lie in [0, 1), got {rate!r}")


def _scaled(xs, keep, rate):
    return jax.tree.map(
        lambda a: jnp.where(trees.across(a, keep), a / (1 - rate), 0).astype(a.dtype),
        xs,
    )


def _no_params(key):
    del key
    return ()


@factory
def dropout(rate: float) -> Layer:
    """Drops each feature of each step with probability `rate`; needs `side.keys`."""
    check_rate("dropout", rate)

    def keep(xs, side):
        def draw(key, x):
            return shardings.bernoulli(key, 1 - rate, x)

        return jax.vmap(draw)(side.keys, xs)

    def apply(xs, side):
        return (
            xs if side.keys is None or not rate else _scaled(xs, keep(xs, side), rate)
        )

    def fwd(params, carry, xs, side):
        del params
        return carry, apply(xs, side), ()

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        del carry, ys, residuals
        return params, d_carry, trees.cast_like(xs, apply(d_ys, side)), None

    return Layer(_no_params, no_carry, fwd, bwd)


@factory
def variational_dropout(rate: float, n_features: int) -> Layer:
    """One mask for all steps (Gal, Ghahramani 2016): `carry` holds what is kept.

    The mask `[..., n_features]` is drawn from the key of the first step and carried on,
    so it stays the same from stretch to stretch, and until the state is initialised
    anew by the caller. `side.resets` does not touch it.
    """
    check_rate("variational_dropout", rate)

    def init_carry(params, batch_shape):
        del params
        return dict(
            drawn=jnp.zeros((), bool),
            keep=jnp.ones((*batch_shape, n_features), bool),
        )

    def mask(carry, side):
        keep = shardings.bernoulli(side.keys[0], 1 - rate, carry["keep"])
        return jnp.where(carry["drawn"], carry["keep"], keep)

    def fwd(params, carry, xs, side):
        del params
        if side.keys is None:
            return carry, xs, ()
        keep = mask(carry, side)
        after = dict(drawn=jnp.ones_like(carry["drawn"]), keep=keep)
        return after, _scaled(xs, keep, rate), ()

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        del ys, residuals
        if side.keys is not None:
            d_ys = _scaled(d_ys, mask(carry, side), rate)
        return params, d_carry, trees.cast_like(xs, d_ys), None

    return Layer(_no_params, init_carry, fwd, bwd)
