"""One kernel for a stretch of time, on a CPU.

A kernel is compiled from a stretch of one step, written with the cell's own functions
(`bptt_jax.native`); there is no kernel of any one cell. With θ the parameters and s, u the state
and the projected input,

    (1)  s_t, y_t, kept_t  =  step(θ, s_{t-1}, x_t)
    (2)  d s_{t-1}, d x_t, dθ_t  =  back(θ, d s_t; s_{t-1}, x_t, s_t, kept_t, d y_t)

and dθ = Σ_t dθ_t is summed by the kernel. What a stretch needs beside its arguments and
results exists for some rows of one step. What runs is the primitive of `_primitive.py`, so
everything that is not one CPU is `step_by_step`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.core import Tracer
from jax.extend import core
from jax.interpreters import mlir

from bptt_jax import _pytrees as trees
from bptt_jax import _shardings as shardings
from bptt_jax import native as code
from bptt_jax.cells import contract, output_leaves
from bptt_jax.loops import _pieces as pieces
from bptt_jax.loops import _primitive as primitive
from bptt_jax.loops._step_by_step import step_by_step
from bptt_jax.types import Cell, Loop, PyTree, Save


class Made(NamedTuple):
    """A step and what is made of it.

    program: its jaxpr, `(params, carry, lags, x) -> (carry, y, sums)`.
    kinds: how it is run.
    step: native.
    out: the shapes of what it returns.
    """

    program: core.ClosedJaxpr
    kinds: code.Kinds
    step: Any
    out: PyTree


def _one(tree: PyTree) -> PyTree:
    """A step as a stretch of one."""
    return jax.tree.map(lambda a: lax.expand_dims(a, (0,)), tree)


def _its(tree: PyTree) -> PyTree:
    """The one step of a stretch."""
    return jax.tree.map(lambda a: lax.squeeze(a, (0,)), tree)


def _step(cell: Cell, keep) -> Callable:
    """(1)"""

    def step(params, carry, lags, x):
        del lags
        u = _its(cell.vjp.project(params, _one(x)))
        gates = cell.vjp.gates(params, carry, u)
        after, y = cell.vjp.move(params, gates, carry)
        return after, (y, keep(params, carry, u, gates, after)), ()

    return step


def _step_back(cell: Cell, save: Save) -> Callable:
    """(2)"""

    def step(params, d_carry, carry, at):
        nexts, inputs, kept, d_y = at
        inputs, carries, nexts, kept = map(_one, (inputs, carry, nexts, kept))
        coeffs = save.coeffs(cell, params, inputs, carries, nexts, kept)
        d_carry, delta = cell.vjp.backward(params, _its(coeffs), d_carry, d_y)
        d_params, d_inputs = contract(
            cell, params, inputs, carries, coeffs, _one(delta)
        )
        return d_carry, _its(d_inputs), d_params

    return step


def _forward(cell, params, carry, inputs, keep, length):
    plain = functools.partial(step_by_step.forward, cell)
    kinds = _kinds((params, carry, (), inputs))
    made = _made(_step, cell, keep, kinds, False) if _runs(kinds, length) else ""
    if isinstance(made, str):
        return plain(params, carry, inputs, keep, length)

    def definition(params, carry, inputs):
        carry, ys, kept = pieces.forward(
            step_by_step, cell, params, carry, inputs, keep, length
        )
        return carry, (ys, kept), ()

    carry, (ys, kept), _ = _run(made, definition, (params, carry, inputs), length)
    return carry, ys, kept


def _backward(cell, save, params, inputs, carry, nexts, kept, d_carry, d_ys):
    along = nexts, inputs, kept, d_ys
    kinds = _kinds((params, d_carry, carry, along))
    length = trees.length(nexts)
    made = _made(_step_back, cell, save, kinds, True) if _runs(kinds, length) else ""
    if isinstance(made, str):
        return step_by_step.backward(
            cell, save, params, inputs, carry, nexts, kept, d_carry, d_ys
        )

    def definition(params, d_carry, along, carry):
        nexts, inputs, kept, d_ys = along
        d_params, d_carry, d_inputs = pieces.backward(
            step_by_step, cell, save, params, inputs, carry, nexts, kept, d_carry, d_ys
        )
        return d_carry, d_inputs, d_params

    given = params, d_carry, along, carry
    d_carry, d_inputs, d_params = _run(made, definition, given, length)
    return d_params, d_carry, d_inputs


def _runs(kinds: tuple, length) -> bool:
    """Whether a kernel can be called: under `jit`, for numbers of steps and examples."""
    sizes = [n for a in kinds[0] for n in a.shape]
    return (
        not jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
        and isinstance(length, int)
        and length > 0
        and all(isinstance(n, int) and n > 0 for n in sizes)
    )


def _run(made: Made, definition: Callable, given: tuple, length: int) -> PyTree:
    """Of `given`, params, carry, xs and what the lags are before the first step."""
    leaves, structure = jax.tree.flatten(given)
    whole = jax.make_jaxpr(lambda *leaves: definition(*structure.unflatten(leaves)))(
        *map(jax.typeof, leaves)
    )
    step = made.step
    static = primitive.Stretch(
        made.program, whole, made.kinds, step.batch, step.rows, length
    )
    results = primitive.loop.bind(*leaves, stretch=static, lead=(), models=None)
    return jax.tree.unflatten(jax.tree.structure(made.out), results)


def _kinds(tree: PyTree) -> tuple[tuple, Any]:
    return _static(jax.tree.map(jax.typeof, tree))


def _static(shapes: PyTree) -> tuple[tuple, Any]:
    leaves, structure = jax.tree.flatten(shapes)
    return tuple(leaves), structure


@functools.lru_cache(maxsize=256)
def _made(
    make: Callable, cell: Cell, option, kinds: tuple, reverse: bool
) -> Made | str:
    """What is made of a step, or why nothing is.

    Args:
      make: `_step` or `_step_back`, of cell and option.
      kinds: shapes of params, carry, lags and, of all steps, xs.
    """
    leaves, structure = kinds
    params, carry, lags, xs = structure.unflatten(leaves)
    if not jax.tree.leaves(carry):
        return "there is no carry"
    at = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), xs)
    try:
        program, out = jax.make_jaxpr(make(cell, option), return_shape=True)(
            params, carry, lags, at
        )
    except (TypeError, ValueError) as error:
        return f"it does not run for one step: {error}"
    if any(isinstance(a, Tracer) for a in program.consts):
        return "it closes over a value that is being transformed"
    rank = _rank(cell, params, carry)
    if rank is None:
        return "init_carry does not tell the axes of examples"
    count = lambda tree: len(jax.tree.leaves(tree))
    counts = code.Counts(*map(count, (params, carry, lags)), count(out[2]))
    how = code.Kinds(counts, rank, reverse)
    step = code.native_step(program, how)
    return step if isinstance(step, str) else Made(program, how, step, out)


def _rank(cell: Cell, params: PyTree, carry: PyTree) -> int | None:
    """Axes of examples of the carry."""
    try:
        one = jax.eval_shape(lambda p: cell.init_carry(p, ()), params)
    except (TypeError, ValueError):
        return None
    pairs = zip(jax.tree.leaves(carry), jax.tree.leaves(one), strict=True)
    ranks = {a.ndim - len(b.shape) for a, b in pairs}
    return ranks.pop() if len(ranks) == 1 else None


def _supports(cell, save, shapes, platform):
    del platform  # elsewhere the primitive is what it is defined as
    if not code.is_installed():
        return "llvmlite is not installed; pip install llvmlite"
    if any(map(shardings.explicit, jax.tree.leaves(shapes))):
        return "it is spread over devices, by the types of its arrays"
    return _reason(cell, save, *_static(shapes))


@functools.lru_cache(maxsize=256)
def _reason(cell: Cell, save: Save, leaves: tuple, structure) -> str | None:
    """Why the two kernels of a cell cannot be made; None: they can."""
    params, carry, inputs = structure.unflatten(leaves)
    outputs = output_leaves(cell, carry)

    def keep(params, carry, u, gates, after):
        # as a layer does: the step is then the one that runs
        states = [a for i, a in enumerate(jax.tree.leaves(after)) if i not in outputs]
        return states, save.keep(cell, params, carry, u, gates, after)

    made = _made(_step, cell, keep, _static((params, carry, (), inputs)), False)
    if isinstance(made, str):
        return f"the step: {made}"
    n = trees.length(inputs) if jax.tree.leaves(inputs) else 1
    along = lambda a: jax.ShapeDtypeStruct((n, *a.shape), a.dtype)
    nexts, (ys, (_, kept)) = jax.tree.map(along, made.out[:2])
    given = params, carry, carry, (nexts, inputs, kept, ys)
    made = _made(_step_back, cell, save, _static(given), True)
    return f"its way back: {made}" if isinstance(made, str) else None


def _on_cpu(ctx, *operands, stretch: primitive.Stretch, lead, models):
    """One CPU, and no exported program: the kernel. Elsewhere the definition."""
    context = ctx.module_context
    several = getattr(context.axis_context, "num_devices", 1) != 1
    made = code.native_step(stretch.step, stretch.kinds)
    if several or context.lowering_parameters.for_export or isinstance(made, str):
        return primitive.as_defined(
            ctx, *operands, stretch=stretch, lead=lead, models=models
        )
    counts = stretch.kinds.counts
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in ctx.avals_out]

    def call(*operands):
        return made.call(
            list(operands[: counts.params]),
            list(operands[counts.params :]),
            shapes,
            length=stretch.length,
            rows=primitive.rows_of(stretch, lead),
            models=models,
        )

    return mlir.lower_fun(call, multiple_results=True)(ctx, *operands)


mlir.register_lowering(primitive.loop, _on_cpu, platform="cpu")

native = Loop("loops.native", _forward, _backward, _supports, whole=True)
"""One kernel for a stretch of time, each way, compiled from the cell's own functions.

On one CPU; elsewhere, on several devices and in an exported program it is `step_by_step`, and
so are its derivatives. Without llvmlite there is none.
"""
