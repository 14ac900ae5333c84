"""Layers: a stretch of time, forward and back. See `bptt_jax.types.Layer`.

What is imported as itself is for the other rooms and promised to nobody else.
"""

from bptt_jax.layers._context import context_of as context_of
from bptt_jax.layers._context import refuse_without as refuse_without
from bptt_jax.layers._context import with_context, without_context
from bptt_jax.layers._dropout import dropout, variational_dropout
from bptt_jax.layers._hooks import clip_d_carry, h_detach, in_turn, scale_d_carry
from bptt_jax.layers._inputs import branches_of as branches_of
from bptt_jax.layers._inputs import concatenated, inputs, summed
from bptt_jax.layers._lift import lift
from bptt_jax.layers._lift import model_of as model_of
from bptt_jax.layers._lift import refuse_sections as refuse_sections
from bptt_jax.layers._loss_of import loss_of as loss_of
from bptt_jax.layers._parts import Part, parts, with_options
from bptt_jax.layers._parts import over as over
from bptt_jax.layers._parts import plain as plain
from bptt_jax.layers._parts import settled as settled
from bptt_jax.layers._recurrent import made, recurrent
from bptt_jax.layers._remat import remat
from bptt_jax.layers._residual import inside as inside
from bptt_jax.layers._residual import residual
from bptt_jax.layers._save import (
    COEFFICIENTS,
    GATES,
    NOTHING,
    STATES,
    by_shapes,
    some_gates,
)
from bptt_jax.layers._sections import sections as sections
from bptt_jax.layers._stack import keys_of as keys_of
from bptt_jax.layers._stack import of_part as of_part
from bptt_jax.layers._stack import parts_of as parts_of
from bptt_jax.layers._stack import stack
from bptt_jax.layers._time_distributed import (
    dense,
    embedding,
    layer_norm,
    time_distributed,
)
from bptt_jax.layers._why import runs_whole as runs_whole
from bptt_jax.layers._why import why
from bptt_jax.layers._with_loss import with_loss
from bptt_jax.layers._with_losses import with_losses

__all__ = [
    "COEFFICIENTS",
    "GATES",
    "NOTHING",
    "STATES",
    "Part",
    "by_shapes",
    "clip_d_carry",
    "concatenated",
    "dense",
    "dropout",
    "embedding",
    "h_detach",
    "in_turn",
    "inputs",
    "layer_norm",
    "lift",
    "made",
    "parts",
    "recurrent",
    "remat",
    "residual",
    "scale_d_carry",
    "some_gates",
    "stack",
    "summed",
    "time_distributed",
    "variational_dropout",
    "why",
    "with_context",
    "with_loss",
    "with_losses",
    "with_options",
    "without_context",
]
