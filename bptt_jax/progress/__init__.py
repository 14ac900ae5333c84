"""What loops tell while they run, and who listens.

`train.run` and `sweep.run` tell a `Progress`, a record of functions. Where nothing is said
that is `shown()`: a screen on a terminal, a bar and a figure in a notebook, nothing
elsewhere. `progress=progress.silent` keeps them quiet.

    terminal       the screen of the command line
    notebook       a bar, and a figure that grows
    tensorboard    event files
    together       several of them, and one of your own

What is imported as itself is for the other rooms and promised to nobody else.
"""

from bptt_jax.progress._notebook import notebook
from bptt_jax.progress._protocol import Progress, Start, Status, silent
from bptt_jax.progress._shown import or_shown as or_shown
from bptt_jax.progress._shown import shown
from bptt_jax.progress._tensorboard import tensorboard
from bptt_jax.progress._terminal import terminal
from bptt_jax.progress._together import together
from bptt_jax.progress._words import Unit, metrics_in_words

__all__ = [
    "Progress",
    "Start",
    "Status",
    "Unit",
    "metrics_in_words",
    "notebook",
    "shown",
    "silent",
    "tensorboard",
    "terminal",
    "together",
]
