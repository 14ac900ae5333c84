"""Data sets from files: `read` gives what `tasks.arrays` and `tasks.windows` take.

Nothing that a file names is imported or evaluated, and no pickle is opened.
"""

from bptt_jax.data._dataset import Dataset
from bptt_jax.data._read import read

__all__ = ["Dataset", "read"]
