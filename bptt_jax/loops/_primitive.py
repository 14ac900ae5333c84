"""A stretch of time as one primitive that is *defined* as what `step_by_step` does.

    bind(*params, *carry, *xs, *firsts) -> (*carry, *ys, *sums)

Its derivatives, its transpose, batches that have no rule below, exported programs, other
platforms and programs over several devices are those of the definition (1); one lowering, for
one CPU, calls a kernel made from the program of one step. firsts: what the first of xs, which
are states after each step, are before the first one.

    (1)  the definition                       a jaxpr, under `vmap` where there are axes
    (2)  a batch of examples                  one more axis of the rows of a step
    (3)  a batch of parameters, or of         models side by side
         examples with sums over each
    (4)  a batch of either over (3)           (1) under `vmap`
"""

import functools
import math
from typing import NamedTuple

import jax
from jax.extend import core
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

from bptt_jax.native import Kinds


class Stretch(NamedTuple):
    """Static: what is run.

    step: the jaxpr of a step, `(params, carry, lags, x) -> (carry, y, sums)`.
    definition: that of all steps.
    kinds: how a kernel runs the step.
    batch: axes of examples of the carry.
    rows: for each of xs whether it has these axes, after that of time.
    length: steps.
    """

    step: core.ClosedJaxpr
    definition: core.ClosedJaxpr
    kinds: Kinds
    batch: tuple[int, ...]
    rows: tuple[bool, ...]
    length: int

    @property
    def ys(self) -> int:
        counts = self.kinds.counts
        return len(self.step.jaxpr.outvars) - counts.carry - counts.sums


loop = Primitive("bptt_jax_loop")
loop.multiple_results = True


def definition(
    *operands, stretch: Stretch, lead: tuple[int, ...], models: tuple[bool, ...] | None
):
    """(1): `lead` are sizes of (2), `models` which operands have the axis of (3)."""
    p, c, lags, sums = stretch.kinds.counts
    run = core.jaxpr_as_fun(stretch.definition)
    axes = (
        [None] * p + [0] * c + [1 if row else None for row in stretch.rows] + [0] * lags
    )
    for _ in lead:
        run = jax.vmap(run, axes, [0] * c + [1] * stretch.ys + [0] * sums)
    if models is not None:
        run = jax.vmap(run, [0 if m else None for m in models])
    return run(*operands)


@loop.def_abstract_eval
def _kinds(*kinds, **static):
    return jax.make_jaxpr(functools.partial(definition, **static))(*kinds).out_avals


def _jvp(primals, tangents, **static):
    moving = [i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero)]

    def of(*moved):
        operands = list(primals)
        for i, a in zip(moving, moved, strict=True):
            operands[i] = a
        return definition(*operands, **static)

    return jax.jvp(of, [primals[i] for i in moving], [tangents[i] for i in moving])


def _transpose(d_results, *operands, **static):
    unknown = [i for i, a in enumerate(operands) if ad.is_undefined_primal(a)]

    def of(*moved):
        full = list(operands)
        for i, a in zip(unknown, moved, strict=True):
            full[i] = a
        return definition(*full, **static)

    shapes = [operands[i].aval for i in unknown]
    d_results = [ad.instantiate_zeros(d) for d in d_results]
    found = iter(jax.linear_transpose(of, *shapes)(d_results))
    return [next(found) if i in unknown else None for i in range(len(operands))]


def _batch(operands, axes, *, stretch: Stretch, lead, models):
    size = next(
        a.shape[i] for a, i in zip(operands, axes, strict=True) if i is not None
    )
    p, c, lags, sums = stretch.kinds.counts
    x, n = len(stretch.rows), c + stretch.ys + sums
    shared = [p + c + i for i, row in enumerate(stretch.rows) if not row]
    of_weights = (*axes[:p], *(axes[i] for i in shared))
    if models is not None:  # (4)
        run = functools.partial(definition, stretch=stretch, lead=lead, models=models)
        return jax.vmap(run, axes)(*operands), [0] * n
    if sums or any(axis is not None for axis in of_weights):  # (3)
        moved = [
            a if i is None else batching.bdim_at_front(a, i, size)
            for a, i in zip(operands, axes, strict=True)
        ]
        models = tuple(i is not None for i in axes)
        found = loop.bind(*moved, stretch=stretch, lead=lead, models=models)
        return found, [0] * n
    moved = list(operands)  # (2)
    for i in (*range(p, p + c), *range(p + c + x, p + c + x + lags)):
        moved[i] = batching.bdim_at_front(operands[i], axes[i], size)
    for i, row in enumerate(stretch.rows, start=p + c):
        if row:
            a = batching.bdim_at_front(operands[i], axes[i], size)
            moved[i] = jax.numpy.moveaxis(a, 0, 1)
    results = loop.bind(*moved, stretch=stretch, lead=(size, *lead), models=None)
    return results, [0] * c + [1] * stretch.ys


def _without_unused(used: list[bool], *rest):
    """The primitive without results that nobody wants."""
    eqn = rest[-1]  # JAX 0.12 says before it which operands are there
    stretch = eqn.params["stretch"]
    c = stretch.kinds.counts.carry
    kept = [True] * c + list(used[c:])
    if all(kept):
        return [True] * len(eqn.invars), eqn
    if not any(used):
        return [False] * len(eqn.invars), None
    if not hasattr(stretch.step.jaxpr, "replace"):
        return [True] * len(eqn.invars), eqn
    sums = sum(kept[c + stretch.ys :])
    counts = stretch.kinds.counts._replace(sums=sums)
    new = stretch._replace(
        step=_with_results(stretch.step, kept),
        definition=_with_results(stretch.definition, kept),
        kinds=stretch.kinds._replace(counts=counts),
    )
    outvars = [v for v, k in zip(eqn.outvars, kept, strict=True) if k]
    params = eqn.params | dict(stretch=new)
    return [True] * len(eqn.invars), eqn.replace(outvars=outvars, params=params)


def _with_results(program: core.ClosedJaxpr, kept: list[bool]) -> core.ClosedJaxpr:
    """A program that returns some of its results."""
    jaxpr = program.jaxpr
    outvars = [v for v, k in zip(jaxpr.outvars, kept, strict=True) if k]
    info = jaxpr.debug_info._replace(result_paths=None)
    return core.ClosedJaxpr(
        jaxpr.replace(outvars=outvars, debug_info=info), program.consts
    )


def rows_of(stretch: Stretch, lead: tuple[int, ...]) -> int:
    return math.prod((*lead, *stretch.batch))


loop.def_impl(
    lambda *operands, **static: jax.jit(functools.partial(loop.bind, **static))(
        *operands
    )
)
ad.primitive_jvps[loop] = _jvp
ad.primitive_transposes[loop] = _transpose
batching.primitive_batchers[loop] = _batch
as_defined = mlir.lower_fun(definition, multiple_results=True)
mlir.register_lowering(loop, as_defined)
pe.dce_rules[loop] = _without_unused
