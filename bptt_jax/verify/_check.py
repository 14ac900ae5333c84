"""Hand-derived gradients against `jax.grad`, and a third that decides between them.

For random cotangents v of the outputs and w of the final carry let

    (1)  L(θ, s_0, xs, targets) = Re (Σ v · ys + Σ w · s_T)

Its gradient is computed three ways in float64: by the unroll that is checked; by
`jax.grad` of the plain loop over steps; and by differences of L itself, evaluated by
the plain loop or, where the caller has one, by an implementation in NumPy.

A complex number z = x + iy is two real ones, along which differences are taken. The
gradient with respect to it is JAX's, ∂L/∂x - i ∂L/∂y.
"""

import time
from collections.abc import Callable
from functools import partial

import chex
import jax
import numpy as np

from bptt_jax import _pytrees as trees
from bptt_jax import unrolls
from bptt_jax._jax import enable_x64
from bptt_jax.types import Cell, Layer, Unroll
from bptt_jax.verify import _cases, _differences, _verdict
from bptt_jax.verify._cases import Arguments, Case
from bptt_jax.verify._report import Report, Row

UNOPTIMISED = {"xla_backend_optimization_level": 0}


class GradientError(AssertionError):
    """A gradient is wrong, or nothing was compared.

    report: the whole `Report`.
    row: the worst row; None where a gradient was zero in every case.
    """

    def __init__(self, message: str, report: Report, row: Row | None = None):
        super().__init__(message)
        self.report = report
        self.row = row


def check(
    layer: Cell | Layer,
    inputs: int | Callable | None,
    *,
    targets: int | Callable | None = None,
    reference: Callable | None = None,
    unroll: Unroll = unrolls.bptt,
    plain: Unroll = unrolls.scan,
    lengths: tuple[int, ...] = (1, 2, 7),
    chunks: tuple[int | None, ...] = (1, 3, None),
    batch_shapes: tuple[tuple[int, ...], ...] = ((), (3,), (2, 2)),
    sides: tuple[str, ...] = _cases.SIDES,
    tolerance: float = 1e-10,
    noise: float = 0.3,
    unused: tuple[str, ...] = (),
    seed: int = 0,
    name: str = "",
    quick: bool = False,
) -> Report:
    """Checks that the gradient of a cell or a layer is right; raises where it is not.

    Everything is computed in float64 and complex128, whatever `jax_enable_x64` says, with
    parameters `layer.init` plus noise and a random initial carry. Only floating leaves
    are perturbed, complex ones in both their parts. Where the hand-derived gradient and
    `jax.grad` disagree, differences of the forward pass decide which of the two is wrong.

    Args:
      layer: the cell or layer.
      inputs: features of an input (normal floats `[T, *batch, inputs]` are drawn), or
        `(key, T, batch_shape) -> xs`, or None: the layer runs without inputs.
      targets: the same for `Side.targets`.
      reference: `(params, carry, xs, side) -> (carry, ys)` of NumPy arrays (keys are
        JAX's): its differences decide then, and its values are compared as well.
      unroll: what is checked.
      plain: its reference, differentiated by JAX.
      lengths, chunks, batch_shapes: the cases are a selection of their combinations in
        which all meet. A chunk of None is left to the unroll.
      sides: side inputs: of "plain", "resets", "mask" (NaN in the padding) and "both"
        (with keys).
      tolerance: largest error of a leaf, relative to its largest entry.
      noise: standard deviation of what is added to the initial parameters.
      unused: leaves that may have a gradient of zero in every case, as the table names
        them (`"params['scale']"`).
      seed: of everything drawn.
      name: heads the report.
      quick: one comparison in the place of two: with differences of `reference` where it
        is given, else with `jax.grad`, compiled without optimisation. What is checked is
        compiled as it always is.

    Returns:
      A `Report`; print it. `report.wrong` has rows only where `jax.grad` is wrong and
      the hand-derived gradient is right: a miscompilation, see `verify.canary`.

    Raises:
      GradientError: a hand-derived gradient is wrong, or that of a leaf was zero
        everywhere, so that nothing was compared.

    Cost: about 30 compiled programs with the defaults, some 10 seconds.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, verify
    >>> leaky = cells.from_step(
    ...     lambda p, h, x: 2 * (0.9 * h + jnp.tanh(x @ p["w"]),),
    ...     lambda key: dict(w=jax.random.normal(key, (3, 4))),
    ...     lambda p, batch_shape: jnp.zeros((*batch_shape, 4)))
    >>> report = verify.check(leaky, inputs=3, lengths=(2,))
    >>> max(row.error for row in report.rows) < 1e-7
    True
    """
    start = time.perf_counter()
    rows: dict[str, Row] = {}
    count = 0
    with enable_x64(True):
        for case in _cases.plan(lengths, chunks, batch_shapes, sides):
            at = _cases.arguments(_lifted(layer), case, inputs, targets, noise, seed)
            count += len(case.chunks)
            for row in _compare(
                layer, at, case, unroll, plain, reference, tolerance, seed, quick
            ):
                _keep_worst(rows, row)
    otherwise = "jax.grad" if quick else "differences of the forward pass"
    truth = "differences of NumPy" if reference else otherwise
    name = name or getattr(unroll, "__name__", "unroll")
    seconds = time.perf_counter() - start
    report = Report(name, tuple(rows.values()), count, truth, tolerance, seconds)
    _refuse(report, unused)
    return report


