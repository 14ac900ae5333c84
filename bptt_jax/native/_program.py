"""The program of a step, flat: calls are inlined, and what reads only weights is apart.

A step is `(params, carry, lags, x) -> (carry, y, sums)`, lists of arrays each, as a jaxpr.
"""

import dataclasses
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from jax.core import Tracer
from jax.extend import core

from bptt_jax._jax import held_program

# y_i is x_i
IDENTITIES = (
    "bptt_jax_hold",
    "optimization_barrier",
    "stop_gradient",
    "copy",
    "copy_p",
)


class Unsupported(Exception):
    """Why a program cannot be made native, in words."""


class Equation(NamedTuple):
    """One of a flat program; operands and results are variables of the flat program."""

    primitive: core.Primitive
    params: dict
    inputs: list
    results: list

    @property
    def name(self) -> str:
        return self.primitive.name


class Var:
    """A value of a flat program: its shape and dtype, and no name."""

    __slots__ = ("dtype", "shape")

    def __init__(self, shape, dtype):
        self.shape, self.dtype = tuple(shape), dtype


class Constant:
    """A number, or an array of them, that the program holds."""

    __slots__ = ("dtype", "shape", "value")

    def __init__(self, value, aval):
        self.value, self.shape, self.dtype = value, tuple(aval.shape), aval.dtype


class Counts(NamedTuple):
    """How many values of a step are which: of `(params, carry, lags, x) -> (carry, y, sums)`.

    lags: of the first xs, what they were a step before, and at the first step what is given.
    sums: of rows, and over steps.
    """

    params: int
    carry: int
    lags: int = 0
    sums: int = 0

    def of_inputs(self, inputs) -> tuple[list, list, list, list]:
        """params, carry, lags, xs."""
        inputs = list(inputs)
        a = self.params
        b = a + self.carry
        c = b + self.lags
        return inputs[:a], inputs[a:b], inputs[b:c], inputs[c:]

    def of_results(self, results) -> tuple[list, list, list]:
        """carry, ys, sums."""
        results = list(results)
        last = len(results) - self.sums
        return results[: self.carry], results[self.carry : last], results[last:]


class Kinds(NamedTuple):
    """How a step is run.

    counts: of its inputs and results.
    rank: axes of examples of the carry.
    reverse: whether the last step is the first.
    """

    counts: Counts
    rank: int
    reverse: bool = False


class Program(NamedTuple):
    """A flat program.

    inputs: its variables.
    equations: in order.
    results: variables or constants.
    """

    inputs: list
    equations: list[Equation]
    results: list


def flat(closed: core.ClosedJaxpr) -> Program:
    """The program without calls.

    Raises:
      Unsupported: it has effects.
    """
    jaxpr = closed.jaxpr
    if jaxpr.effects:
        raise Unsupported(f"it has effects: {sorted(map(str, jaxpr.effects))}")
    inputs = [Var(v.aval.shape, v.aval.dtype) for v in jaxpr.invars]
    consts = [
        Constant(a, v.aval) for a, v in zip(closed.consts, jaxpr.constvars, strict=True)
    ]
    equations: list[Equation] = []
    results = _inline(jaxpr, inputs, consts, equations)
    return Program(inputs, _needed(equations, results), results)


def _inline(jaxpr, inputs, consts, equations) -> list:
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    env |= dict(zip(jaxpr.constvars, consts, strict=True))

    def read(v):
        return Constant(v.val, v.aval) if isinstance(v, core.Literal) else env[v]

    for eqn in jaxpr.eqns:
        name, operands = eqn.primitive.name, [read(v) for v in eqn.invars]
        inner = held_program(eqn)
        if name in IDENTITIES:
            results = operands
        elif inner is not None:
            if inner.jaxpr.effects:
                raise Unsupported(f"{name} has effects")
            held = [
                Constant(a, v.aval)
                for a, v in zip(inner.consts, inner.jaxpr.constvars, strict=True)
            ]
            results = _inline(
                inner.jaxpr, operands[: len(inner.jaxpr.invars)], held, equations
            )
        else:
            results = [Var(v.aval.shape, v.aval.dtype) for v in eqn.outvars]
            equations.append(Equation(eqn.primitive, eqn.params, operands, results))
        env |= dict(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _needed(equations: list[Equation], results: list) -> list[Equation]:
    """Without what no result is made of."""
    needed, kept = set(results), []
    for eqn in reversed(equations):
        if any(v in needed for v in eqn.results):
            kept.append(eqn)
            needed.update(eqn.inputs)
    return kept[::-1]


@dataclasses.dataclass(frozen=True)
class Described:
    """A flat program that is equal to those that compute the same by the same equations.

    JAX makes a program of a function anew each time that it traces it.
    """

    program: Program = dataclasses.field(compare=False)
    description: Hashable


def described(program: Program) -> Described | None:
    """The program with what tells it from others; None: something of it cannot be compared."""
    numbers = {v: i for i, v in enumerate(program.inputs)}

    def value(v):
        if isinstance(v, Constant):
            return v.shape, str(v.dtype), np.asarray(v.value).tobytes()
        return numbers.setdefault(v, len(numbers))

    read = [*(v for e in program.equations for v in e.inputs), *program.results]
    if any(isinstance(v, Constant) and isinstance(v.value, Tracer) for v in read):
        return None
    inputs = [(v.shape, str(v.dtype)) for v in program.inputs]
    equations = [
        (e.primitive, *sorted(e.params.items()), *map(value, e.inputs), None,
         *[(value(v), v.shape, str(v.dtype)) for v in e.results])
        for e in program.equations
    ]  # fmt: skip
    results = map(value, program.results)
    found = Described(program, (*inputs, None, *equations, None, *results))
    try:
        hash(found)
    except TypeError:
        return None
    return found
