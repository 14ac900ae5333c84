"""A function of a whole sequence, and models that have some."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from bptt_jax._factory import record
from bptt_jax.types._init import Init, InitCarry
from bptt_jax.types._layer import Layer
from bptt_jax.types._pytree import PyTree
from bptt_jax.types._recurrent import Recurrent
from bptt_jax.types._side import Side


class WholeApply(Protocol):
    """All of time at once.

    Args:
      params: of it.
      ys: the sequence, leaves `[T, ..., I]`.
      side: what goes beside it.

    Returns:
      `(ys, side)`, leaves `[T', ..., O]` with T' of at most T: what follows sees these. Where
      time is shorter, so are the leaves of `side`; keys are seen to by who calls it.
    """

    def __call__(
        self, params: PyTree, ys: PyTree, side: Side, /
    ) -> tuple[PyTree, Side]: ...


class WholeOver(Protocol):
    """The same with other recurrent parts, see `LayerOver`."""

    def __call__(self, f: Callable[[Recurrent], Layer], /) -> "Whole": ...


class SectionsOver(Protocol):
    """The same model with other recurrent parts, see `LayerOver`."""

    def __call__(self, f: Callable[[Recurrent], Layer], /) -> "Sections": ...


@record
class Whole(NamedTuple):
    """A function of a whole sequence, which no layer is: K steps and then K' are not K + K'.
    Provisional: fields may still change.

    init: an `Init`, of the parameters.
    apply: a `WholeApply`, which JAX differentiates.
    over: a `WholeOver`; None: it has no recurrent part.
    """

    init: Init
    apply: WholeApply
    over: WholeOver | None = None


@record
class Sections(NamedTuple):
    """Layers, through each of which time runs by itself, and functions of the whole sequence
    between them; `models.sections` makes it.

    parts: in the order in which they run.
    init: an `Init`; params are a tuple, one entry a part.
    init_carry: an `InitCarry`; `()` stands for a function of the whole sequence.
    over: a `SectionsOver`; None: no part is recurrent.
    """

    parts: tuple[Layer | Whole, ...]
    init: Init
    init_carry: InitCarry
    over: SectionsOver | None = None
