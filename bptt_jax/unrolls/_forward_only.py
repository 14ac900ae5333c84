"""The identity, for what has a derivative forward and none in reverse.

A gradient that is a loop whose number of turns is not known beforehand cannot be
transposed. Its results pass through here, so that whoever asks JAX for it is told what
to do instead, where JAX would speak of the loop.
"""

import functools

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def forward_only(tree, words: str):
    """The tree; a transpose of it raises a ValueError with these words."""
    return jax.tree.map(functools.partial(_forward_only.bind, words=words), tree)


_forward_only = Primitive("bptt_jax_forward_only")


@_forward_only.def_impl
@_forward_only.def_abstract_eval
def _same(a, *, words):
    del words
    return a


def _refuse(d, a, *, words):
    del d, a
    raise ValueError(words)


ad.deflinear2(_forward_only, _refuse)
batching.defvectorized(_forward_only)
mlir.register_lowering(_forward_only, mlir.lower_fun(_same, multiple_results=False))
