"""The table of mutants, and the decorators that write into it.

The name of a mutant is that of the function that makes its error.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from bptt_jax import cells
from bptt_jax.unrolls import _bptt, _revolve
from bptt_jax.unrolls._door import unroll
from bptt_jax.verify import Member
from support.changed import with_parts
from verify.mutants._originals import ORIGINALS


class Mutant(NamedTuple):
    """A wrong member.

    original: name of the right member it was made of.
    leaves: the leaves, short, whose gradients (or values) are then wrong, and no other;
        empty: all gradients.
    unseen: options of a check that the mutant passes: one without the case that matters.
    """

    name: str
    original: str
    member: Member
    leaves: frozenset[str]
    unseen: dict | None


MUTANTS: list[Mutant] = []


def enter(
    wrong: Callable, original: str, change: Callable, leaves: str, unseen: dict | None
) -> Callable:
    name = wrong.__name__.replace("_", " ")
    member = change(ORIGINALS[original])
    chosen = frozenset(leaves.split())
    MUTANTS.append(Mutant(name, original, member, chosen, unseen))
    return wrong


def _decorator(change_by: Callable) -> Callable:
    """`change_by(wrong) -> (member -> member)` as a decorator that enters mutants."""

    def of(original: str, leaves: str = "", *, unseen: dict | None = None):
        return lambda wrong: enter(wrong, original, change_by(wrong), leaves, unseen)

    return of


def _remade(wrong: Callable) -> Callable:
    """The member whose cell or layer is `wrong(right)`."""
    return lambda member: member._replace(make=lambda: wrong(member.make()))


def _part(name: str) -> Callable:
    """One function of a cell's derivative: `wrong(right, *its arguments)`."""

    def change_by(wrong):
        def mutate(cell):
            if name == "contract":
                right = functools.partial(cells.contract, cell)
            else:
                right = getattr(cell.vjp, name)
            return with_parts(cell, **{name: functools.partial(wrong, right)})

        return _remade(mutate)

    return change_by


def _bwd(wrong: Callable) -> Callable:
    """The backward of a layer: `wrong(right, *its arguments)`."""
    return _remade(
        lambda layer: layer._replace(bwd=functools.partial(wrong, layer.bwd))
    )


def _unrolled(wrong: Callable) -> Callable:
    return lambda member: member._replace(options=member.options | dict(unroll=wrong))


def _right(*arguments, **options):
    """`bptt`'s own backward, of a layer that nobody watches."""
    return _bptt.backward(*arguments, **options)[:4]


def _bptt_backward(wrong: Callable) -> Callable:
    """The backward of `unrolls.bptt`: `wrong(right, *its arguments, chunk=)`."""
    passes = unroll(_bptt.forward, functools.partial(wrong, _right))

    def mutant(*arguments, chunk=None, **options):
        return passes(*arguments, chunk=chunk, **options)

    return _unrolled(mutant)


def _revolve_backward(wrong: Callable) -> Callable:
    """That of `checkpointed`, two slots, two stretches kept: `wrong(right, *arguments)`."""
    backward = functools.partial(wrong, _revolve._backward)
    passes = unroll(_revolve._forward, backward)

    def mutant(*arguments, chunk=None, **options):
        return passes(*arguments, chunk=chunk, slots=2, kept=2, **options)

    return _unrolled(mutant)


in_gates, in_move, in_local, in_backward, in_factors, in_contract = (
    _decorator(_part(name))
    for name in ("gates", "move", "local", "backward", "factors", "contract")
)
in_layer = _decorator(_remade)
in_bwd = _decorator(_bwd)
in_unroll = _decorator(_unrolled)
in_bptt = _decorator(_bptt_backward)
in_checkpointed = _decorator(_revolve_backward)
