"""A group of configurations as one compiled program, over lanes and devices.

Of a group of D·L configurations each of D devices has L, its lanes, mapped by `vmap`; one
lane is run as it would be alone. Nothing is exchanged between devices.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bptt_jax._score import Score, refuse_unknown
from bptt_jax.sweep import _training
from bptt_jax.sweep._training import Training

AXIS = "configs"


class Program(NamedTuple):
    """What runs a group, compiled; all arguments but the shared ones are of a group.

    begin: `(configs) -> lanes`.
    advance: `(configs, lanes, items, n) -> (lanes, metrics)`; the lanes' buffers are
        donated, items and n are shared.
    measure: `(configs, lanes, held_out) -> metrics`; held_out is shared.
    size: configurations of a group.
    mesh: the devices.
    """

    begin: Callable
    advance: Callable
    measure: Callable
    size: int
    mesh: Mesh


def mesh_of(devices: list[Any]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,))


def program(training: Training, lanes: int, mesh: Mesh) -> Program:
    over = functools.partial(_over_group, mesh=mesh, lanes=lanes)
    begin, advance, measure = (
        functools.partial(f, training)
        for f in (_training.begin, _training.advance, _training.measure)
    )
    return Program(
        jax.jit(over(begin)),
        jax.jit(over(advance, shared=2), donate_argnums=1),
        jax.jit(over(measure, shared=1)),
        lanes * mesh.size,
        mesh,
    )


def _over_group(f: Callable, mesh: Mesh, lanes: int, shared: int = 0) -> Callable:
    """`f` of one configuration as a function of a group; its last arguments are shared."""
    one, own = PartitionSpec(), PartitionSpec(AXIS)

    def block(*arguments):
        cut = len(arguments) - shared
        each, same = arguments[:cut], arguments[cut:]
        if lanes > 1:
            return jax.vmap(f, (0,) * cut + (None,) * shared)(*arguments)
        out = f(*jax.tree.map(lambda a: a[0], each), *same)
        return jax.tree.map(lambda a: a[None], out)

    def group(*arguments):
        specs = (own,) * (len(arguments) - shared) + (one,) * shared
        # functions of users make what does not vary over the mesh, and carry it in loops
        return jax.shard_map(
            block, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False
        )(*arguments)

    return group


def column(name: str, values: list) -> np.ndarray:
    """A column's numbers as its programs get them: float32 or int32, and uint32 where
    whole numbers (seeds) lie beyond that.

    Raises:
      ValueError: one is not what it was any more in 32 bits, or no seed.
    """
    whole = all(isinstance(v, int) for v in values)
    low, high = min(values), max(values)
    if name == "seed" and not (whole and low >= 0 and high < 2**32):
        raise ValueError(
            f"seed: expected whole numbers in [0, 2^32), got {low!r} to {high!r}"
        )
    for kind in (np.int32, np.uint32) if whole else ():
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.array(values, kind)
    with np.errstate(over="ignore", under="ignore"):
        found = np.array(values, np.float64).astype(np.float32)
    lost = ~np.isfinite(found) | ((found == 0) != (np.array(values) == 0))
    if whole or lost.any():
        worst = max(low, high, key=abs) if whole else values[int(np.argmax(lost))]
        raise ValueError(f"{name}: {worst!r} leaves the range of 32 bits")
    return found


def configs(
    columns: dict[str, np.ndarray], rows: list[int], mesh: Mesh
) -> dict[str, Array]:
    """The rows' numbers as arrays `[G]` over the devices."""
    return {name: spread(values[rows], mesh) for name, values in columns.items()}


def refuse_early(
    training: Training, columns: dict[str, np.ndarray], score: Score
) -> None:
    """Raises what the training itself raises, from the shapes alone."""
    config = {k: jax.ShapeDtypeStruct((), v.dtype) for k, v in columns.items()}
    lane = jax.eval_shape(functools.partial(_training.begin, training), config)
    if score.name is None:
        return
    item = jax.tree.map(lambda a: a[0], training.read(0, 1))
    names = set(jax.eval_shape(training.step, config, lane.state, item)[1])
    if training.evaluate is not None:
        at = config, lane.state, training.held_out
        names |= set(jax.eval_shape(training.evaluate, *at))
    refuse_unknown(score, names - {"real"})


def spread(a: np.ndarray, mesh: Mesh) -> Array:
    """An array `[G, ...]` over the devices of the mesh, of all processes."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.make_array_from_callback(a.shape, sharding, lambda index: a[index])


@jax.jit
def add(sums: Any, more: Any, share: Array) -> Any:
    """Compiled: arrays of several processes are no operands of single operations."""
    return jax.tree.map(lambda a, b: a + share * b, sums, more)


def count(n: int) -> Array:
    return jnp.int32(n)
