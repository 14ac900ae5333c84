"""The matrix products of a cell: over all steps of a stretch at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax.cells._hold import hold

if TYPE_CHECKING:
    from jaxtyping import Inexact


def affine(
    xs: Inexact[Array, "*K I"],
    w: Inexact[Array, "I O"] | Inexact[Array, "I n H"],
    b: Inexact[Array, "O"] | Inexact[Array, "n H"] | None = None,
) -> Inexact[Array, "*K O"] | Inexact[Array, "*K n H"]:
    """`xs @ w + b`: `[..., I] -> [..., O]`, or with w `[I, n, H]` `-> [..., n, H]`."""
    _check_features(xs, w)
    z = jnp.tensordot(xs, w, 1) if w.ndim > 2 else xs @ w
    return z if b is None else z + trees.across(z, b)


def gate_products(
    a: Inexact[Array, "*K I"],
    w: Inexact[Array, "I nH"],
    n: int,
    b: Inexact[Array, "nH"] | None = None,
) -> list[Inexact[Array, "*K nH//{n}"]]:
    """`a @ w + b` as n gates: `[..., I] -> n × [..., H]`, with w `[I, nH]`.

    Gates that a loop over steps reads are arrays of their own: where a gate is cut out
    of a row of all gates XLA:CPU makes slow code (`benchmarks/levers.py`).
    """
    _check_features(a, w)
    return jnp.split(affine(a, w, b), n, -1)


def _check_features(xs: Array, w: Array) -> None:
    if xs.shape[-1:] != w.shape[:1]:
        raise ValueError(
            f"xs: expected [T, ..., {w.shape[0]}] to go with weights {list(w.shape)}, "
            f"got {list(xs.shape)}"
        )


def held_dot_t(
    d: Inexact[Array, "... H"], w: Inexact[Array, "I H"] | Inexact[Array, "I n H"]
) -> Inexact[Array, "... I"]:
    """`d @ wᵀ`: `[..., O] -> [..., I]`, in a loop over steps.

    With one example some versions of XLA:CPU compute `d`, where it is an expression, anew
    for each row of the weight; held it is a kernel of its own.
    """
    return dot_t(hold(d), w)


def dot_t(
    d: Inexact[Array, "... H"], w: Inexact[Array, "I H"] | Inexact[Array, "I n H"]
) -> Inexact[Array, "... I"]:
    """`d @ wᵀ`: `[..., O] -> [..., I]`, or with w `[I, n, H]` from `[..., n, H]`."""
    if w.ndim == 2:
        return d @ w.T
    of_w = tuple(range(1, w.ndim))
    of_d = tuple(range(d.ndim - len(of_w), d.ndim))
    return lax.dot_general(d, w, ((of_d, of_w), ((), ())))


def outer_sum(
    a: Inexact[Array, "*K I"], d: Inexact[Array, "*K O"] | Inexact[Array, "*K n H"]
) -> Inexact[Array, "I O"] | Inexact[Array, "I n H"]:
    """Σ a ⊗ d over all steps and examples, `[..., I], [..., O] -> [I, O]`.

    With d `[..., n, H]` it is `[I, n, H]`.

    In at least float32: over many steps a sum in bfloat16 loses most of its digits. The
    axes of time and of examples stay apart: merged, examples that are spread over
    devices would have to be gathered.
    """
    dtype = trees.at_least_float32(jnp.result_type(a, d))
    axes = tuple(range(a.ndim - 1))
    # Contracting the first axes of both, XLA:CPU has a slower product for wide layers
    # (`benchmarks/levers.py`); held the copy is not folded into it.
    columns = hold(jnp.moveaxis(a, -1, 0))
    contracted = tuple(1 + axis for axis in axes), axes
    return lax.dot_general(
        columns,
        d,
        (contracted, ((), ())),
        preferred_element_type=dtype,
        out_sharding=shardings.of_product(a, d),
    )


def total(d: Inexact[Array, "... O"], rank: int = 1) -> Inexact[Array, "... O"]:
    """Σ d over all steps and examples, `[..., O] -> [O]`, in at least float32.

    rank: the axes that stay, the last ones.
    """
    axes = tuple(range(d.ndim - rank))
    return d.sum(axes, dtype=trees.at_least_float32(d.dtype))
