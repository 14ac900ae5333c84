"""The gradient lowers for every platform: what can be tested of them anywhere."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import layers, unrolls
from support import tiers
from support.gradients import Case, arguments_of
from support.members import ALIKE, CELLS
from support.members import UNROLLS as MEMBERS

PLATFORMS = ("cpu", "cuda", "tpu")
CHUNKED = functools.partial(unrolls.bptt, chunk=2)
UNROLLS = {
    **{
        name: (functools.partial(member.unroll, chunk=2), layers.recurrent)
        for name, member in MEMBERS.items()
    },
    "bptt, remat": (CHUNKED, lambda cell: layers.remat(layers.recurrent(cell))),
    "scan": (unrolls.scan, lambda cell: cell),
}


@functools.cache
def gradient(name: str, unroll: str):
    """The gradient of a member under an unroll, jitted, and arguments for it."""
    run, lift = UNROLLS[unroll]
    cell = CELLS[name].make()
    steps = 5 if name == "lstm" else 4  # a shorter last stretch is another program
    at = arguments_of(CELLS[name], cell, Case(steps, (2,), "both", ()))

    def loss(params, carry, xs, side):
        carry, ys = run(lift(cell), params, carry, xs, side)
        return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves((carry, ys)))

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2))), at[:4]


def export(name: str, unroll: str):
    f, arguments = gradient(name, unroll)
    return jax.export.export(f, platforms=PLATFORMS)(*arguments)


def is_fast(name, unroll):
    return name == "lstm" or (unroll == "bptt" and name not in ALIKE)


@pytest.mark.parametrize(("name", "unroll"), tiers.pairs(is_fast, UNROLLS))
def test_lowers_for_cpu_cuda_and_tpu(name, unroll):
    exported = export(name, unroll)
    assert exported.platforms == PLATFORMS
    wanted = jax.tree.leaves(gradient(name, unroll)[1][:3])
    _, *grads = exported.out_avals
    assert [(a.shape, a.dtype) for a in grads] == [(a.shape, a.dtype) for a in wanted]


@pytest.mark.parametrize(
    "unroll", ["bptt", pytest.param("bptt, remat", marks=pytest.mark.slow)]
)
def test_an_exported_gradient_is_the_gradient(unroll):
    """Called on the platform that is here."""
    same(export("lstm", unroll), *gradient("lstm", unroll))


def test_as_bytes_it_still_is():
    """Of a function of leaves: JAX asks that classes be registered to be written."""
    pytest.importorskip("flatbuffers", reason="JAX writes exported programs with it")
    f, arguments = gradient("lstm", "bptt")
    leaves, structure = jax.tree.flatten(arguments)
    flat = jax.jit(lambda *leaves: jax.tree.leaves(f(*structure.unflatten(leaves))))
    data = jax.export.export(flat, platforms=PLATFORMS)(*leaves).serialize()
    same(jax.export.deserialize(data), flat, leaves)


def same(exported, f, arguments):
    found, want = exported.call(*arguments), f(*arguments)
    # of order 1; one that is left of others is as exact as they are
    chex.assert_trees_all_close(found, want, rtol=1e-12, atol=1e-15)
    assert all(np.abs(a).max() > 1e-3 for a in jax.tree.leaves(want))
