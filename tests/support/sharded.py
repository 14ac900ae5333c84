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
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bptt_jax import _pytrees as trees
from bptt_jax import cells, layers, loops, objectives, unrolls
from bptt_jax.interop.linen import RNN
from bptt_jax.verify import Member
from support import compiled, exchanges
from support.changed import with_parts
from support.gradients import Case, arguments_of, error
from support.members import CELLS, COMBINED, LAYERS, UNROLLS
from support.wholes import WHOLES

AXES = {"Auto": AxisType.Auto, "Explicit": AxisType.Explicit}
THROUGH = {name: m.options.get("unroll", unrolls.bptt) for name, m in UNROLLS.items()}
THROUGH |= {
    "bptt": partial(unrolls.bptt, chunk=2),
    "scan": unrolls.scan,
    # of one stretch XLA computes the projections once, for its two passes, on one device alone
    "checkpointed": partial(unrolls.checkpointed, chunk=2, slots=2),
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


def _merging(cell):
    """A mutant: steps and examples as one axis, which no spread axis can be a part of."""

    def contract(p, xs, hs, coeffs, deltas):
        d_p, d_xs = cells.contract(cell, p, xs, hs, coeffs, deltas)
        xs, deltas = (a.reshape(-1, a.shape[-1]) for a in (xs, deltas))
        return d_p | dict(w_x=xs.T @ deltas), d_xs

    return with_parts(cell, contract=contract)


MUTANT = "steps and examples merged"
MEMBERS_AND_MUTANT = (
    MEMBERS | WHOLES | {MUTANT: Member(lambda: _merging(cells.elman(3, 4)))}
)


class Spread(NamedTuple):
    """What is measured: a name, and what is spread how.

    member: of `MEMBERS`, or "flax.linen.RNN" (batch-major).
    unroll: of `THROUGH`, or "pullback".
    axis: the axis of the examples that is spread.
    units: how many devices share the units of a layer; the others share its examples.
    """

    member: str
    unroll: str = "bptt"
    axes: str = "Auto"
    batch: tuple[int, ...] = (32,)
    axis: int = 0
    side: str = "plain"
    units: int = 1


def measure(case: Spread, devices: int) -> dict:
    sizes = devices // case.units, case.units
    kind = (AXES[case.axes],) * 2
    mesh = jax.make_mesh(sizes, ("data", "model"), axis_types=kind)

    def over(axis: int, name: str, a):
        spread = [None] * jnp.ndim(a)
        if -len(spread) <= axis < len(spread) and not trees.is_key(a):
            spread[axis] = name
        return jax.device_put(a, NamedSharding(mesh, PartitionSpec(*spread)))

    if case.member == "flax.linen.RNN":
        f, params, rest, batch_axis = *_of_flax(), case.axis
    else:
        f, params, rest = _of_member(case)
        batch_axis = 1 + case.axis
    weights = partial(over, -1, "model") if case.units > 1 else partial(over, 99, "")
    carry, *others = rest
    spread = (
        jax.tree.map(weights, params),
        jax.tree.map(partial(over, 99, ""), carry),  # as `init_carry` makes it
        *jax.tree.map(partial(over, batch_axis, "data"), others),
    )
    with loops.preferred(loops.step_by_step):  # a kernel has no operations to count
        one = jax.jit(f).lower(params, *rest).compile()
    with jax.set_mesh(mesh):
        many = jax.jit(f).lower(*spread).compile()
        found = many(*spread)
    want = one(params, *rest)
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
        params=sum(np.size(a) for a in jax.tree.leaves(params)) * 8,
    )


def _of_member(case: Spread):
    member = MEMBERS_AND_MUTANT[case.member]
    layer = member.make()
    at = arguments_of(member, layer, Case(6, case.batch, case.side, ()))
    if case.unroll == "pullback":
        f = partial(_pulled_back, layer)
    else:
        f = _gradient(partial(THROUGH[case.unroll], layer))
    return f, at.params, (at.carry, at.xs, at.side)


def _seen(seen):
    return unrolls.contract(seen), seen.d_states


def _pulled_back(layer, params, carry, xs, side):
    """The same gradient, by the two passes one by one."""
    (carry, ys), back = unrolls.pullback(layer, params, carry, xs, side, watch=_seen)
    rng = np.random.default_rng(0)
    d_carry, d_ys = jax.tree.map(
        lambda a: a * 0 + rng.normal(size=a.shape), (carry, ys)
    )
    pulled = back(d_carry, d_ys)
    return ys, pulled.d_params, pulled.d_carry, pulled.d_xs, pulled.seen


def _of_flax():
    model = RNN(nn.LSTMCell(4, param_dtype=jnp.float64))
    xs = np.random.default_rng(0).normal(size=(32, 6, 3))
    variables = jax.device_get(model.init(jax.random.key(0), xs))
    return _gradient(lambda p, c, xs: model.apply(p, xs)), variables, ((), xs)


def _gradient(f):
    """Of a random functional of what f returns, by all that has a gradient."""

    def loss(*arguments):
        rng = np.random.default_rng(0)
        out = jax.tree.leaves(f(*arguments))
        # or one device has cuts of the weights as constants, several in their memory
        weights = jax.lax.optimization_barrier([rng.normal(size=a.shape) for a in out])
        return sum((a * w).sum().real for a, w in zip(out, weights, strict=True))

    def gradient(*arguments):
        each = jax.value_and_grad(loss, (0, 1, 2), allow_int=True)
        value, grads = each(*arguments)
        is_real = lambda a: a.dtype != jax.dtypes.float0
        return value, [a for a in jax.tree.leaves(grads) if is_real(a)]

    return gradient


def run(devices: int, cases: list[Spread]) -> list[dict]:
    """Each case measured, in a process with so many devices."""
    environment = {
        **os.environ,
        **compiled.environment(),
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
