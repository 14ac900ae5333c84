"""How a program is made from a function: options of the compiler, lengths of bodies.

On GPU and TPU the steps of a stretch are unrolled (decision 0018), at most
`_unrolled.LONGEST` of them in the body of a loop. The package has no option for it, since
nobody but a benchmark asks: here it is another number while a program is lowered. With
bodies of one step it has the operations, launches and memory of the plain `lax.scan` that
it was before ("h100, lstm, rolled" of `tests/elsewhere/table.json`). On a CPU no body is
unrolled, whatever the number.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax

from bptt_jax import loops
from bptt_jax.loops import _unrolled


class Lowering(NamedTuple):
    """options: of `jit`'s compiler. around: what holds while a program is lowered."""

    options: dict[str, Any] = {}
    around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext

    def jit(self, f: Callable):
        return jax.jit(f, compiler_options=self.options or None)


@contextlib.contextmanager
def bodies(longest: int):
    """Programs that are lowered inside have at most so many steps in a body."""
    jax.clear_caches()  # or what was lowered before is taken
    with mock.patch.object(_unrolled, "LONGEST", longest):
        yield
    jax.clear_caches()


def of_bodies(longest: int) -> Lowering:
    return Lowering(around=functools.partial(bodies, longest))


PLAIN = Lowering()
ROLLED = of_bodies(1)
ONE_GRAPH = Lowering(options=dict(loops.graph_options))
