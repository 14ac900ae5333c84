"""Gradients of `unrolls.bptt` for devices that are not here, and what is told of each."""

import functools
import json
import pathlib
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bptt_jax import cells, layers, loops, unrolls
from bptt_jax.loops import _unrolled
from elsewhere import devices, reading

TABLE = pathlib.Path(__file__).parent / "table.json"
CELLS = dict(elman=cells.elman, lstm=cells.lstm, gru=cells.gru)
B, T, I, H = 64, 256, 128, 256
SHAPE = f"(B, T, I, H) = ({B}, {T}, {I}, {H})"


def lowered(
    cell: str, mesh: list, save=layers.STATES, examples=B, loop=None, units=H, steps=T
):
    """Loss and its gradient of parameters and inputs, examples over all devices."""
    layer = layers.recurrent(CELLS[cell](I, units), save=save, loop=loop)
    spread = NamedSharding(Mesh(np.array(mesh), ("data",)), PartitionSpec(None, "data"))
    whole = NamedSharding(spread.mesh, PartitionSpec())
    params = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole),
        jax.eval_shape(layer.init, jax.random.key(0)),
    )
    xs = jax.ShapeDtypeStruct((steps, examples, I), jnp.float32, sharding=spread)

    def loss(params, xs):
        carry = layer.init_carry(params, (examples,))
        return (unrolls.bptt(layer, params, carry, xs)[1] ** 2).mean()

    return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, xs)


def temporary(made) -> int:
    return made.memory_analysis().temp_size_in_bytes


def on_gpu(cell: str, save=layers.STATES, options=None) -> dict:
    """One H100."""
    with tempfile.TemporaryDirectory() as folder:
        dump = dict(xla_dump_to=folder, xla_dump_hlo_as_text=True)
        made = lowered(cell, devices.h100(1), save).compile(dump | (options or {}))
        each = reading.thunks(folder, made.as_text())
    return {
        "operations a step": round(reading.operations(each) / T, 3),
        "host launches a step": round(reading.host_launches(each) / T, 3),
        "temporary bytes": temporary(made),
    }


def rolled_on_gpu(cell: str) -> dict:
    """Bodies of one step, as `benchmarks._lowering` has them."""
    jax.clear_caches()
    with mock.patch.object(_unrolled, "LONGEST", 1):
        found = on_gpu(cell)
    jax.clear_caches()
    return found


def on_tpu(cell: str, save=layers.STATES) -> dict:
    """One v5e."""
    made = lowered(cell, devices.v5e("2x2")[:1], save).compile()
    return {
        "loops, turns of instructions": reading.loops(made.as_text()),
        "temporary bytes": temporary(made),
    }


def one_kernel(cell: str, chip: str, units: int = H, examples: int = B) -> dict:
    """One TPU, by `loops.pallas`: a stretch is a kernel each way. T + 1 is no multiple of
    the steps of one, so there are two kinds of them.
    """
    mesh = devices.tpu(chip)
    how = dict(loop=loops.pallas, units=units, examples=examples, steps=T + 1)
    text = lowered(cell, mesh, **how).compile().as_text()
    return {
        "kernels of Mosaic": text.count('custom_call_target="tpu_custom_call"'),
        "loops, turns of instructions": reading.loops(text),
    }


def _carry(layer, examples: int, params):
    return layer.init_carry(params, (examples,))


def largest(cell: str, examples: int) -> int:
    """The most units, a multiple of 128, that `loops.pallas` has room for."""
    supported = 0
    for units in range(128, 4096, 128):
        layer = layers.recurrent(CELLS[cell](I, units))
        params = jax.eval_shape(layer.init, jax.random.key(0))
        xs = jax.ShapeDtypeStruct((T + 1, examples, I), jnp.float32)
        carry = jax.eval_shape(functools.partial(_carry, layer, examples), params)
        shapes = params, carry, xs
        if loops.pallas.supports(CELLS[cell](I, units), layers.STATES, shapes, "tpu"):
            break
        supported = units
    return supported


def spread(cell: str, mesh: str) -> dict:
    """Examples over many devices, by `jit` alone."""
    kind, shape = mesh.split()
    over = devices.h100(int(shape)) if kind == "h100" else devices.v5e(shape)
    made = lowered(cell, over, examples=max(B, 8 * len(over))).compile()
    return {
        "collectives": reading.collectives(made.as_text()),
        "temporary bytes of a device": temporary(made),
    }


PROGRAMS = {
    **{f"h100, {cell}": functools.partial(on_gpu, cell) for cell in CELLS},
    "h100, lstm, gates kept": functools.partial(on_gpu, "lstm", layers.GATES),
    "h100, lstm, rolled": functools.partial(rolled_on_gpu, "lstm"),
    **{
        f"h100, {cell}, graph_options": functools.partial(
            on_gpu, cell, options=loops.graph_options
        )
        for cell in ("elman", "lstm")
    },
    **{f"v5e, {cell}": functools.partial(on_tpu, cell) for cell in CELLS},
    **{
        f"v5e, {cell}, one kernel": functools.partial(one_kernel, cell, "v5e:2x2")
        for cell in CELLS
    },
    **{
        f"{chip.split(':')[0]}, lstm, one kernel": functools.partial(
            one_kernel, "lstm", chip
        )
        for chip in ("v4:2x2x1", "v5p:2x2x1", "v6e:2x2")
    },
    **{f"8 h100, {cell}": functools.partial(spread, cell, "h100 8") for cell in CELLS},
    **{f"16 v5e, {cell}": functools.partial(spread, cell, "v5e 4x4") for cell in CELLS},
    "256 v5e, lstm": functools.partial(spread, "lstm", "v5e 16x16"),
}


def table() -> dict[str, dict]:
    return json.loads(TABLE.read_text(encoding="utf-8"))
