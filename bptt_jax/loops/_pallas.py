"""One kernel for the recurrence of a stretch of time, on a TPU.

The recurrence alone, each way; products over all steps stay XLA's:

    (1)  s_t, y_t, kept_t  =  move(gates(s_{t-1}, u_t), s_{t-1})             t = 1 … T
    (2)  d s_{t-1}, delta_t  =  backward(coeffs_t; d s_t, d y_t)             T … 1

It is `step_by_step` with another scan, a primitive that is one in all but its lowering for a
TPU: there the program of a step, whichever cell's it is, runs in a kernel of Pallas (Mosaic).
Its grid is blocks of steps, in order. Weights are in the memory beside the core (VMEM) all the
time, the state in scratch of it, and blocks of `u` and of what is written are moved behind the
arithmetic by Pallas's pipeline. A last block of fewer steps is unrolled by itself.

**Compiled, not run**: no TPU has run it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Primitive
from jax.interpreters import mlir

from bptt_jax import _pytrees as trees
from bptt_jax._jax import scan_operands
from bptt_jax.loops import _two_axes as two
from bptt_jax.loops._step_by_step import backward, forward
from bptt_jax.loops._unrolled import LONGEST, body_length, like_a_scan, scan, unrolled
from bptt_jax.native import Constant, Equation, Program, Unsupported, flat
from bptt_jax.types import Cell, Loop, PyTree, Save

ROOM = 15 * 2**20
"""Bytes of VMEM that a kernel may take, of the 16 MiB of a TPU v4, which are the least, and what
a compiler gives a kernel elsewhere where nothing else is said.
"""
LANES = 128  # numbers beside one another in a tile of VMEM; 32 bytes deep


class Layout(NamedTuple):
    """A value in the kernel.

    shape: of the value.
    split: how many of its axes are rows.
    dtype: of the value.
    """

    shape: two.Shape
    split: int
    dtype: Any

    @property
    def sizes(self) -> tuple[int, int]:
        return two.sizes(self.shape, self.split)

    @property
    def stored(self) -> Any:
        """The dtype in memory: flags are numbers there."""
        return jnp.dtype(jnp.int32) if self.dtype == jnp.bool_ else self.dtype

    @property
    def bytes(self) -> int:
        """In VMEM, in whole tiles."""
        p, q = self.sizes
        rows = 32 // self.stored.itemsize
        whole = -(-p // rows) * rows * -(-q // LANES) * LANES
        return whole * self.stored.itemsize


class Plan(NamedTuple):
    """How the body of a scan is run.

    before: equations that read weights alone, and run before the kernel.
    program: what is run for each step, `(*weights, *carry, *x) -> (*carry, *y)`.
    weights: variables of `before` and of the body, that the kernel reads.
    consts: those of the body.
    of_weights, of_carry, of_xs, of_ys: their layouts, of one step.
    length: steps.
    steps: of a block.
    reverse: whether the last step is the first.
    """

    before: list[Equation]
    program: Program
    weights: list
    consts: list
    of_weights: list[Layout]
    of_carry: list[Layout]
    of_xs: list[Layout]
    of_ys: list[Layout]
    length: int
    steps: int
    reverse: bool


def _examples(shapes: Sequence[two.Shape]) -> two.Shape:
    """The axes of examples: those that all of a carry share, but the last of the longest.

    Rows and columns are told apart by them, nothing else: any answer is right.
    """
    if not shapes:
        return ()
    most = max(map(len, shapes))
    n = 0
    while n < min(map(len, shapes)) and len({s[n] for s in shapes}) == 1:
        n += 1
    return shapes[0][: min(n, max(most - 1, 0))]


def _layout(v, batch: two.Shape, weight: bool = False) -> Layout:
    shape, n = tuple(v.shape), len(batch)
    of_rows = shape[:n] == batch and len(shape) >= n + weight and n > 0
    split = n if of_rows else int(len(shape) > 1)
    return Layout(shape, split, jnp.dtype(v.dtype))


def _plan(body: ClosedJaxpr, n_consts: int, n_carry: int, length: int, reverse) -> Plan:
    """How a body is run.

    Raises:
      Unsupported: it cannot be.
    """
    whole = flat(body)
    consts, rest = whole.inputs[:n_consts], whole.inputs[n_consts:]
    before, inside, known = [], [], set(consts)
    for eqn in whole.equations:
        ready = all(isinstance(v, Constant) or v in known for v in eqn.inputs)
        if ready and eqn.name != "broadcast_in_dim":  # which takes no room inside
            before.append(eqn)
            known.update(eqn.results)
        else:
            inside.append(eqn)
    arrays = lambda v: isinstance(v, Constant) and len(v.shape) > 0
    read = dict.fromkeys(v for eqn in inside for v in eqn.inputs)
    read |= dict.fromkeys(whole.results)
    weights = [v for v in read if v in known or arrays(v)]
    carry, xs = rest[:n_carry], rest[n_carry:]
    batch = _examples([v.shape for v in carry])
    layouts = lambda vs, weight=False: [_layout(v, batch, weight) for v in vs]
    plan = Plan(
        before,
        Program([*weights, *rest], inside, whole.results),
        weights,
        consts,
        layouts(weights, True),
        layouts(carry),
        layouts(xs),
        layouts(whole.results[n_carry:]),
        length,
        1,
        reverse,
    )
    for v in (*plan.of_weights, *plan.of_carry, *plan.of_xs, *plan.of_ys):
        _check_dtype(v.dtype)
    return plan._replace(steps=_steps(plan))


def _check_dtype(dtype) -> None:
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        raise Unsupported("a step reads keys")
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise Unsupported("a step has complex numbers")


def _steps(plan: Plan) -> int:
    """Steps of a block: as many as there is room for, as `body_length` has them.

    Raises:
      Unsupported: one is too many.
    """
    size = lambda layouts: sum(v.bytes for v in layouts)
    weights, state = size(plan.of_weights), size(plan.of_carry)
    one = 2 * (size(plan.of_xs) + size(plan.of_ys))  # one is moved, one is read
    inside = sum(map(_inside, plan.program.equations))
    fixed = weights + 3 * state + inside  # the state is given, in scratch and returned
    if fixed + one > ROOM:
        MiB = lambda n: f"{n / 2**20:.1f}"
        raise Unsupported(
            f"it takes {MiB(fixed + one)} MiB of VMEM, weights {MiB(weights)}, state "
            f"{MiB(3 * state)}, products {MiB(inside)} and a step in and out "
            f"{MiB(one)}; there are {MiB(ROOM)}"
        )
    return body_length(plan.length, min(LONGEST, (ROOM - fixed) // max(one, 1)))


def _inside(eqn: Equation) -> int:
    """Bytes that a product takes: its weight again, in half as many, and its result. (Read off
    what compilers say of kernels that are too large.)
    """
    if eqn.name != "dot_general":
        return 0
    size = lambda v: (
        Layout(tuple(v.shape), int(len(v.shape) > 1), jnp.dtype(v.dtype)).bytes
    )
    return size(eqn.inputs[1]) // 2 + size(eqn.results[0])


def _held(layout: Layout, array) -> two.Held:
    array = array != 0 if layout.dtype == jnp.bool_ else array
    return two.Held(array, layout.shape, layout.split)


def _stored(layout: Layout, v: two.Held) -> jax.Array:
    array = two.in_full(two.split_again(v, layout.split), *layout.sizes)
    return array.astype(layout.stored)


def _kernel(plan: Plan, *refs) -> None:
    """A block of steps."""
    from jax.experimental import pallas as pl

    refs = iter(refs)
    take = lambda layouts: [next(refs) for _ in layouts]
    weights, firsts, xs = map(take, (plan.of_weights, plan.of_carry, plan.of_xs))
    ys, lasts, scratch = map(take, (plan.of_ys, plan.of_carry, plan.of_carry))
    blocks = -(-plan.length // plan.steps)
    turn = pl.program_id(0)
    block = blocks - 1 - turn if plan.reverse else turn
    n = len(plan.of_carry)

    @pl.when(turn == 0)
    def _():
        for to, a in zip(scratch, firsts, strict=True):
            to[...] = a[...]

    def run(steps: int) -> None:
        given = [
            _held(v, r[...]) for v, r in zip(plan.of_weights, weights, strict=True)
        ]
        state = [_held(v, r[...]) for v, r in zip(plan.of_carry, scratch, strict=True)]
        for i in reversed(range(steps)) if plan.reverse else range(steps):
            x = [_held(v, r[i]) for v, r in zip(plan.of_xs, xs, strict=True)]
            results = two.evaluate(plan.program, [*given, *state, *x])
            state = [
                _held(v, _stored(v, a))
                for v, a in zip(plan.of_carry, results[:n], strict=True)
            ]
            for v, to, a in zip(plan.of_ys, ys, results[n:], strict=True):
                to[i] = _stored(v, a)
        for v, to, a in zip(plan.of_carry, scratch, state, strict=True):
            to[...] = _stored(v, a)

    rest = plan.length % plan.steps
    if rest:
        pl.when(block == blocks - 1)(lambda: run(rest))
        pl.when(block < blocks - 1)(lambda: run(plan.steps))
    else:
        run(plan.steps)

    @pl.when(turn == blocks - 1)
    def _():
        for to, a in zip(lasts, scratch, strict=True):
            to[...] = a[...]


def run(*args, interpret: Any = False, **params) -> list:
    """A scan as one kernel, of operands and parameters of its equation.

    interpret: as `pallas_call` takes it; True: on any platform, to see its numbers.

    Raises:
      Unsupported: there is no kernel for it.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu

    consts, carry, xs = scan_operands(args, params)
    plan = _plan(
        params["jaxpr"], len(consts), len(carry), params["length"], params["reverse"]
    )
    steps, blocks = plan.steps, -(-plan.length // plan.steps)
    at = (lambda t: blocks - 1 - t) if plan.reverse else (lambda t: t)
    once = lambda v: pl.BlockSpec(v.sizes, lambda t: (0, 0))
    along = lambda v: pl.BlockSpec((steps, *v.sizes), lambda t: (at(t), 0, 0))
    kind = lambda v, *lead: jax.ShapeDtypeStruct((*lead, *v.sizes), v.stored)
    results = pl.pallas_call(
        functools.partial(_kernel, plan),
        grid=(blocks,),
        in_specs=[
            *(pl.BlockSpec(v.sizes, lambda t: (0, 0), pl.Buffered(1)) for v in plan.of_weights),
            *map(once, plan.of_carry),
            *map(along, plan.of_xs),
        ],
        out_specs=[*map(along, plan.of_ys), *map(once, plan.of_carry)],
        out_shape=[*(kind(v, plan.length) for v in plan.of_ys), *map(kind, plan.of_carry)],
        scratch_shapes=[tpu.VMEM(v.sizes, v.stored) for v in plan.of_carry],
        compiler_params=tpu.CompilerParams(dimension_semantics=("arbitrary",)),
        interpret=interpret,
        name="bptt_jax_steps",
    )(
        *map(_given, plan.of_weights, _weights(plan, consts)),
        *map(_given, plan.of_carry, carry),
        *(_given(v, a, plan.length) for v, a in zip(plan.of_xs, xs, strict=True)),
    )  # fmt: skip
    n = len(plan.of_ys)
    ys = [
        _taken(v, a, plan.length) for v, a in zip(plan.of_ys, results[:n], strict=True)
    ]
    return [*map(_taken, plan.of_carry, results[n:]), *ys]


def _given(v: Layout, a, *lead: int) -> jax.Array:
    return lax.reshape(a, (*lead, *v.sizes)).astype(v.stored)


def _taken(v: Layout, a, *lead: int) -> jax.Array:
    return lax.reshape(a, (*lead, *v.shape)).astype(v.dtype)


def _weights(plan: Plan, consts: list) -> list:
    """What the kernel reads that does not change from step to step."""
    env = dict(zip(plan.consts, consts, strict=True))
    read = lambda v: (
        jnp.asarray(v.value, v.dtype) if isinstance(v, Constant) else env[v]
    )
    for eqn in plan.before:
        found = eqn.primitive.bind(*map(read, eqn.inputs), **eqn.params)
        found = found if eqn.primitive.multiple_results else [found]
        env |= dict(zip(eqn.results, found, strict=True))
    return list(map(read, plan.weights))


def why_not(args: Sequence, params: dict) -> str | None:
    """Why there is no kernel for a scan; None: there is one.

    Args:
      args, params: of its equation; shapes and dtypes do.
    """
    kinds = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args]
    sizes = [n for a in kinds for n in a.shape]
    if not all(isinstance(n, int) for n in (params["length"], *sizes)):
        return "its sizes are not known"
    if not params["length"] or not all(sizes):
        return "there are no steps, or no numbers"
    body = params["jaxpr"]
    wide = [v.aval for v in (*body.jaxpr.invars, *body.jaxpr.outvars)]
    if any(a.dtype in (jnp.float64, jnp.int64, jnp.uint64) for a in wide):
        return "a TPU has no numbers of 64 bits"
    try:
        traced = jax.jit(functools.partial(run, **params)).trace(*kinds)
        traced.lower(lowering_platforms=("tpu",))
    except Unsupported as error:
        return str(error)
    except (NotImplementedError, ValueError, TypeError) as error:
        return f"Mosaic does not take it: {str(error).splitlines()[0]}"
    return None


