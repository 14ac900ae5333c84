"""Which sequences are held out."""

from typing import Any

import numpy as np

from bptt_jax.tasks._sequences import array


def split(
    held_out: Any,
    count: int,
    classes: np.ndarray | None,
    groups: Any,
    rng: np.random.Generator,
) -> np.ndarray:
    """bool `[N]`, True where a sequence is held out.

    Args:
      held_out: a share in (0, 1), integers, or bool `[N]`.
      count: N.
      classes: labels `[N]`, each of which a share is taken of; None: of all together.
      groups: `[N]`, of which none is on both sides; None: each is its own.
      rng: what a share is drawn with.
    """
    members = None if groups is None else _groups(groups, count)
    if isinstance(held_out, float):
        if not 0 < held_out < 1:
            raise ValueError(f"held_out: expected a share in (0, 1), got {held_out}")
        if count < 2:
            raise ValueError(
                "held_out: a share of a single sequence; expected at least 2 sequences, or "
                "(inputs, targets) of one's own as held_out"
            )
        if members is None:
            return _drawn(held_out, count, classes, rng)
        return _drawn_groups(held_out, classes, members, rng)
    out = _chosen(held_out, count)
    if members is not None:
        both = np.intersect1d(members[out], members[~out])
        if len(both):
            name = np.asarray(groups)[members == both[0]][0]
            raise ValueError(f"groups: {name.item()!r} is on both sides of held_out")
    return out


def _groups(groups: Any, count: int) -> np.ndarray:
    """The number of each sequence's group."""
    given = array("groups", groups)
    if given.shape != (count,):
        raise ValueError(
            f"groups: expected [{count}], one for each sequence, got {list(given.shape)}"
        )
    if given.dtype.kind == "f" and np.isnan(given).any():
        raise ValueError(f"groups: NaN of sequence {int(np.isnan(given).argmax())}")
    return np.unique(given, return_inverse=True)[1].reshape(count)


def _chosen(held_out: Any, count: int) -> np.ndarray:
    """From integers or bool `[N]`."""
    given = array("held_out", held_out)
    if given.dtype.kind not in "biu" or given.ndim != 1:
        raise ValueError(
            "held_out: expected a share in (0, 1), indices, bool [N], or (inputs, "
            f"targets), got {given.dtype} of shape {list(given.shape)}"
        )
    if given.dtype == bool:
        if len(given) != count:
            raise ValueError(f"held_out: expected bool [{count}], got [{len(given)}]")
        given = np.flatnonzero(given)
    outside = (given < 0) | (given >= count)
    if outside.any():
        raise ValueError(
            f"held_out: expected indices from 0 to {count - 1}, got "
            f"{given[outside.argmax()]}"
        )
    values, times = np.unique(given, return_counts=True)
    if (times > 1).any():
        raise ValueError(
            f"held_out: {values[times.argmax()]} is there {times.max()} times"
        )
    if not 0 < len(values) < count:
        raise ValueError(
            f"held_out: {len(values)} of {count} sequences; expected some on each side"
        )
    out = np.zeros(count, bool)
    out[values] = True
    return out


def _drawn(
    share: float, count: int, classes: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray:
    """The share of each class, to within one; of each there is one on each side."""
    out = np.zeros(count, bool)
    strata = np.zeros(count, int) if classes is None else classes
    for name in np.unique(strata):
        members = np.flatnonzero(strata == name)
        if len(members) == 1:
            raise ValueError(
                f"targets: class {name.item()!r} has one member, and a share held out of "
                "each class needs two; leave it out, give held_out as indices, or, where "
                "these are no labels but numbers, targets as floats"
            )
        n = min(max(round(share * len(members)), 1), len(members) - 1)
        out[rng.permutation(members)[:n]] = True
    return out


def _drawn_groups(
    share: float,
    classes: np.ndarray | None,
    members: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Whole groups, from the largest on, each where it brings the classes' shares nearer.

    Args:
      members: the number of each sequence's group.
    """
    strata = np.zeros(len(members), int) if classes is None else classes
    strata = np.unique(strata, return_inverse=True)[1].reshape(-1)
    G, C = members.max() + 1, strata.max() + 1
    if G < 2:
        raise ValueError(
            "groups: one group alone; expected at least 2, one on each side"
        )
    counts = np.bincount(members * C + strata, minlength=G * C).reshape(G, C)
    totals = counts.sum(0)

    def distance(held):
        return (((held - share * totals) / totals) ** 2).sum(-1)

    held, taken = np.zeros(C), np.zeros(G, bool)
    order = rng.permutation(G)
    for g in order[np.argsort(-counts[order].sum(1), kind="stable")]:
        if distance(held + counts[g]) < distance(held) and taken.sum() < G - 1:
            held, taken[g] = held + counts[g], True
    if not taken.any():
        taken[order[distance(counts[order]).argmin()]] = True
    return taken[members]
