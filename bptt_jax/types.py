"""The nouns: contracts and nothing else.

Notation: `T` time, `K` steps of a stretch of time, `B` batch (any number of leading
batch axes, also none), `I` inputs, `H` hidden units, `O` outputs. Arrays are
time-major: `xs [T, ..., I]`, carry leaves `[..., H]`, `ys [T, ..., O]`. `d_h` is the
cotangent of `h` (its gradient, same shape); `delta` is what one step's backward hands
to `contract`. Sequences are plural, one step is singular. Arguments come in the order
`cell, params, carry, xs`; results as `(carry, ys)`.

A cotangent of a leaf that is not floating (an integer input, a key) is None.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from bptt_jax._factory import record

PyTree = Any


class StepVJP(NamedTuple):
    """BPTT of one cell, cut where time is parallel and where it is not.

    project: `(params, xs) -> us`, all times at once (the product with the inputs).
    forward: `(params, carry, u) -> (carry, y)`, one step.
    linearize: `(params, carries, us, nexts) -> coeffs`, all times at once, from the
        carries before and after each step (what a coefficient needs of the step may be
        there already).
        The coefficients are O(state) for each example and step; a
        weight among them would be copied T times.
    backward: `(params, coeffs, d_carry, d_y) -> (d_carry, delta)`, one step, linear in
        `(d_carry, d_y)`.
    contract: `(params, xs, carries, coeffs, deltas) -> (d_params, d_xs)`, all times at
        once (one matrix product for each weight).
    """

    project: Callable
    forward: Callable
    linearize: Callable
    backward: Callable
    contract: Callable


class Unsaid(NamedTuple):
    """In the place of `Cell.output` where nobody said whether the output is a part of the
    state: a layer asks a trace of one step. False as a condition, for it is empty.
    """


@record
class Cell(NamedTuple):
    """One recurrent step, as pure functions.

    init: `(key) -> params`.
    init_carry: `(params, batch_shape) -> carry`, leaves `[*batch_shape, H]`.
    step: `(params, carry, x) -> (carry, y)`: the definition of the cell.
    vjp: its derivative, a `StepVJP`.
    output: `(carry) -> y`, a selection of the carry's leaves, where the output is a
        part of the state (it is then stored once); None where it is not; `Unsaid()`
        where that is still to be found out (`cells.from_step`).
    keyed: whether `x` is `(x, key)`; a layer hands such a cell the keys of `Side`.
    gates: `(params, carries, us) -> {name: [K, ..., H]}`, the gates of all steps at once
        from the carries before them, for those who look; None: it has none to show.
    """

    init: Callable
    init_carry: Callable
    step: Callable
    vjp: StepVJP
    output: Callable | Unsaid | None = None
    keyed: bool = False
    gates: Callable | None = None


class Side(NamedTuple):
    """What every layer of a stretch sees beside its inputs.

    mask: bool `[T, ...]`, False where the step has not been: the state is carried
        through, an output that is part of the state is held, any other is zero, its
        loss is zero, and nothing of the input there is read, NaN included.
    resets: bool `[T, ...]`, True where the state is initialised anew *before* step t,
        which also cuts the gradient.
    keys: `[T]` PRNG keys (`jax.random.split(key, T)`), or legacy ones, uint32 `[T, 2]`;
        without them layers that draw (dropout, zoneout) compute the expectation, as in
        evaluation.
    targets: what the objective compares with, leaves `[T, ...]`, or a `Weighted`; its
        floating leaves have a gradient.
    aux: leaves `[T, ...]`, handed to `on_d_carry`; constants: differentiating by a
        floating one raises a TypeError.
    """

    mask: Array | None = None
    resets: Array | None = None
    keys: Array | None = None
    targets: PyTree = None
    aux: PyTree = None


class Weighted(NamedTuple):
    """Targets whose steps do not count alike: losses are multiplied by `weights`.

    weights: `[T]`, or with any of the batch axes that follow; see
        `objectives.at_last_step` for the last real step of each sequence. Where one is
        zero nothing of the output and of the target is read, as at a masked step: a
        target there may be anything, NaN or a symbol that does not exist.
    """

    targets: PyTree
    weights: Array


@record
class Layer(NamedTuple):
    """A stretch of time (K steps), forward and back.

    init: `(key) -> params`.
    init_carry: `(params, batch_shape) -> carry`.
    fwd: `(params, carry, xs, side) -> (carry, ys, residuals)`; the residuals are what
        `bwd` needs beside its other arguments.
    bwd: `(params, carry, xs, side, ys, residuals, d_carry, d_ys) ->
        (d_params, d_carry, d_xs, d_targets)`, the transpose of the derivative of `fwd`;
        `carry` is the one at the start of the stretch, `d_carry` the cotangent at its
        end; `d_targets` is that of `side.targets`, None as a whole where the layer reads
        none.
    watched: `(watch) -> Layer`, the same layer with each recurrent part's gradient from
        `watch`, see `Seen`; None: it has no recurrent part.
    refuse: `(params, carry, xs, side) -> None`, raises where inputs or targets whose
        values are known (outside of `jit`) are none of the layer's, a symbol that is not
        in its table, say. Leaves may be traced or shapes alone, and are passed over then.
        None: it takes any.
    """

    init: Callable
    init_carry: Callable
    fwd: Callable
    bwd: Callable
    watched: Callable | None = None
    refuse: Callable | None = None


class Seen(NamedTuple):
    """What a recurrent layer has in hand over a stretch before it sums over its steps.

    A `watch` is `(Seen) -> ((d_params, d_xs), shown)`: it does the last part of the
    backward pass, `contract`, and shows what it likes, leaves `[K, ...]`. The layer's
    `bwd` then has a `Watched` in the place of its d_params.

    cell: as the stretch runs it, masks and resets included.
    params: its parameters.
    xs: inputs, as `cell` takes them.
    carries: before each step.
    coeffs, deltas: of each step, as `contract` takes them.
    d_states: dL/ds_t of the state after each step, from later steps and from the output
        where it is a part of the state; from later steps alone where `cell.output` is
        None, or still `Unsaid()`.
    side: of the stretch.
    """

    cell: Cell
    params: PyTree
    xs: PyTree
    carries: PyTree
    coeffs: PyTree
    deltas: PyTree
    d_states: PyTree
    side: Side


class Watched(NamedTuple):
    """A recurrent layer's gradient, and what its watch showed, leaves `[K, ...]`."""

    d_params: PyTree
    shown: PyTree


