"""Operations of one step, counted in its program."""

import math
from typing import Any

import jax
from jax.extend import core

from bptt_jax import _pytrees as trees
from bptt_jax import layers
from bptt_jax.types import Layer, PyTree, Side, Whole

MOVING = frozenset(
    "bptt_jax_hold broadcast_in_dim complex concatenate conj convert_element_type copy "
    "copy_p device_put dynamic_slice dynamic_update_slice expand_dims gather imag iota "
    "optimization_barrier pad pvary real reduce_precision reshape rev scatter select_n "
    "sharding_constraint slice split squeeze stop_gradient transpose".split()
)
"""Primitives that give numbers as they are."""


def operations(layer: Layer, params: PyTree, carry, xs, side: Side) -> int:
    """Of one step of all examples, forward; see `Row.operations`.

    Args:
      params, carry, xs, side: as of `layer.fwd`, shapes and dtypes alone.
    """
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), xs)
    beside = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), side
    )
    program = jax.make_jaxpr(layers.plain(layer).fwd)(params, carry, one, beside)
    return _of_program(program.jaxpr)


def operations_of_whole(whole: Whole, params: PyTree, ys, side: Side) -> int:
    """Of a function of the whole sequence, for each of its steps."""
    program = jax.make_jaxpr(layers.plain(whole).apply)(params, ys, side)
    return _of_program(program.jaxpr) // trees.length(ys)


def _of_program(program: core.Jaxpr) -> int:
    return sum(map(_of_equation, program.eqns))


def _of_equation(eqn: Any) -> int:
    inner = [p for value in eqn.params.values() for p in _programs(value)]
    name = eqn.primitive.name
    if inner:
        counts = [_of_program(p) for p in inner]
        return eqn.params.get("length", 1) * (max if name == "cond" else sum)(counts)
    (taken, given) = (
        sum(math.prod(v.aval.shape) for v in vs if trees.is_floating(v.aval))
        for vs in (eqn.invars, eqn.outvars)
    )
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * given * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"]
        return 2 * given * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    if name in MOVING or name.startswith("random_"):
        return 0
    reduces = name.startswith("reduce_")
    return taken if reduces and given else given


def _programs(value: Any) -> list[core.Jaxpr]:
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    if isinstance(value, tuple | list):
        return [p for one in value for p in _programs(one)]
    return []
