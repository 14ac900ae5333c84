"""What is stored in bfloat16 is computed in float32."""

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax.native._program import Constant, Equation, Program, Var

STORED, COMPUTED = np.dtype(jnp.bfloat16), np.dtype(np.float32)


def as_computed(dtype) -> np.dtype:
    """The dtype in which a kernel has numbers of a program's."""
    return COMPUTED if dtype == STORED else dtype


def widened(program: Program) -> Program:
    """The program in float32 where it is in bfloat16.

    A cast from the one to the other is none then. XLA, too, leaves out a rounding that a
    program has only on the way (`xla_allow_excess_precision`).
    """
    known: dict = {}

    def wide(v):
        if v not in known:
            known[v] = _wide(v) if v.dtype == STORED else v
        return known[v]

    inputs, equations = [wide(v) for v in program.inputs], []
    for eqn in program.equations:
        operands = [wide(v) for v in eqn.inputs]
        if eqn.name == "convert_element_type":
            (result,) = eqn.results
            if as_computed(result.dtype) == operands[0].dtype:
                known[result] = operands[0]
                continue
        params = {name: _param(value) for name, value in eqn.params.items()}
        results = [wide(v) for v in eqn.results]
        equations.append(Equation(eqn.primitive, params, operands, results))
    return Program(inputs, equations, [wide(v) for v in program.results])


def _wide(v: Var | Constant) -> Var | Constant:
    if isinstance(v, Var):
        return Var(v.shape, COMPUTED)
    kind = jax.ShapeDtypeStruct(v.shape, COMPUTED)
    return Constant(np.asarray(v.value).astype(COMPUTED), kind)


def _param(value):
    """A dtype among the parameters of an equation is that of its results."""
    return as_computed(value) if isinstance(value, np.dtype) else value
