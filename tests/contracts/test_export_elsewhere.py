"""A trained model as a program that runs where this package is not.

Sizes of batch and time may be symbols: `jax.export.symbolic_shape`.
"""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from bptt_jax import cells, estimators, layers, models, objectives, unrolls
from bptt_jax.types import Batch, Side
from support.gradients import QUICK, error, quick_jit

I, H, O = 3, 4, 2
CELL = cells.lstm(I, H, param_dtype=jnp.float64)
MODEL = models.features((CELL,), O, H)


@functools.cache
def parameters():
    """Trained for a few steps, so that nothing is as it was made."""
    with jax.numpy_dtype_promotion("standard"):
        made = MODEL.init(jax.random.key(0))
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), made)
    rng = np.random.default_rng(0)
    side = Side(targets=jnp.asarray(rng.normal(size=(6, 4, O))))
    batch = Batch(jnp.asarray(rng.normal(size=(6, 4, I))), side)
    grad = estimators.exact(MODEL, objectives.squared_error).grad

    def step(params, key):
        grads = grad(params, (), batch, key)[1]
        return jax.tree.map(lambda p, d: p - 0.1 * d, params, grads), None

    @quick_jit
    def trained(params):
        return jax.lax.scan(step, params, jax.random.split(jax.random.key(1), 5))[0]

    return trained(params)


def sequence(T, batch, seed=1):
    """The leaves of a carry, inputs, mask and resets."""
    rng = np.random.default_rng(seed)
    carry = MODEL.init_carry(parameters(), (batch,))
    states = [rng.normal(size=a.shape) for a in jax.tree.leaves(carry)]
    flags = [rng.random((T, batch)) < p for p in (0.8, 0.3)]
    return states, rng.normal(size=(T, batch, I)), *flags


def program(unroll):
    """Leaves in, leaves out; the parameters are in the program."""
    structure = jax.tree.structure(MODEL.init_carry(parameters(), (1,)))

    def run(states, xs, mask, resets):
        carry = structure.unflatten(states)
        side = Side(mask=mask, resets=resets)
        carry, ys = unroll(MODEL, parameters(), carry, xs, side)
        return jax.tree.leaves(carry), ys

    return run


def step(states, x):
    """One step of the same: what a controller or a server calls."""
    structure = jax.tree.structure(MODEL.init_carry(parameters(), (1,)))
    carry = structure.unflatten(states)
    carry, ys = unrolls.scan(MODEL, parameters(), carry, x[None])
    return jax.tree.leaves(carry), ys[0]


def shapes(T, B):
    like = jax.eval_shape(lambda: sequence(1, 1))
    states = [jax.ShapeDtypeStruct((B, a.shape[1]), a.dtype) for a in like[0]]
    xs = jax.ShapeDtypeStruct((T, B, I), like[1].dtype)
    return states, xs, *[jax.ShapeDtypeStruct((T, B), bool)] * 2


def exported(f, T, B):
    return export.export(jax.jit(f))(*shapes(T, B))


def gradient(unroll):
    """Of parameters, as arguments: what an optimizer that is elsewhere needs."""

    def loss(params, xs, targets):
        carry = MODEL.init_carry(params, (xs.shape[1],))
        layer = layers.with_loss(MODEL, objectives.squared_error)
        return unroll(layer, params, carry, xs, Side(targets=targets))[1].sum()

    return jax.grad(loss)


def worst(found, want):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True)
    return max(error(a, b) for a, b in pairs)


WITH_8 = functools.partial(unrolls.bptt, chunk=8)
SYMBOLS = {
    "scan, both": (unrolls.scan, "t, b"),
    "bptt, both, a chunk that divides": (WITH_8, "8*n, b"),
    "bptt, batch": (unrolls.bptt, "24, b"),
    "truncated, batch": (functools.partial(unrolls.truncated, window=8), "24, b"),
    "checkpointed, batch": (functools.partial(unrolls.checkpointed, slots=2), "24, b"),
}
QUICKLY = "scan, both", "bptt, both, a chunk that divides", "bptt, batch"