_steps_of_tpu: Primitive = like_a_scan("bptt_jax_pallas")
_scan = functools.partial(scan, primitive=_steps_of_tpu)


def _on_tpu(ctx, *operands, **params):
    """One TPU, and no exported program: the kernel. Elsewhere what `step_by_step` is there."""
    context = ctx.module_context
    several = getattr(context.axis_context, "num_devices", 1) != 1
    exported = context.lowering_parameters.for_export
    if several or exported or why_not(ctx.avals_in, params) is not None:
        return unrolled(ctx, *operands, **params)
    kernel = functools.partial(run, **params)
    return mlir.lower_fun(kernel, multiple_results=True)(ctx, *operands)


for _platform in ("cuda", "rocm"):
    mlir.register_lowering(_steps_of_tpu, unrolled, platform=_platform)
mlir.register_lowering(_steps_of_tpu, _on_tpu, platform="tpu")


def _forward(cell, params, carry, inputs, keep, length):
    return forward(_scan, cell, params, carry, inputs, keep, length)


def _backward(cell, save, *stretch):
    return backward(_scan, cell, save, *stretch)


def _supports(cell, save, shapes, platform):
    del platform  # elsewhere the primitive is what it is defined as
    leaves, structure = jax.tree.flatten(shapes)
    kinds = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves)
    return _reason(cell, save, kinds, structure)


