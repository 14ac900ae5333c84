"""Advice for one compiler, out of the mathematics: `hold(a)` is `a`."""

import jax
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from bptt_jax.types import PyTree


def hold(tree: PyTree) -> PyTree:
    """The same arrays, on a CPU computed as they are and not again in each use.

    XLA:CPU has what it fuses computed anew by each row of a product that reads it, and
    cuts a kernel over all gates into one for each; a barrier keeps it from that. Other
    compilers fuse better without, so there it is nothing (`benchmarks/levers.py`). A
    primitive, because the platform is known when a program is lowered, not before.
    """
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(_hold.bind(*leaves))


_hold = Primitive("bptt_jax_hold")
_hold.multiple_results = True


@_hold.def_abstract_eval
def _kinds(*kinds):
    return kinds


def _jvp(primals, tangents):
    return _hold.bind(*primals), list(tangents)  # the derivative of the identity


def _batch(args, axes):
    return _hold.bind(*args), axes


_hold.def_impl(jax.jit(lambda *args: list(args)))
ad.primitive_jvps[_hold] = _jvp
batching.primitive_batchers[_hold] = _batch
mlir.register_lowering(_hold, lambda _, *args: args)
mlir.register_lowering(
    _hold,
    mlir.lower_fun(lambda *args: lax.optimization_barrier(args), multiple_results=True),
    platform="cpu",
)
