"""The nouns: contracts and nothing else.

Records of pure functions, and a protocol for each function of theirs, which a type checker
holds functions against: their arguments are given by position, so whoever writes one names
them as they like.

Notation: `T` time, `K` steps of a stretch of time, `B` batch (any number of leading
batch axes, also none), `I` inputs, `H` hidden units, `O` outputs. Arrays are
time-major: `xs [T, ..., I]`, carry leaves `[..., H]`, `ys [T, ..., O]`. `d_h` is the
cotangent of `h` (its gradient, same shape); `delta` is what one step's backward hands
to `contract`. Sequences are plural, one step is singular. Arguments come in the order
`cell, params, carry, xs`; results as `(carry, ys)`.

A cotangent of a leaf that is not floating (an integer input, a key) is None.
"""

from bptt_jax.types._batch import Batch
from bptt_jax.types._cell import Cell, CellCouplings, CellOutput, CellStep, Unsaid
from bptt_jax.types._estimator import Estimator, EstimatorGrad, EstimatorInit, Gradient
from bptt_jax.types._factors import Blocks, Outer, Sum, Summed, Terms
from bptt_jax.types._in_context import InContext
from bptt_jax.types._init import Init, InitCarry
from bptt_jax.types._layer import Layer, LayerBwd, LayerFwd, LayerOver, LayerRefuse
from bptt_jax.types._loop import (
    Loop,
    LoopBackward,
    LoopForward,
    LoopKeep,
    LoopSupports,
)
from bptt_jax.types._pytree import PyTree as PyTree
from bptt_jax.types._recurrent import OnDCarry, Recurrent, Seen, Watch, Watched
from bptt_jax.types._save import Save, SaveCoeffs, SaveKeep
from bptt_jax.types._side import Side, Weighted
from bptt_jax.types._step_vjp import (
    Gates,
    StepBackward,
    StepFactors,
    StepGates,
    StepLocal,
    StepMove,
    StepProject,
    StepVJP,
)
from bptt_jax.types._stream import (
    Stream,
    StreamBatch,
    StreamPlace,
    StreamRead,
    StreamRestore,
    StreamSave,
)
from bptt_jax.types._task import (
    Encoding,
    Metric,
    MetricEach,
    MetricFinish,
    Objective,
    Scale,
    Task,
)
from bptt_jax.types._text import (
    Text,
    TextCharacters,
    TextDecode,
    TextEncode,
    TextPart,
    TextTokens,
    TextWritten,
)
from bptt_jax.types._unroll import BoundUnroll, Unroll
from bptt_jax.types._whole import (
    Sections,
    SectionsOver,
    Whole,
    WholeApply,
    WholeOver,
)

__all__ = [
    "Init",
    "InitCarry",
    "InContext",
    "Outer",
    "Sum",
    "Blocks",
    "Terms",
    "Summed",
    "Gates",
    "StepProject",
    "StepGates",
    "StepMove",
    "StepLocal",
    "StepBackward",
    "StepFactors",
    "StepVJP",
    "Unsaid",
    "CellStep",
    "CellOutput",
    "CellCouplings",
    "Cell",
    "SaveKeep",
    "SaveCoeffs",
    "Save",
    "LoopKeep",
    "LoopForward",
    "LoopBackward",
    "LoopSupports",
    "Loop",
    "Side",
    "Weighted",
    "Seen",
    "Watched",
    "Watch",
    "OnDCarry",
    "Recurrent",
    "LayerFwd",
    "LayerBwd",
    "LayerOver",
    "LayerRefuse",
    "Layer",
    "WholeApply",
    "WholeOver",
    "Whole",
    "SectionsOver",
    "Sections",
    "Unroll",
    "BoundUnroll",
    "Batch",
    "Gradient",
    "EstimatorInit",
    "EstimatorGrad",
    "Estimator",
    "StreamRead",
    "StreamBatch",
    "StreamSave",
    "StreamRestore",
    "StreamPlace",
    "Stream",
    "Objective",
    "Scale",
    "Encoding",
    "Metric",
    "MetricEach",
    "MetricFinish",
    "TextEncode",
    "TextDecode",
    "TextTokens",
    "TextCharacters",
    "TextWritten",
    "TextPart",
    "Text",
    "Task",
]

for _name in __all__:  # by which they are pickled and shown, wherever they stand here
    globals()[_name].__module__ = __name__