def _refuse(report: Report, unused: tuple[str, ...]) -> None:
    """(2) A wrong gradient is an error; so is one that is zero in every case."""
    ours = [row for row in report.wrong if row.wrong != "jax.grad"]
    if ours:
        worst = max(ours, key=lambda row: row.error)
        raise GradientError(
            f"{worst.leaf} is wrong by {worst.error:.1e} (relative) at {worst.case}; "
            f"wrong: {worst.wrong}\n{report}",
            report,
            worst,
        )
    zero = [row.leaf for row in report.rows if not row.largest > 0]
    if missing := [leaf for leaf in zero if leaf not in unused]:
        raise GradientError(
            f"the gradient of {', '.join(missing)} is zero in every case, so nothing was "
            "compared; change noise, inputs or lengths, or name it in unused=\n"
            f"{report}",
            report,
        )


def _keep_worst(rows: dict[str, Row], row: Row) -> None:
    """The case is the worst one (wrong before right); each number that of all cases."""
    old = rows.get(row.leaf, row)
    worst = max(
        old,
        row,
        key=lambda r: (r.wrong not in ("", "jax.grad"), r.wrong != "", r.hand_grad),
    )
    numbers = [np.fmax(a, b).item() for a, b in zip(old[1:5], row[1:5], strict=True)]
    rows[row.leaf] = Row(row.leaf, *numbers, worst.wrong, worst.case)


def _lifted(layer: Cell | Layer) -> Cell | Layer:
    if not isinstance(layer, Cell | Layer):
        raise TypeError(
            f"layer: expected a Cell or a Layer, got {type(layer).__name__}"
        )
    return layer


def _compare(
    layer, at: Arguments, case: Case, unroll, plain, reference, tolerance, seed, quick
):
    """The rows of one case, every chunk of it."""
    rng = np.random.default_rng([seed, case.T])
    names, theta, merge = _floats(at)
    run = partial(_run, layer, at.side, at.T, merge)
    loop = partial(run, plain, {})
    results = _leaves(jax.eval_shape(loop, theta))
    cotangents = [_cases.normal(rng, a) for _, a in results]
    grad_out, grad = [None] * len(results), [None] * len(theta)
    if reference is None or not quick:
        options = UNOPTIMISED if quick else None
        grad_out, grad = _gradient(loop, theta, cotangents, options)
    truth_out, values = grad_out, lambda theta: _values(loop(theta))
    if reference is not None:
        values = partial(
            _reference, reference, at, merge, [a.shape for _, a in results]
        )
        truth_out = values(theta)
    v = _differences.directions(rng, [_differences.as_reals(a).size for a in theta])
    truth = [np.full(len(d), np.nan) for d in v]
    if reference is not None or not quick:
        truth = _truth(values, theta, v, cotangents, jitted=reference is None)
    for chunk in case.chunks:
        options = {} if chunk is None else dict(chunk=chunk)
        hand_out, hand = _gradient(partial(run, unroll, options), theta, cotangents)
        label = case.label(chunk)
        floor = 1e-3 * max(
            filter(np.isfinite, map(_verdict.largest_of, hand)), default=0.0
        )
        for leaf, *each in zip(names, hand, grad, v, truth, strict=True):
            yield _verdict.row(leaf, *each, floor, tolerance, label)
        for (leaf, _), *each in zip(
            results, hand_out, grad_out, truth_out, strict=True
        ):
            yield _verdict.result_row(leaf, *each, tolerance, label)


