"""Arrays whose type says how they are spread over devices (a mesh of Explicit axes).

Over Auto axes the compiler decides and the types say nothing: everything here is then
the identity. Over Explicit ones, which `jax.make_mesh` gives by default, a loop's carry
must keep its sharding, a cotangent has that of its primal, and a sum over sharded axes
names the sharding of its result.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes, reshard

PyTree = Any
DRAWS_SPREAD = "out_sharding" in inspect.signature(jax.random.bernoulli).parameters
"""Whether JAX draws an array in parts; an older one draws it whole on every device."""


def explicit(a: Any) -> bool:
    """Whether the type of an array (or the type itself) says how it is spread."""
    sharding = getattr(_type(a), "sharding", None)
    return (
        isinstance(sharding, NamedSharding)
        and AxisType.Explicit in sharding.mesh.axis_types
    )


def _type(a: Any) -> Any:
    is_type = hasattr(a, "sharding") and not isinstance(a, jax.Array)
    return a if is_type else jax.typeof(a)


def like(types: PyTree, tree: PyTree) -> PyTree:
    """Each leaf spread as the type in its place is."""

    def leaf(kind, a):
        if not explicit(kind) or _type(kind).sharding == jax.typeof(a).sharding:
            return a
        return reshard(a, _type(kind).sharding)

    return jax.tree.map(leaf, types, tree)


def made_like(types: PyTree, make: Callable, *arguments: PyTree) -> PyTree:
    """`make(*arguments)`, spread as the type in the place of each leaf is.

    What `make` broadcasts is made where it is wanted, and its cotangent summed there.
    """
    if not any(map(explicit, jax.tree.leaves(types))):
        return make(*arguments)
    spread = jax.tree.map(lambda kind: _type(kind).sharding, types)
    return auto_axes(make, out_sharding=spread)(*arguments)


def bernoulli(key: Array, p: Any, like: Array, leading: int = 0) -> Array:
    """`jax.random.bernoulli` of the shape of `like` without its leading axes, spread so.

    The values are those of `jax.random.bernoulli`; a device draws its own part.
    """
    shape = like.shape[leading:]
    if not explicit(like) or not DRAWS_SPREAD:
        return jax.random.bernoulli(key, p, shape)
    of_all = jax.typeof(like).sharding
    spread = NamedSharding(of_all.mesh, PartitionSpec(*of_all.spec[leading:]))
    return jax.random.bernoulli(key, p, shape, out_sharding=spread)


def of_rows(table: Array, indices: Array) -> NamedSharding | None:
    """How rows of `[N, O]` are spread that are chosen by indices `[...]`."""
    if not explicit(indices):
        return None
    spread = jax.typeof(indices).sharding
    last = jax.typeof(table).sharding.spec[-1] if explicit(table) else None
    return NamedSharding(spread.mesh, PartitionSpec(*spread.spec, last))


def of_product(a: Array, b: Array) -> NamedSharding | None:
    """How `[..., I]` and `[..., O]` spread make their product `[I, O]` spread.

    b may have more axes in the place of its last one: those beyond the leading axes of a.
    """
    if not (explicit(a) or explicit(b)):
        return None
    mesh = jax.typeof(a if explicit(a) else b).sharding.mesh
    rows, columns = (jax.typeof(x).sharding.spec[a.ndim - 1 :] for x in (a, b))
    rows = (None,) if rows[0] in columns else rows  # an axis of the mesh stands once
    return NamedSharding(mesh, PartitionSpec(*rows, *columns))
