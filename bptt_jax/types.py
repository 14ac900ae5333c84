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
    """BPTT of one cell, cut where time is parallel and where it is not, and the products
    with the state apart from what is pointwise. Provisional: fields may still change.

    project: `(params, xs) -> us`, all times at once (the product with the inputs).
    gates: `(params, carry, u) -> gates`, the product with the state, and what else of a
        step does not need the new state; of one step, or of all at once. `Gates` where
        some of it has a name.
    move: `(params, gates, carry) -> (carry, y)`, one step, pointwise.
    local: `(params, gates, carries, nexts) -> coeffs`, all times at once, pointwise: the
        local derivatives, from the gates and the carries before and after each step.
        The coefficients are O(state) for each example and step; a
        weight among them would be copied T times.
    backward: `(params, coeffs, d_carry, d_y) -> (d_carry, delta)`, one step, linear in
        `(d_carry, d_y)`.
    factors: `(params, xs, carries, coeffs, deltas) -> (factors, d_xs)`, all times at
        once: in a tree like params what a gradient is a sum of, an `Outer`, `Sum`,
        `Blocks`, `Terms` or `Summed` at each floating leaf.

    What is made of these is in `cells`: `forward` is `move` of `gates`, `linearize`
    `local` of `gates`, `contract` the sum of `factors`. Leaves of `us`, `gates` and
    `coeffs` are `[K, ...]`, with the batch axes or with none of them.
    """

    project: Callable
    gates: Callable
    move: Callable
    local: Callable
    backward: Callable
    factors: Callable


class Gates(NamedTuple):
    """Gates of which some have names.

    named: `{name: [..., H]}`, shown to those who look (`diagnose.activity`).
    rest: what `move` and `local` take besides.
    """

    named: dict[str, Array]
    rest: PyTree = None


class Outer(NamedTuple):
    """The gradient of a weight, Σ a ⊗ d over steps and examples.

    a: `[K, ..., I]`, what the weight was multiplied with.
    d: `[K, ..., O]`, the cotangent of the product; `[K, ..., n, H]` for `[I, n, H]`.
    """

    a: Array
    d: Array


class Sum(NamedTuple):
    """The gradient of a bias, Σ d over steps and examples of d `[K, ..., O]`."""

    d: Array


class Blocks(NamedTuple):
    """A gradient in blocks side by side along an axis, `Outer`s or `Sum`s."""

    blocks: tuple
    axis: int


class Terms(NamedTuple):
    """A gradient that is the sum of several factors."""

    terms: tuple


class Summed(NamedTuple):
    """A gradient that is there already, of which no factors are known."""

    d: Array


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
    name: of the equations, "lstm"; "" where they have none.
    pointwise: whether `move` and `local` work unit by unit; False where they mix units, or
        where nobody has said.
    affine: whether the new state is an affine function of the one before.
    couplings: `(f, params) -> params`, f over each matrix through which a unit sees the
        past of others (the identity where none does); None: not known.
    """

    init: Callable
    init_carry: Callable
    step: Callable
    vjp: StepVJP
    output: Callable | Unsaid | None = None
    keyed: bool = False
    name: str = ""
    pointwise: bool = False
    affine: bool = False
    couplings: Callable | None = None


class Save(NamedTuple):
    """What is kept of each step for the way back, beside its state.

    name: shown in its place, "layers.GATES".
    keep: `(cell, params, carry, u, gates, after) -> kept`, of one step, from the carry
        before it to the one after it.
    coeffs: `(cell, params, xs, carries, nexts, kept) -> coeffs`, of all steps at once.
    """

    name: str
    keep: Callable
    coeffs: Callable

    def __repr__(self) -> str:
        return self.name


class Loop(NamedTuple):
    """How the two recurrences of a stretch are run. Provisional: fields may still change.

    A loop takes the cell's own functions; masks, resets, zoneout and hooks are wrapped
    around the cell, so no loop knows of them. Every loop returns the same trees.

    name: shown in its place, "loops.step_by_step".
    prepare: `(cell, params) -> ready`, what does not depend on the step (a weight in
        another layout, say): a compiler moves it out of the loop over stretches.
    forward: `(cell, ready, carry, us, keep, length) -> (carry, ys, kept)`; `keep` is
        `(params, carry, u, gates, after) -> tree`, of one step, and `kept` that tree with
        leaves `[K, ...]`; `length` is K.
    backward: `(cell, ready, coeffs, d_carry, d_ys) -> (d_carry, deltas)`.
    supports: `(cell, shapes, platform) -> str | None`, the reason why it cannot run this,
        with `shapes` of `(params, carry, us)`; None where it can.
    """

    name: str
    prepare: Callable
    forward: Callable
    backward: Callable
    supports: Callable

    def __repr__(self) -> str:
        return self.name


class Recurrent(NamedTuple):
    """How a recurrent part of a layer is made: what `Layer.over` hands out, and what
    `layers.made` takes.

    cell: the recurrent step.
    on_d_carry: see `layers.recurrent`.
    loop: a `Loop`; None: the first of `loops` that supports the case.
    save: a `Save`; None: by the rule of `layers.recurrent`.
    watch: see `Seen`; None: nobody looks.
    """

    cell: Cell
    on_d_carry: Callable | None = None
    loop: Loop | None = None
    save: Save | None = None
    watch: Callable | None = None


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
        floating one raises a TypeError. Of hooks `layers.in_turn(first, second)` it is the
        pair of theirs.
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
    """A stretch of time (K steps), forward and back. Provisional: fields may still change.

    init: `(key) -> params`.
    init_carry: `(params, batch_shape) -> carry`.
    fwd: `(params, carry, xs, side) -> (carry, ys, residuals)`; the residuals are what
        `bwd` needs beside its other arguments.
    bwd: `(params, carry, xs, side, ys, residuals, d_carry, d_ys) ->
        (d_params, d_carry, d_xs, d_targets)`, the transpose of the derivative of `fwd`;
        `carry` is the one at the start of the stretch, `d_carry` the cotangent at its
        end; `d_targets` is that of `side.targets`, None as a whole where the layer reads
        none.
    over: `((Recurrent) -> Layer) -> Layer`, the same layer whose recurrent parts are what
        the function makes of them; None: it has no recurrent part.
    refuse: `(params, carry, xs, side) -> None`, raises where inputs or targets whose
        values are known (outside of `jit`) are none of the layer's, a symbol that is not
        in its table, say. Leaves may be traced or shapes alone, and are passed over then.
        None: it takes any.
    """

    init: Callable
    init_carry: Callable
    fwd: Callable
    bwd: Callable
    over: Callable | None = None
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