def _floats(at: Arguments):
    """The floating leaves of what is differentiated: names, values, and the way back."""
    tree = dict(params=at.params, carry=at.carry, xs=at.xs, targets=at.side.targets)
    with_paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    chosen = [trees.is_floating(a) for _, a in with_paths]
    names = [
        path[0].key + jax.tree_util.keystr(path[1:])
        for (path, _), f in zip(with_paths, chosen, strict=True)
        if f
    ]
    theta = [np.asarray(a) for (_, a), f in zip(with_paths, chosen, strict=True) if f]

    def merge(theta: list) -> dict:
        rest = iter(theta)
        return structure.unflatten(
            [
                next(rest) if f else a
                for (_, a), f in zip(with_paths, chosen, strict=True)
            ]
        )

    return names, theta, merge


def _run(layer, side, T, merge, unroll, options, theta: list) -> dict:
    full = merge(theta)
    if full["xs"] is None:
        options = dict(options, length=T)
    side = side._replace(targets=full["targets"])
    out = unroll(layer, full["params"], full["carry"], full["xs"], side, **options)
    return {"final carry": out[0], "ys": out[1]}


def _leaves(tree: dict) -> list[tuple]:
    """The floating leaves as `(name, leaf)`."""
    return [
        (path[0].key + jax.tree_util.keystr(path[1:]), a)
        for path, a in jax.tree_util.tree_leaves_with_path(tree)
        if trees.is_floating(a)
    ]


def _values(tree: dict) -> list:
    return [a for _, a in _leaves(tree)]


def _gradient(
    f: Callable, theta: list, cotangents: list, options: dict | None = None
) -> tuple[list, list]:
    """The values of f and the gradient of (1)."""

    @partial(jax.jit, compiler_options=options)
    def compiled(theta, cotangents):
        out, pull = jax.vjp(lambda theta: _values(f(theta)), theta)
        return out, pull(cotangents)[0]

    return jax.tree.map(np.asarray, compiled(theta, cotangents))


def _truth(values: Callable, theta, v, cotangents, jitted: bool) -> list[np.ndarray]:
    """The derivative of (1) along each leaf's directions, from values of L alone."""
    flats = [_differences.as_reals(a) for a in theta]
    starts, flat = np.cumsum([0, *map(len, flats)]), np.concatenate(flats)

    def loss(point):
        pieces = [point[i:j] for i, j in zip(starts, starts[1:], strict=False)]
        point = [
            _differences.from_reals(x, a) for x, a in zip(pieces, theta, strict=True)
        ]
        each = zip(cotangents, values(point), strict=True)
        return sum((w * a).sum().real for w, a in each)

    def at_each(points):
        return np.array([loss(point) for point in points])

    whole = np.concatenate(  # directions of one leaf among the coordinates of all
        [
            np.pad(d, [(0, 0), (i, flat.size - j)])
            for d, i, j in zip(v, starts, starts[1:], strict=False)
        ]
    )
    at_points = jax.jit(jax.vmap(loss)) if jitted else at_each
    found = _differences.along(
        lambda points: np.asarray(at_points(points)), flat, whole
    )
    return np.split(found, np.cumsum([len(d) for d in v])[:-1])


def _reference(reference, at: Arguments, merge, shapes, theta: list) -> list:
    full, side = jax.tree.map(_in_numpy, (merge(theta), at.side))
    side = side._replace(targets=full["targets"])
    carry, ys = reference(full["params"], full["carry"], full["xs"], side)
    values = _values({"final carry": carry, "ys": ys})
    chex.assert_equal(list(map(np.shape, values)), shapes)
    return list(map(np.asarray, values))


def _in_numpy(a):
    return a if trees.is_key(a) else np.asarray(a)
