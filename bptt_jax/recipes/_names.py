"""All that a recipe may name. A name that is not here does not exist.

Those of JAX that this version of it lacks are left out.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_jax import cells, layers, loops, models, objectives, tasks, unrolls, wholes
from bptt_jax.types import Recurrent


def _of(room: str, of: Any, names: str) -> dict[str, Any]:
    return {f"{room}.{name}": getattr(of, name) for name in names.split()}


def _there(room: str, of: Any, names: str) -> dict[str, Any]:
    return _of(room, of, " ".join(n for n in names.split() if hasattr(of, n)))


FACTORIES: dict[str, Callable] = {
    **_of(
        "cells",
        cells,
        "ctrnn elman gru in_dtype indrnn learned_carry lstm masked mgu resets zoneout "
        "from_step from_parts",
    ),
    **_of(
        "layers",
        layers,
        "clip_d_carry dense dropout embedding in_turn inputs layer_norm made recurrent remat "
        "residual scale_d_carry settled some_gates stack time_distributed variational_dropout "
        "with_loss with_losses with_options",
    ),
    **_of("models", models, "bidirectional features sections symbols"),
    **_of("unrolls", unrolls, "reverse"),
    **_of("wholes", wholes, "attention attention_pool bidirectional ends last mean"),
    **_of(
        "tasks",
        tasks,
        "adding coin copy_memory digits of_values shakespeare sine spoken_digits stdlib "
        "temporal_order",
    ),
}
"""What may be called."""

CLOSURES: dict[str, Callable] = _there(
    "jax.nn.initializers",
    jax.nn.initializers,
    "constant delta_orthogonal normal orthogonal truncated_normal uniform "
    "variance_scaling",
)
"""What gives a function that remembers its arguments and not who made it."""

RECORDS: dict[str, type] = {
    "cells.LSTMCarry": cells.LSTMCarry,
    "types.Recurrent": Recurrent,
}
"""What is written field by field."""

VALUES: dict[str, Any] = {
    **_of("cells", cells, "identity"),
    **_of(
        "layers",
        layers,
        "COEFFICIENTS GATES NOTHING STATES concatenated h_detach summed",
    ),
    **_of("loops", loops, "native pallas step_by_step"),
    **_of(
        "objectives",
        objectives,
        "sigmoid_cross_entropy softmax_cross_entropy squared_error",
    ),
    **_of(
        "unrolls",
        unrolls,
        "both_modes bptt checkpointed randomly_truncated scan times truncated",
    ),
    **_there(
        "jnp",
        jnp,
        "abs arctan arctanh cos exp log1p maximum minimum multiply sin sinh sqrt square "
        "tanh",
    ),
    **_there("lax", lax, "cos erf exp logistic rsqrt sin tan tanh"),
    **_there(
        "jax.nn",
        jax.nn,
        "celu elu gelu glu hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu "
        "log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_sign softmax "
        "softplus sparse_plus sparse_sigmoid squareplus standardize swish tanh",
    ),
    **_there("jax.nn.initializers", jax.nn.initializers, "ones zeros"),
    **_there("jnp", jnp, "bfloat16 complex64 complex128 float16 float32 float64"),
    **_there("np", np, "complex64 complex128 float16 float32 float64"),
    "float": float,
    "complex": complex,
}
"""What is meant as it is: functions, options, types of numbers."""

DTYPES = "bfloat16 complex64 complex128 float16 float32 float64".split()
"""Of NumPy's dtypes."""

_BY_ID = {
    id(value): name
    for table in (VALUES, FACTORIES)
    for name, value in reversed(table.items())
}


def name_of(value: Any) -> str | None:
    """By identity: what merely looks like it has other functions in it."""
    return _BY_ID.get(id(value))


def closure_of(value: Any) -> tuple[str, dict[str, Any]] | None:
    """Which of `CLOSURES` made a function, and with what; None: none of them."""
    code = getattr(value, "__code__", None)
    if code is None:
        return None
    for name, make in CLOSURES.items():
        takes = inspect.signature(make).parameters
        if code in make.__code__.co_consts:
            inside = inspect.getclosurevars(value).nonlocals
            return (name, dict(inside)) if set(inside) <= set(takes) else None
    return None


def factory(name: str) -> Callable:
    """The factory of that name; one of `FACTORIES`."""
    return FACTORIES[name]