@functools.lru_cache(maxsize=256)
def _reason(cell: Cell, save: Save, leaves: tuple, structure) -> str | None:
    """Why the two kernels of a cell cannot be made; None: they can."""
    params, carry, inputs = structure.unflatten(leaves)
    n = trees.length(inputs) if jax.tree.leaves(inputs) else 1

    def keep(params, carry, u, gates, after):
        return after, save.keep(cell, params, carry, u, gates, after)

    def step(params, carry, inputs):
        return forward(_scan, cell, params, carry, inputs, keep, n)

    def back(params, inputs, carry, nexts, kept, d_carry, d_ys):
        return backward(
            _scan, cell, save, params, inputs, carry, nexts, kept, d_carry, d_ys
        )

    reason, made = _asked(step, params, carry, inputs)
    if reason is not None:
        return f"the step: {reason}"
    after, ys, (nexts, kept) = made
    d_carry, d_ys = (trees.fill(tree, trees.floats(tree, tree)) for tree in (after, ys))
    reason, _ = _asked(back, params, inputs, carry, nexts, kept, d_carry, d_ys)
    return None if reason is None else f"its way back: {reason}"


def _asked(f: Callable, *shapes: PyTree) -> tuple[str | None, PyTree]:
    """What `why_not` says of the scans of a function, and the shapes that it returns."""
    try:
        traced, made = jax.make_jaxpr(f, return_shape=True)(*shapes)
    except (TypeError, ValueError) as error:
        return f"it is not traced: {error}", None
    for eqn in traced.jaxpr.eqns:
        if eqn.primitive is _steps_of_tpu:
            reason = why_not([v.aval for v in eqn.invars], eqn.params)
            if reason is not None:
                return reason, made
    return None, made


pallas = Loop("loops.pallas", _forward, _backward, _supports)
"""One kernel for the recurrence of a stretch of time, each way, on a TPU (Pallas, Mosaic), from
the cell's own functions. *Compiled, not run*: no TPU has run it, so it is nowhere a default.

On one TPU; elsewhere, on several devices, in an exported program and where a transformation
leaves a program that a kernel cannot run it is `step_by_step`, and so are its derivatives.
"""