class Batch(NamedTuple):
    """Inputs `[T, ..., I]` (or tokens `[T, ...]`) with what goes beside them."""

    inputs: PyTree
    side: Side


class Gradient(NamedTuple):
    """What an estimator finds on a batch.

    loss: scalar, the mean over the real steps.
    grads: its gradient, or what is taken for it; like the parameters.
    state: of the estimator, for the next batch.
    steps: scalar, how many real steps the loss is a mean over.
    metrics: scalars by name, what else there is to tell.
    """

    loss: Array
    grads: PyTree
    state: PyTree
    steps: Array
    metrics: dict[str, Array]


@record
class Estimator(NamedTuple):
    """A way to get a gradient: the waist between models and training.

    init: `(params, batch) -> state`, what is handed from one batch to the next.
    grad: `(params, state, batch, key) -> Gradient`.
    """

    init: Callable
    grad: Callable


@record
class Stream(NamedTuple):
    """Batches in a fixed order, so that a position is all there is to save.

    read: `(first, n) -> items`, on the host: NumPy leaves `[n, ...]`, what the batches
        first, first + 1, … first + n - 1 need.
    batch: `(item, key) -> Batch`, pure and on the device; the key is the batch's own.
    length: batches before the stream begins anew (one epoch); None if it never does.
    """

    read: Callable
    batch: Callable
    length: int | None


@record
class Task(NamedTuple):
    """What is to be learnt.

    n_in: features of an input, or how many symbols there are where `symbols` is given.
    n_out: outputs of each step.
    objective: `(ys, targets) -> losses [K, ...]` of each step, in nats where it is a
        cross-entropy.
    train, held_out: streams; the second is read from its start at each evaluation.
    tokens: whether inputs are symbols (integers `[T, ...]`) rather than features.
    stateful: whether consecutive batches continue each other (truncated BPTT).
    symbols: text of each symbol, where a model of the task can write text.
    baselines: name of a simple predictor -> its loss per step on held-out data.
    record: what identifies the data (hash, versions), kept with a run.
    """

    n_in: int
    n_out: int
    objective: Callable
    train: Stream
    held_out: Stream
    tokens: bool = False
    stateful: bool = False
    symbols: tuple | None = None
    baselines: dict = {}
    record: dict = {}


Unroll = Callable[..., tuple[PyTree, PyTree]]
"""`(layer_or_cell, params, carry, xs, side=Side(), *, …) -> (carry, ys)`."""

Objective = Callable[[Array, PyTree], Array]
"""`(ys [K, ..., O], targets) -> losses [K, ...]`."""
