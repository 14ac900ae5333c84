"""Models: embedding → recurrent layers → readout, sections, symbols drawn.

A model is a layer, so an unroll runs it and `layers.with_loss` puts its loss inside; or
layers with functions of the whole sequence between them (`sections`). An
embedding and a readout are one product over all steps of a stretch.

What is imported as itself is for the other rooms and promised to nobody else.
"""

from bptt_jax.layers import sections
from bptt_jax.models._generate import begun as begun
from bptt_jax.models._generate import drawn as drawn
from bptt_jax.models._generate import filtered, generate
from bptt_jax.models._generate import refuse_temperature as refuse_temperature
from bptt_jax.models._stacks import bidirectional, features, symbols
from bptt_jax.models._summary import Row, Summary, summary

__all__ = [
    "Row",
    "Summary",
    "bidirectional",
    "features",
    "filtered",
    "generate",
    "sections",
    "summary",
    "symbols",
]