def tiers(names, fast):
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", tiers(SYMBOLS, QUICKLY))
def test_a_gradient_of_any_batch_and_length(name):
    """One program; called at two sizes, at least where a size is a symbol."""
    unroll, dims = SYMBOLS[name]
    T, B = export.symbolic_shape(dims)
    params = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), parameters()
    )
    xs, targets = (jax.ShapeDtypeStruct((T, B, n), jnp.float64) for n in (I, O))
    f = gradient(unroll)
    made = export.export(jax.jit(f))(params, xs, targets)
    for t, b in ((24, 3), (24 if isinstance(T, int) else 16, 1)):
        rng = np.random.default_rng(t)
        at = parameters(), *(rng.normal(size=(t, b, n)) for n in (I, O))
        want = jax.jit(f, compiler_options=QUICK)(*at)
        assert worst(made.call(*at), want) <= 1e-10
        assert min(np.abs(a).max() for a in jax.tree.leaves(want)) > 1e-3


REFUSED = {
    "bptt": unrolls.bptt,
    "bptt, a chunk": WITH_8,
    "checkpointed": unrolls.checkpointed,
    "truncated": functools.partial(unrolls.truncated, window=8),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_length_that_is_a_symbol_is_refused_in_words(name):
    T, B = export.symbolic_shape("t, b")
    with pytest.raises(ValueError, match=r"xs: .*the symbol t; take unrolls\.scan"):
        exported(program(REFUSED[name]), T, B)


# In a fresh process without this package


ELSEWHERE = """
import sys
sys.modules["bptt_jax"] = None  # as if it were not installed
try:
    import bptt_jax
except ImportError:
    pass
else:
    raise AssertionError("bptt_jax is there")
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax import export
data = np.load("arrays.npz")
load = lambda name: export.deserialize(bytearray(open(name, "rb").read()))
states = [data[f"state{i}"] for i in range(len(data.files) - 3)]
after, ys = load("unroll").call(states, data["xs"], data["mask"], data["resets"])
found = {f"state{i}": a for i, a in enumerate(after)} | {"ys": ys}
step = load("step")
for t, x in enumerate(data["xs"]):
    states, y = step.call(states, x)
    found[f"y{t}"] = y
np.savez("found.npz", **found)
assert not [m for m in sys.modules if m.startswith("bptt_jax.")]
print("done")
"""


def test_runs_where_this_package_is_not(tmp_path):
    """The unroll with mask and resets, and step after step: the outputs that are here."""
    pytest.importorskip("flatbuffers", reason="JAX writes exported programs with it")
    T, B = export.symbolic_shape("t, b")
    run = program(unrolls.scan)
    states, xs, mask, resets = sequence(7, 3)
    (tmp_path / "unroll").write_bytes(exported(run, T, B).serialize())
    made = export.export(jax.jit(step))(
        shapes(T, B)[0], jax.ShapeDtypeStruct((B, I), xs.dtype)
    )
    (tmp_path / "step").write_bytes(made.serialize())
    given = {f"state{i}": a for i, a in enumerate(states)}
    np.savez(tmp_path / "arrays.npz", xs=xs, mask=mask, resets=resets, **given)
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr[-3000:]
    found = np.load(tmp_path / "found.npz")
    bptt = quick_jit(program(unrolls.bptt))
    after, ys = bptt(states, xs, mask, resets)
    assert error(found["ys"], ys) <= 1e-12
    for i, a in enumerate(after):
        assert error(found[f"state{i}"], a) <= 1e-12
    every = np.ones_like(mask)
    _, ys = bptt(states, xs, every, ~every)
    steps = [found[f"y{t}"] for t in range(len(xs))]
    assert error(np.stack(steps), ys) <= 1e-12
    assert error(found["ys"], ys) > 1e-2  # mask and resets were not idle
