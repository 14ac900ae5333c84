"""Sequences as replay buffers, rollouts and ragged data have them.

`burn_in` runs a stored sequence from a stored state, `episode_starts` makes resets of an
environment's `done` flags, `packed` puts several short sequences into one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bptt_jax import _pytrees as trees
from bptt_jax import unrolls
from bptt_jax._factory import functions, is_whole
from bptt_jax.types import Batch, Cell, Layer, PyTree, Sections, Side, Unroll

if TYPE_CHECKING:
    from jaxtyping import Bool, Int32


def burn_in(
    layer: Layer | Cell,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    steps: int,
    unroll: Unroll = unrolls.bptt,
) -> tuple[PyTree, PyTree]:
    """Runs a stored sequence, whose first steps do nothing but make the state.

    A state that was stored by older parameters is not what these would have come to.
    Run for some steps, it forgets where it came from. As a loop in Python,

        carry, _ = stop_gradient(unroll(layer, params, carry, xs[:steps]))
        carry, ys = unroll(layer, params, carry, xs[steps:])

    The gradient flows to params and xs by the second line alone, and none to the stored
    carry. With zero steps the stored state is taken as it is.

    Args:
      layer: a cell or a layer.
      params: its parameters.
      carry: the stored state before the first step, leaves `[..., H]`.
      xs: inputs, leaves `[T, ..., I]`.
      side: masks, resets, keys, targets of all T steps; see `Side`.
      steps: of the burn-in, at least 0 and less than T.
      unroll: runs both; its options by `functools.partial`.

    Returns:
      The state after the last step, and the outputs `[T - steps, ..., O]` of the steps
      after the burn-in.

    Raises:
      ValueError: there are no inputs, or `steps` does not leave any.

    Cost: the forward pass of T steps, memory for a gradient of T - steps.

    Kapturowski, Ostrovski, Quan, Munos, Dabney (2019), "Recurrent experience replay in
    distributed reinforcement learning" (R2D2), section 3.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, sequences
    >>> cell = cells.gru(3, 8)
    >>> params, stored = cell.init(jax.random.key(0)), jnp.ones((2, 8))
    >>> carry, ys = sequences.burn_in(cell, params, stored, jnp.ones((30, 2, 3)), steps=10)
    >>> ys.shape
    (20, 2, 8)
    """
    functions(unroll=unroll)
    if isinstance(layer, Sections):
        raise TypeError(
            "burn_in: it hands a state on, and models.sections needs the whole sequence; "
            "expected a Cell or a Layer"
        )
    if not jax.tree.leaves(xs):
        raise ValueError("xs: expected inputs [T, ...], got none")
    T = trees.length(xs)
    if not is_whole(steps) or not 0 <= steps < T:
        raise ValueError(
            f"steps: expected a whole number from 0 to less than the {T} steps of xs, "
            f"got {steps!r}"
        )
    if steps:
        before = lax.stop_gradient((params, carry, *trees.cut((xs, side), 0, steps)))
        carry, _ = unroll(layer, *before)
    after = trees.cut((xs, side), steps, T)
    return unroll(layer, params, lax.stop_gradient(carry), *after)


def episode_starts(
    dones: Bool[Array, "T *B"], before: Bool[Array, "*B"]
) -> Bool[Array, "T *B"]:
    """`Side.resets` of a rollout: True where a step's observation begins an episode.

    `dones[t]` is what the environment said *after* the action of step t, and the
    observation of step t + 1 is then the first of the next episode. So flags move by
    one: with `dones` itself as resets the state would be lost one step too early.

        resets[0], resets[t + 1] = before, dones[t]

    Libraries that keep the flag with the observation (`last_done` of purejaxrl and
    JaxMARL, beside the observation in a transition) have these resets already.

    Args:
      dones: bool `[T, ...]`.
      before: bool `[...]`, the flag of the step before the first: `dones[-1]` of the
        rollout before, True where there is none.

    Returns:
      bool `[T, ...]`.

    Raises:
      TypeError, ValueError: a dtype or a shape does not fit.

    >>> import jax.numpy as jnp
    >>> from bptt_jax import sequences
    >>> dones = jnp.array([[False], [True], [False]])
    >>> sequences.episode_starts(dones, jnp.array([True])).tolist()
    [[True], [False], [True]]
    """
    dones, before = jnp.asarray(dones), jnp.asarray(before)
    for name, a in dict(dones=dones, before=before).items():
        if a.dtype != bool:
            raise TypeError(f"{name}: expected bool, got {a.dtype}")
    if dones.ndim < 1 or dones.shape[0] < 1:
        raise ValueError(
            f"dones: expected [T, ...] with T of at least 1, got {list(dones.shape)}"
        )
    if before.shape != dones.shape[1:]:
        raise ValueError(
            f"before: expected {list(dones.shape[1:])}, one step of dones, got "
            f"{list(before.shape)}"
        )
    return jnp.concatenate([before[None], dones[:-1]])


def packed(
    sequences: Sequence[PyTree],
    targets: Sequence[PyTree] | None = None,
    *,
    length: int,
    rows: int | None = None,
) -> tuple[Batch, Int32[np.ndarray, "{length} R"]]:
    """Several short sequences in each row, one after another, with resets between them.

    Outputs, losses and gradients are those of sequences that have a row each, and less
    is padding. The longest are placed first, each in the first row that has room
    (first fit decreasing); what is left at the end of a row is masked. It works on the
    host.

    Args:
      sequences: inputs of each, leaves `[T_i, ...]` with T_i from 1 to `length`, alike
        but for T_i.
      targets: of each sequence, leaves `[T_i, ...]`, or `Weighted` of such; None: none.
      length: T, steps of a row.
      rows: R, how many there are, those not needed masked, so that shapes stay the same
        from batch to batch; None: as many as are needed.

    Returns:
      A batch with inputs `[T, R, ...]`, mask, resets and targets; and `segments`, int32
      `[T, R]`, the index of the sequence that a step belongs to, -1 where it is padding:
      what `unpacked` needs, and `jax.ops.segment_sum` for a loss of each sequence. The
      state at the end of a sequence is there only as far as it is in the outputs.

    Raises:
      ValueError, TypeError: no sequences, one that is longer than a row or unlike the
        first, or more than the rows hold.

    >>> import numpy as np
    >>> from bptt_jax import sequences
    >>> three = [np.ones((n, 2)) for n in (2, 4, 1)]
    >>> batch, segments = sequences.packed(three, length=4)
    >>> segments.T.tolist()
    [[1, 1, 1, 1], [0, 0, 2, -1]]
    >>> batch.side.resets.T.astype(int).tolist()
    [[1, 0, 0, 0], [1, 0, 1, 0]]
    """
    inputs = [jax.tree.map(np.asarray, s) for s in sequences]
    steps = _lengths("sequences", inputs, length)
    places = _first_fit(steps, length)
    needed = 1 + max(row for row, _ in places)
    if rows is not None and rows < needed:
        raise ValueError(f"rows: expected {needed}, which are needed, got {rows}")
    shape = length, rows or needed
    if targets is not None:
        targets = [jax.tree.map(np.asarray, s) for s in targets]
        if _lengths("targets", targets, length) != steps:
            raise ValueError("targets: expected the lengths of sequences, got others")
        targets = _placed(targets, places, shape)
    segments = np.full(shape, -1, np.int32)
    resets: Any = np.zeros(shape, bool)
    for i, ((row, start), n) in enumerate(zip(places, steps, strict=True)):
        segments[start : start + n, row] = i
        resets[start, row] = True
    mask: Any = segments >= 0
    side = Side(mask=mask, resets=resets, targets=targets)
    return Batch(_placed(inputs, places, shape), side), segments


def unpacked(ys: PyTree, segments: Int32[np.ndarray, "T R"]) -> list[PyTree]:
    """The sequences that `packed` put into rows, in the order they came in.

    Args:
      ys: leaves `[T, R, ...]`: outputs of the rows, or anything shaped like them.
      segments: as `packed` returned it.

    Returns:
      For each sequence leaves `[T_i, ...]`.

    >>> import numpy as np
    >>> from bptt_jax import sequences
    >>> three = [np.arange(n) for n in (2, 4, 1)]
    >>> batch, segments = sequences.packed(three, length=4)
    >>> [s.tolist() for s in sequences.unpacked(batch.inputs, segments)]
    [[0, 1], [0, 1, 2, 3], [0]]
    """
    T, _ = segments.shape
    for path, a in jax.tree_util.tree_leaves_with_path(ys):
        if a.shape[:2] != segments.shape:
            raise ValueError(
                f"ys{jax.tree_util.keystr(path)}: expected the steps and rows "
                f"{list(segments.shape)} of segments, got {list(a.shape)}"
            )
    numbers, firsts, counts = np.unique(
        segments.T, return_index=True, return_counts=True
    )
    found = []
    for first, n in zip(firsts[numbers >= 0], counts[numbers >= 0], strict=True):
        row, start = divmod(int(first), T)
        cut = slice(start, start + int(n)), row
        found.append(jax.tree.map(lambda a, cut=cut: a[cut], ys))
    return found


def _lengths(name: str, sequences: list[PyTree], longest: int) -> list[int]:
    """Steps of each sequence; refuses those that are too long or unlike the first."""
    if not sequences or not jax.tree.leaves(sequences[0]):
        raise ValueError(f"{name}: expected at least one with a leaf, got none")
    found = []
    for i, sequence in enumerate(sequences):
        leaves = jax.tree.leaves(sequence)
        n = {a.shape[0] if a.ndim else 0 for a in leaves}
        if len(n) != 1 or not 1 <= min(n) <= longest:
            raise ValueError(
                f"{name}[{i}]: expected one length from 1 to length={longest}, got leaves "
                f"{[list(a.shape) for a in leaves]}"
            )
        if _kind(sequence) != _kind(sequences[0]):
            raise ValueError(
                f"{name}[{i}]: expected it to be like {name}[0], {_kind(sequences[0])}, "
                f"got {_kind(sequence)}"
            )
        found.append(n.pop())
    return found


def _kind(sequence: PyTree) -> tuple:
    """Its structure, and what one step of each leaf is."""
    leaves, structure = jax.tree.flatten(sequence)
    return structure, [f"{a.dtype}{list(a.shape[1:])}" for a in leaves]


def _first_fit(steps: list[int], length: int) -> list[tuple[int, int]]:
    """`(row, start)` of each sequence."""
    used: list[int] = []
    places: dict[int, tuple[int, int]] = {}
    for i in sorted(range(len(steps)), key=lambda i: -steps[i]):
        fits = (r for r, n in enumerate(used) if n + steps[i] <= length)
        row = next(fits, len(used))
        if row == len(used):
            used.append(0)
        places[i] = row, used[row]
        used[row] += steps[i]
    return [places[i] for i in range(len(steps))]


def _placed(sequences: list[PyTree], places: list, shape: tuple[int, int]) -> PyTree:
    def place(*leaves):
        whole = np.zeros((*shape, *leaves[0].shape[1:]), leaves[0].dtype)
        for (row, start), a in zip(places, leaves, strict=True):
            whole[start : start + len(a), row] = a
        return whole

    return jax.tree.map(place, *sequences)
