"""Names of JAX that have moved since the oldest version that is supported.

Each is the newest version's own where there is one. Nowhere else is a version asked for.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax import Array, lax
from jax.extend.core import ClosedJaxpr

OLDEST = (0, 7, 2)

if jax.__version_info__ < OLDEST:
    raise ImportError(
        f"bptt_jax needs JAX {'.'.join(map(str, OLDEST))} or later, got {jax.__version__}; "
        'pip install --upgrade "jax>=0.7.2"'
    )

try:
    from jax import enable_x64
except ImportError:  # before 0.8
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]

__all__ = [
    "bind",
    "enable_x64",
    "held_program",
    "scan_operands",
    "to_varying",
    "varying_axes",
]


# the results of these are the results of the program they hold
CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2",
         "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")  # fmt: skip


def held_program(eqn: Any) -> ClosedJaxpr | None:
    """The program that a call holds; None: it is no call."""
    if eqn.primitive.name not in CALLS:
        return None
    held = (eqn.params.get(k) for k in ("jaxpr", "call_jaxpr", "fun_jaxpr"))
    found = next((h for h in held if h is not None), None)
    if found is None or hasattr(found, "consts"):
        return found
    return ClosedJaxpr(found, ())


def bind(eqn: Any, operands: Sequence[Any], **others: Any) -> list[Any]:
    """The results of an equation, the rules of what it holds included; `others` of its
    parameters are as they are given.

    It runs as it was traced: over which axes of a mesh types say nothing is told there.
    """
    params = eqn.primitive.get_bind_params(eqn.params | others)
    held, params = params if isinstance(params, tuple) else ((), params)  # older JAX
    with eqn.ctx.manager:
        found = eqn.primitive.bind(*held, *operands, **params)
    return list(found) if eqn.primitive.multiple_results else [found]


def scan_operands(args: Sequence[Any], params: dict[str, Any]) -> list[list[Any]]:
    """Constants, carry and inputs of a scan's equation."""
    if "ft_in" in params:  # 0.12
        return [list(part) for part in params["ft_in"].update(args).unpack()]
    n, m = params["num_consts"], params["num_consts"] + params["num_carry"]
    return [list(args[:n]), list(args[n:m]), list(args[m:])]


def varying_axes(a: Any) -> frozenset[Any]:
    """The axes of `shard_map`'s mesh over which an array differs."""
    kind = jax.typeof(a)
    return kind.vma if hasattr(kind, "vma") else kind.mat.varying  # 0.12: among others


def to_varying(a: Array, axes: Iterable[Any]) -> Array:
    """`lax.pcast(a, axes, to="varying")`, before 0.8 `lax.pvary(a, axes)`."""
    if hasattr(lax, "pcast"):
        return lax.pcast(a, tuple(axes), to="varying")
    return lax.pvary(a, tuple(axes))  # pyright: ignore[reportAttributeAccessIssue]
