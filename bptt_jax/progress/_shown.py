"""What is told where nothing was said: a screen where somebody looks."""

import sys

from bptt_jax._processes import first
from bptt_jax.progress._notebook import notebook
from bptt_jax.progress._protocol import Progress, silent
from bptt_jax.progress._terminal import terminal


def shown() -> Progress:
    """`notebook()` in a notebook, `terminal()` on a terminal, `silent` elsewhere.

    Of several processes the first one shows something.

    >>> from bptt_jax import progress
    >>> isinstance(progress.shown(), progress.Progress)
    True
    """
    if not first():
        return silent
    if in_notebook():
        return notebook()
    return terminal() if on_terminal() else silent


def in_notebook() -> bool:
    """Whether a kernel runs this, which shows what cells give."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def or_shown(progress: Progress | None) -> Progress:
    """What a loop was given, or `shown`."""
    if progress is None:
        return shown()
    if not isinstance(progress, Progress):
        raise TypeError(
            "progress: expected a progress.Progress, or None, got "
            f"{type(progress).__name__}"
        )
    return progress
