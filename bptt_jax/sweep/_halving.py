"""Successive halving: many configurations for a little, the best of them for longer."""

import math
from typing import NamedTuple

from bptt_jax._factory import is_whole, plain


class Halving(NamedTuple):
    """After each rung the best 1/eta go on, eta times as long in all as before.

    eta: at least 2.
    rungs: how often; None: until one configuration is left.
    """

    eta: int
    rungs: int | None


def halving(eta: int = 3, rungs: int | None = None) -> Halving:
    """Successive halving for `sweep.run`.

    With n configurations and R rungs the first trains steps/eta^(R-1) steps of each, the
    last all steps of n/eta^(R-1): about as many for each rung.

    Jamieson, Talwalkar (2016), "Non-stochastic best arm identification and hyperparameter
    optimization".

    >>> from bptt_jax import sweep
    >>> sweep.halving(eta=3)
    Halving(eta=3, rungs=None)
    """
    for name, value, least in (("eta", eta, 2), ("rungs", rungs, 1)):
        if value is not None and (not is_whole(value) or value < least):
            raise ValueError(
                f"{name}: expected a whole number of at least {least}, got {value!r}"
            )
    return Halving(*plain((eta, rungs)))


class Rung(NamedTuple):
    """share: of all steps, at the rung's end; configs: how many it trains."""

    share: float
    configs: int


def rungs(how: Halving | None, n: int) -> list[Rung]:
    """The rungs for n configurations; without halving a single one."""
    if how is None:
        return [Rung(1.0, n)]
    most = 1
    while math.ceil(n / how.eta**most) > 1:
        most += 1
    total = min(how.rungs or most + 1, most + 1)
    return [
        Rung(1 / how.eta ** (total - 1 - r), math.ceil(n / how.eta**r))
        for r in range(total)
    ]


def until(rung: Rung, steps: int) -> int:
    """The step at which a rung ends, of so many in all."""
    return max(1, round(rung.share * steps))


def best(scores: dict[int, float], n: int) -> list[int]:
    """The n with the lowest scores, in the order of their numbers (NaN is the worst)."""

    def worth(i):
        return (math.inf if math.isnan(scores[i]) else scores[i]), i

    return sorted(sorted(scores, key=worth)[:n])
