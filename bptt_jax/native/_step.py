"""A step made native: what it reads, and the name of its kernel."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import llvmlite.ir as ir
import numpy as np
from jax.extend import core

from bptt_jax.native import _compiled
from bptt_jax.native._handler import entry
from bptt_jax.native._kernel import Operands, define_run, lanes_of, places_of_sums
from bptt_jax.native._machine import Machine, this_machine
from bptt_jax.native._plan import plan
from bptt_jax.native._products import packed, padded
from bptt_jax.native._program import (
    Described,
    Kinds,
    Program,
    Unsupported,
    described,
    flat,
)
from bptt_jax.native._stages import Outer
from bptt_jax.native._widened import as_computed, widened

LARGE = (
    2_000_000  # operations of a call: below it another thread costs more than it does
)


class NativeStep:
    """A step `(params, carry, lags, x) -> (carry, y, sums)` as a kernel runs it, for all steps
    at once.

    program: flat, and in dtypes of kernels.
    batch: axes of examples.
    rows: for each leaf of x whether it has these axes.
    """

    def __init__(self, program: Program, kinds: Kinds):
        self.program, self.counts = program, kinds.counts
        params, carry, lags, xs = kinds.counts.of_inputs(self.program.inputs)
        _, ys, self.sums = kinds.counts.of_results(self.program.results)
        batch = carry[0].shape[: kinds.rank] if carry else ()
        self.given, self.batch = params, batch
        self.plan = plan(self.program, kinds.counts, batch)
        self.rows = tuple(self.plan.rows)
        extras = len(self.plan.params) + len(self.plan.weights)
        n = extras + len(carry) + len(xs) + len(lags)
        self.operands = Operands(
            kinds.rank,
            self.plan.params,
            carry,
            xs,
            lags,
            ys,
            [False] * n,
            kinds.reverse,
        )
        self.lanes = lanes_of(carry, this_machine())
        self._texts: dict[tuple[bool, ...], str] = {}
        self.text(self.operands.models)  # raises where there is no code

    def extras(self, params: list) -> list:
        """What the kernel reads that does not change from step to step: values of `params`
        and packed weights.
        """
        read = self._values(params, self.plan.outside)
        values = [read(v) for v in self.plan.params]
        for w in self.plan.weights:
            matrix = jnp.transpose(read(w.value), w.order).reshape(w.A, w.N)
            values.append(packed(matrix, this_machine(), self.lanes))
        return values

    def _values(self, params: list, equations: list, more=()) -> Callable:
        """A function of a variable of these equations or a constant: its value."""
        env: dict[Any, Any] = dict(zip(self.given, params, strict=True)) | dict(more)

        def read(v):
            return env[v] if v in env else jnp.asarray(v.value, v.dtype)

        for eqn in equations:
            results = eqn.primitive.bind(*map(read, eqn.inputs), **eqn.params)
            results = results if eqn.primitive.multiple_results else [results]
            env |= dict(zip(eqn.results, results, strict=True))
        return read

    @property
    def n_sums(self) -> int:
        """Numbers of all sums of a model, as a kernel has them."""
        return places_of_sums(self.plan, self.lanes)[1]

    def of_sums(self, params: list, flat_sums, length: int) -> list:
        """The sums that the step returns, from `[n_sums]`."""
        places, _ = places_of_sums(self.plan, self.lanes)
        outers = {s.out: s for s in self.plan.stages if isinstance(s, Outer)}
        summed = {}
        for v, buffer in self.plan.sums.items():
            outer = outers.get(buffer)
            A, N = (outer.A, outer.N) if outer else (1, buffer.size)
            start, wide = places[buffer], padded(N, self.lanes)
            rows = flat_sums[start : start + A * wide].reshape(A, wide)
            summed[v] = rows[:, :N].reshape(v.shape)
        read = self._values(params, [*self.plan.outside, *self.plan.after], summed)
        known = {*self.plan.sums, *(v for e in self.plan.after for v in e.results)}
        # what weights alone make is added at each step, too
        return [read(v) if v in known else length * read(v) for v in self.sums]

    def text(self, models) -> str:
        """The kernel as LLVM's text.

        models: for each operand whether each model has its own.
        """
        key = tuple(models)
        if key not in self._texts:
            module = ir.Module()
            module.triple = this_machine().triple
            operands = self.operands._replace(models=list(models))
            scratch = define_run(module, self.plan, operands, this_machine())
            results = len(operands.carry) + len(operands.ys) + bool(self.n_sums)
            size = np.dtype(self.dtype_of_sums).itemsize
            called = entry(
                _compiled.ENTRY, len(models), results, padded(scratch, 64),
                self.n_sums * size, self.lanes, size,
            )  # fmt: skip
            self._texts[key] = str(module) + called
        return self._texts[key]

    @property
    def dtype_of_sums(self):
        kinds = {np.dtype(buffer.dtype) for buffer in self.plan.sums.values()}
        if len(kinds) > 1:
            raise Unsupported("sums of two kinds of floats")
        return next(iter(kinds), np.dtype(np.float32))

    def call(
        self,
        params,
        operands,
        kinds,
        *,
        length: int,
        rows: int,
        models: tuple[bool, ...] | None,
    ):
        """Runs the kernel.

        Args:
          params: of the step.
          operands: carry, xs, what the lags are before the first step.
          kinds: shapes and dtypes of the results: the carry, ys, sums.
          length: steps.
          rows: examples of a model.
          models: for each of params and operands whether it has an axis of models; None:
            there is one model.

        Returns:
          The carry, ys, sums.
        """
        params, operands = (
            [a.astype(as_computed(a.dtype)) for a in some]
            for some in (params, operands)
        )
        written = [
            jax.ShapeDtypeStruct(a.shape, as_computed(a.dtype))
            for a in kinds[: len(kinds) - self.counts.sums]
        ]
        found = self._called(params, operands, written, length, rows, models)
        return [a.astype(to.dtype) for a, to in zip(found, kinds, strict=True)]

    def _called(self, params, operands, written, length, rows, models):
        """`call` in the dtypes of the kernel, which writes these results."""
        which = models or (False,) * (len(params) + len(operands))
        of_params, of_operands = which[: len(params)], which[len(params) :]
        own = any(of_params)
        axes = [0 if m else None for m in of_params]
        extras = jax.vmap(self.extras, (axes,))(params) if own else self.extras(params)
        flags = (*[own] * len(extras), *of_operands)
        operands = [*extras, *operands]
        many = next((a.shape[0] for a, m in zip(operands, flags, strict=True) if m), 1)
        work = many * rows * length * self.plan.cost()
        summed = []
        if self.n_sums:
            shape = (self.n_sums,) if models is None else (many, self.n_sums)
            summed = [jax.ShapeDtypeStruct(shape, self.dtype_of_sums)]
        *results, last = [
            *jax.ffi.ffi_call(_compiled.target(self.text(flags)), [*written, *summed])(
                *operands,
                models=np.int64(many),
                parallel=np.int64(work > LARGE),
                rows=np.int64(rows),
                steps=np.int64(length),
            ),
            *[None] * (not summed),
        ]
        found = functools.partial(self.of_sums, length=length)
        if models is None:
            return [*results, *found(params, last)]
        of_last = 0 if summed else None
        sums = jax.vmap(found, (axes, of_last), axis_size=many)(params, last)
        return [*results, *sums]


@functools.lru_cache(maxsize=256)
def native_step(program: core.ClosedJaxpr, kinds: Kinds) -> NativeStep | str:
    """A step made native, or why it cannot be.

    Args:
      program: `(params, carry, lags, x) -> (carry, y, sums)`.
      kinds: how it is run.
    """
    if not this_machine().fused:
        return f"the processor ({this_machine().name}) has no fused multiply-add"
    try:
        inlined = widened(flat(program))
        alike = described(inlined)
        if alike is None:
            return NativeStep(inlined, kinds)
        return _of(alike, kinds, this_machine())
    except Unsupported as reason:
        return str(reason)


@functools.lru_cache(maxsize=256)
def _of(alike: Described, kinds: Kinds, machine: Machine) -> NativeStep:
    """The same step for what is asked, traced and lowered in turn, a program each time."""
    del machine  # its code is for this one
    return NativeStep(alike.program, kinds)
