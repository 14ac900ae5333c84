"""Layers without a state: any function that is parallel in time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax._factory import factory, positive
from bptt_jax.types import Init, Layer, LayerRefuse, PyTree, Side


def no_carry(params, batch_shape):
    """The carry of a layer without a state."""
    del params, batch_shape
    return ()


@factory
def time_distributed(init: Init, f: Callable[[PyTree, PyTree], PyTree]) -> Layer:
    """A layer without a state from `f(params, xs) -> ys` over all steps at once.

    Args:
      init: `(key) -> params`.
      f: maps leaves `[K, ..., I]` to leaves `[K, ..., O]`, each step by itself. Its
        derivative is `jax.vjp`'s; nothing is stored. Inputs at masked steps are given
        as zeros.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import layers
    >>> scale = layers.time_distributed(lambda key: jnp.ones(()), lambda p, xs: p * xs)
    """
    return _with_side(init, lambda params, xs, side: f(params, _clean(xs, side)))


def _with_side(
    init: Init,
    f: Callable[[PyTree, PyTree, Side], PyTree],
    refuse: LayerRefuse | None = None,
) -> Layer:
    """`time_distributed` of `f(params, xs, side) -> ys`."""

    def fwd(params, carry, xs, side):
        return carry, f(params, xs, side), ()

    def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
        del carry, ys, residuals
        _, back = trees.pullback(lambda p, xs: f(p, xs, side), params, xs)
        d_params, d_xs = back(d_ys)
        return d_params, d_carry, d_xs, None

    return Layer(init, no_carry, fwd, bwd, refuse=refuse)


def _clean(tree, side):
    """Zeros at masked steps."""
    return tree if side.mask is None else trees.only(side.mask, tree)


_lecun_normal = jax.nn.initializers.lecun_normal()
_zeros = jax.nn.initializers.zeros
_embedding_init = jax.nn.initializers.normal(1.0)


@factory
def dense(
    n_in: int,
    n_out: int,
    *,
    use_bias: bool = True,
    kernel_init: Callable = _lecun_normal,
    bias_init: Callable = _zeros,
    dtype=None,
    param_dtype=jnp.float32,
) -> Layer:
    """`ys = xs @ kernel + bias`, as `flax.linen.Dense`: `[K, ..., I] -> [K, ..., O]`.

    One product over all steps of a stretch. Params: `kernel [I, O]`, `bias [O]`.
    """
    positive(n_in=n_in, n_out=n_out)

    def init(key):
        k_kernel, k_bias = jax.random.split(key)
        kernel = kernel_init(k_kernel, (n_in, n_out), param_dtype)
        if not use_bias:
            return dict(kernel=kernel)
        return dict(kernel=kernel, bias=bias_init(k_bias, (n_out,), param_dtype))

    def f(params, xs):
        if xs.shape[-1] != n_in:
            raise ValueError(
                f"dense: expected inputs [..., {n_in}], got {list(xs.shape)}"
            )
        if dtype is not None:
            params, xs = trees.cast_floating((params, xs), dtype)
        ys = xs @ params["kernel"]
        return ys + trees.across(ys, params["bias"]) if use_bias else ys

    return time_distributed(init, f)


@factory
def embedding(
    n_symbols: int,
    n_features: int,
    *,
    embedding_init: Callable = _embedding_init,
    dtype=None,
    param_dtype=jnp.float32,
) -> Layer:
    """A row of a table for each symbol, as `flax.linen.Embed`: `[K, ...] -> [K, ..., O]`.

    Params: `embedding [n_symbols, n_features]`. Masked steps read no row and are zero.

    Raises:
      ValueError: outside of `jit`, where values are known: a symbol that is not in the
        table, -1 included; the first is named. Where they are traced its features are
        NaN, and no row is read or trained.
    """
    positive(n_symbols=n_symbols, n_features=n_features)

    def init(key):
        return dict(embedding=embedding_init(key, (n_symbols, n_features), param_dtype))

    def f(params, tokens, side):
        tokens = jnp.asarray(tokens)
        if not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise TypeError(f"embedding: expected integer symbols, got {tokens.dtype}")
        refuse(params, (), tokens, side)
        table = params["embedding"]
        table = table if dtype is None else table.astype(dtype)
        tokens = trees.wide(_clean(tokens, side))
        outside = (tokens < 0) | (tokens >= n_symbols)  # -1 would be the last row
        rows = jnp.where(outside, n_symbols, tokens.astype(jnp.int32))
        spread = shardings.of_rows(table, rows)
        found = table.at[rows].get(mode="fill", fill_value=jnp.nan, out_sharding=spread)
        return _clean(found, side)

    def refuse(params, carry, tokens, side):
        del params, carry
        expected = f"symbols from 0 to {n_symbols - 1}"
        if trees.known(tokens) is not None:
            tokens = _clean(tokens, side)
            trees.refuse_outside("embedding", expected, tokens, 0, n_symbols - 1)

    return _with_side(init, f, refuse)


@factory
def layer_norm(
    n_features: int, *, epsilon: float = 1e-6, dtype=None, param_dtype=jnp.float32
) -> Layer:
    """Normalises each step's features (Ba, Kiros, Hinton 2016), as `flax.linen.LayerNorm`.

    Params: `scale [O]`, `bias [O]`. The statistics are computed in at least float32.
    """
    positive(n_features=n_features)

    def init(key):
        del key
        ones = jnp.ones((n_features,), param_dtype)
        return dict(scale=ones, bias=jnp.zeros_like(ones))

    def f(params, xs):
        out = jnp.result_type(xs, params["scale"]) if dtype is None else dtype
        x = xs.astype(trees.at_least_float32(xs.dtype))
        x = x - x.mean(-1, keepdims=True)
        variance = trees.squares(x).mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(variance + epsilon).astype(x.dtype)
        scale, bias = (trees.across(x, params[k]) for k in ("scale", "bias"))
        return (x * scale + bias).astype(out)

    return time_distributed(init, f)
