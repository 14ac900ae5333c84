"""Auxiliary values: what is told of a batch beside its loss, in the same pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax._factory import factory, functions
from bptt_jax.estimators._batches import per_real_step
from bptt_jax.types import Batch, MetricEach, Objective


@factory
def beside(objective: Objective, aux: MetricEach | None) -> Callable:
    """`(ys, targets) -> (losses, values by name)`; the objective itself without `aux`."""
    if aux is None:
        return objective
    functions(objective=objective, aux=aux)

    def both(ys, targets):
        losses = objective(ys, targets)
        # 0 · ∞ would be NaN in the gradient: that of a root at 0, say
        told = aux(*jax.lax.stop_gradient((ys, targets)))
        return losses, _checked(told, jnp.shape(losses)[:2])

    return both


def _checked(told: Any, shape: tuple[int, ...]) -> dict[str, Array]:
    if not isinstance(told, dict) or not all(isinstance(name, str) for name in told):
        raise TypeError(
            "aux: expected a function (ys, targets) -> {name: values [K, B]}, it gives "
            f"{type(told).__name__} {jax.tree.structure(told)}"
        )
    for name, a in told.items():
        if jnp.shape(a) != shape or jnp.iscomplexobj(a):
            raise ValueError(
                f"aux: expected real numbers {list(shape)} of {name!r}, one of each step "
                f"and example, got {jnp.result_type(a)}{list(jnp.shape(a))}"
            )
    return {name: jnp.asarray(a) for name, a in told.items()}


def means(
    sums: Any, batch: Batch, aux: MetricEach | None, steps: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """The loss and auxiliary values, over the real steps, of sums of what `beside` gives."""
    loss, told = (sums, {}) if aux is None else sums
    each = {name: per_real_step(total, batch, steps) for name, total in told.items()}
    return per_real_step(loss, batch, steps), each
