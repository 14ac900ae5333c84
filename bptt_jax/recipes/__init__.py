"""How a model is made, as data: factories of this library by name, and their arguments.

What is written names nothing but what is in a fixed list (`_names`), and what is read looks
names up there and nowhere else: nothing that a file names is imported or evaluated.

What is imported as itself is for the other rooms and promised to nobody else.
"""

from bptt_jax.recipes._names import factory as factory
from bptt_jax.recipes._read import read
from bptt_jax.recipes._write import write

__all__ = ["read", "write"]
