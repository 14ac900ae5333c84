"""One gradient on one device and with its examples spread over several.

`python -m support.sharded N CASE …` measures cases on N devices of the CPU, a line of
JSON each; `run` does so in a process of its own.
"""

import json
import os
import subprocess
import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bptt_jax import _pytrees as trees
from bptt_jax import cells, layers, objectives, unrolls
from bptt_jax.verify import Member
from support import exchanges
from support.gradients import Case, arguments_of, error
from support.members import CELLS, COMBINED, LAYERS, UNROLLS

AXES = {"Auto": AxisType.Auto, "Explicit": AxisType.Explicit}
THROUGH = {name: m.options.get("unroll", unrolls.bptt) for name, m in UNROLLS.items()}
THROUGH |= {
    "bptt": partial(unrolls.bptt, chunk=2),
    "scan": unrolls.scan,
    "truncated, windows": partial(unrolls.truncated, window=4, stride=2),
}
MEMBERS = CELLS | COMBINED | LAYERS
MEMBERS["masked model, its loss"] = Member(
    lambda: layers.with_loss(
        layers.stack(layers.recurrent(cells.lstm(3, 4)), layers.dense(4, 2)),
        objectives.squared_error,
    ),
    targets=2,
)


class Spread(NamedTuple):
    """What is measured: a name, and which axis of the examples is spread how."""

    member: str
    unroll: str = "bptt"
    axes: str = "Auto"
    batch: tuple[int, ...] = (8,)
    axis: int = 0
    side: str = "plain"


def measure(case: Spread, devices: int) -> dict:
    member, mesh = MEMBERS[case.member], _mesh(devices, case.axes)
    layer, T = member.make(), 6
    at = arguments_of(member, layer, Case(T, case.batch, case.side, ()))

    def over(a, axis):
        spread = [None] * jnp.ndim(a)
        if axis < len(spread) and not trees.is_key(a):
            spread[axis] = "data"
        return jax.device_put(a, NamedSharding(mesh, PartitionSpec(*spread)))

    everywhere, along = partial(over, axis=99), partial(over, axis=1 + case.axis)
    spread = (
        jax.tree.map(everywhere, at.params),
        jax.tree.map(everywhere, at.carry),  # as `init_carry` makes it
        *jax.tree.map(along, (at.xs, at.side)),
    )
    f = jax.jit(_gradient(layer, THROUGH[case.unroll]))
    one = f.lower(*at[:4]).compile()
    with jax.set_mesh(mesh):
        many = f.lower(*spread).compile()
        found = many(*spread)
    want = one(*at[:4])
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True)
    text = many.as_text()
    return dict(
        error=max(error(a, b) for a, b in pairs),
        largest=max(float(np.abs(a).max()) for a in jax.tree.leaves(want)),
        exchanges=exchanges.found(text),
        work=exchanges.multiplications(text),
        work_of_one=exchanges.multiplications(one.as_text()),
        memory=many.memory_analysis().temp_size_in_bytes,
        memory_of_one=one.memory_analysis().temp_size_in_bytes,
        params=sum(np.size(a) for a in jax.tree.leaves(at.params)) * 8,
    )


def _mesh(devices: int, axes: str):
    return jax.make_mesh((devices,), ("data",), axis_types=(AXES[axes],))


def _gradient(layer, unroll):
    """Of a random functional of outputs and final state, by all that has a gradient."""

    def loss(params, carry, xs, side):
        out = jax.tree.leaves(unroll(layer, params, carry, xs, side))
        rng = np.random.default_rng(0)
        return sum((a * rng.normal(size=a.shape)).sum() for a in out)

    def gradient(*arguments):
        value, grads = jax.value_and_grad(loss, (0, 1, 2), allow_int=True)(*arguments)
        is_real = lambda a: a.dtype != jax.dtypes.float0
        return value, [a for a in jax.tree.leaves(grads) if is_real(a)]

    return gradient


def run(devices: int, cases: list[Spread]) -> list[dict]:
    """Each case measured, in a process with so many devices."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", "support.sharded", str(devices)]
    done = subprocess.run(
        command,
        input=json.dumps(cases),
        env=environment,
        capture_output=True,
        text=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(cases), done.stderr[-3000:]
    return results


def main():
    devices = int(sys.argv[1])
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", True)
    for case in json.load(sys.stdin):
        case = Spread(*case)._replace(batch=tuple(case[3]))
        try:
            result = measure(case, devices)
        except Exception as problem:
            result = dict(raised=f"{type(problem).__name__}: {problem}")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
