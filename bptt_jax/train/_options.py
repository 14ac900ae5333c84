"""How long a run trains and how often it does what."""

from typing import NamedTuple

from bptt_jax import _deprecated
from bptt_jax._factory import expect, is_whole, plain


@_deprecated.field("steps", "updates", gone="0.3.0")
class RunOptions(NamedTuple):
    """How long `run` trains and how often it does what; in updates of the parameters.

    updates: in all.
    per_dispatch: updates in one call of the compiled program.
    evaluate_every, checkpoint_every: rounded up to ends of dispatches.
    evaluate_batches: held-out batches of an evaluation.
    final_batches: held-out batches of the last one (fewer where there are fewer).
    patience: evaluations without a better held-out loss before the run stops; None: never.
    keep: checkpoints kept.
    """

    updates: int
    per_dispatch: int = 10
    evaluate_every: int = 100
    checkpoint_every: int = 100
    evaluate_batches: int = 20
    final_batches: int = 1000
    patience: int | None = None
    keep: int = 3


def checked(options: RunOptions) -> RunOptions:
    expect(RunOptions, options=options)
    for name, value in options._asdict().items():
        whole = is_whole(value) and value >= 1
        if not (whole or (name == "patience" and value is None)):
            raise ValueError(
                f"{name}: expected a whole number of at least 1, got {value!r}"
            )
    return RunOptions(*map(plain, options))


def due(position: int, every: int, n: int) -> bool:
    """Whether a multiple of `every` lies in the last n updates."""
    return position // every > (position - n) // every
