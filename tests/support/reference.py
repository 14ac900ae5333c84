"""How autodiff of the plain loop is compiled where it is the reference in one process.

jaxlib 0.10.2 compiles the gradient of an ordinary GRU wrongly where the processor has
AVX-512 and uses vectors of 512 bits (`support.autodiff` has more). Users' own arm, the
hand-derived one, is compiled as they compile it.
"""

import functools

import jax

from support.gradients import QUICK

AS_REFERENCE = {**QUICK, "xla_cpu_prefer_vector_width": 128}
reference_jit = functools.partial(jax.jit, compiler_options=AS_REFERENCE)
