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
from typing import NamedTuple

import chex
import jax
import numpy as np

from bptt_jax import _pytrees as trees
from bptt_jax import layers, loops, unrolls
from bptt_jax._jax import enable_x64
from bptt_jax.types import Cell, Layer, Loop, Sections, Unroll
from bptt_jax.verify import _cases, _claims, _differences, _verdict
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


class ClaimError(AssertionError):
    """The gradient of a cell is right, and what it says of itself is not.

    report: of the gradients.
    claims: the name of each claim that is wrong -> what speaks against it, in words.
    """

    def __init__(self, report: Report, claims: dict[str, str]):
        each = [f"{name} is wrong: {words}" for name, words in claims.items()]
        super().__init__("\n".join([*each, str(report)]))
        self.report = report
        self.claims = claims


def check(
    layer: Cell | Layer | Sections,
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

    Of a cell that is given by itself also what it says: `pointwise=True`, `affine=True`, and
    that `couplings` are all matrices through which a unit sees others.

    Everything is computed in float64 and complex128, whatever `jax_enable_x64` says, with
    parameters `layer.init` plus noise and a random initial carry. Only floating leaves
    are perturbed, complex ones in both their parts. Where the hand-derived gradient and
    `jax.grad` disagree, differences of the forward pass decide which of the two is wrong.

    A layer that does not say by which loop it runs is checked step by step and, where it can
    be, by the kernels of `loops.native`; `models.sections` step by step.

    Args:
      layer: the cell or layer, or a model of sections.
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
        compiled as it always is, and runs as it does here by default: by a kernel where
        there is one. What a cell says of itself is left alone.

    Returns:
      A `Report`; print it. `report.wrong` has rows only where `jax.grad` is wrong and
      the hand-derived gradient is right: a miscompilation, see `verify.canary`.

    Raises:
      GradientError: a hand-derived gradient is wrong, or that of a leaf was zero
        everywhere, so that nothing was compared.
      ClaimError: the gradients are right, and a claim of the cell is not.

    Cost: about 30 compiled programs with the defaults, some 10 seconds; up to five more for
    what a cell says of itself.

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
    layer = _checked(layer)
    rows: dict[str, Row] = {}
    count = 0
    arguments = partial(
        _cases.arguments, layer, inputs=inputs, targets=targets, noise=noise, seed=seed
    )
    with enable_x64(True):
        for case in _cases.selected(lengths, chunks, batch_shapes, sides):
            count += len(case.chunks)
            for row in _compare(
                layer, arguments(case), case, unroll, plain, reference, tolerance, seed,
                quick,
            ):  # fmt: skip
                _keep_worst(rows, row)
    otherwise = "jax.grad" if quick else "differences of the forward pass"
    truth = "differences of NumPy" if reference else otherwise
    name = name or getattr(unroll, "__name__", "unroll")
    seconds = time.perf_counter() - start
    report = Report(name, tuple(rows.values()), count, truth, tolerance, seconds)
    _refuse(report, unused)
    if quick or not isinstance(layer, Cell):
        return report
    case = _cases.plainest(lengths, batch_shapes)
    with enable_x64(True):
        report = _with_claims(report, layer, arguments(case), case)
    return report._replace(seconds=time.perf_counter() - start)


def _with_claims(report: Report, cell: Cell, at: Arguments, case: Case) -> Report:
    """With what the cell says of itself, all of which is found to be so."""
    if found := _claims.wrong(cell, at, case.batch_shape, report.tolerance):
        raise ClaimError(report, found)
    return report._replace(claims=_claims.made(cell))


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


def _checked(layer: Cell | Layer | Sections) -> Cell | Layer | Sections:
    if not isinstance(layer, Cell | Layer | Sections):
        raise TypeError(
            f"layer: expected a Cell, a Layer or Sections, got {type(layer).__name__}"
        )
    return layer


class _Problem(NamedTuple):
    """A case as a function of its floating leaves: what is compared, and of what.

    names, theta: the leaves.
    merge: `theta -> arguments`.
    run: `(unroll, options, theta) -> results by name`.
    results: `(name, shape and dtype)` of each floating result.
    cotangents: v and w of (1), one of each result.
    directions: of each leaf those along which differences are taken, `[n, reals]`.
    """

    names: list[str]
    theta: list
    merge: Callable
    run: Callable
    results: list[tuple]
    cotangents: list
    directions: list


class _Arm(NamedTuple):
    """What one of the three ways gives: results, and the gradient of each leaf (of
    differences: along its directions). None where it was not computed.
    """

    results: list
    gradient: list


def _compare(
    layer, at: Arguments, case: Case, unroll, plain, reference, tolerance, seed, quick
):
    """The rows of one case, every chunk of it."""
    problem = _problem(layer, at, case, plain, seed)
    loop = partial(problem.run, plain, {})
    # Of the two that decide, a quick check has one.
    by_jax = _Arm([None] * len(problem.results), [None] * len(problem.theta))
    if reference is None or not quick:
        by_jax = _by_jax(problem, loop, UNOPTIMISED if quick else None)
    differs = reference is not None or not quick
    truth = _by_differences(problem, at, loop, by_jax, reference, differs)
    which_loops = _loops_of(layer, at)
    for which in which_loops[-1:] if quick else which_loops:
        # a kernel is made of a stretch of one step, which is one for every chunk
        stepwise = which is loops.step_by_step
        for chunk in case.chunks if stepwise else case.chunks[-1:]:
            options = {} if chunk is None else dict(chunk=chunk)
            with loops.preferred(which):
                hand = _by_jax(problem, partial(problem.run, unroll, options))
            label = case.label(chunk) + ("" if stepwise else f", {which}")
            yield from _rows(problem, hand, by_jax, truth, tolerance, label)


def _loops_of(layer: Cell | Layer | Sections, at: Arguments) -> list[Loop]:
    """By which a layer is checked where it does not say how it is run; the last is used here."""
    if isinstance(layer, Sections):  # whose layers are members by themselves
        return [loops.step_by_step]
    recurrent = layers.parts(layer)
    free = [part for part in recurrent if part.recurrent.loop is None]
    if not free or at.xs is None:
        return [loops.step_by_step]
    reasons = layers.why(layer, at.params, at.carry, at.xs, at.side)
    native = any(reasons[jax.tree_util.keystr(part.path)] is None for part in free)
    return [loops.step_by_step, *[loops.native] * native]


def _problem(layer, at: Arguments, case: Case, plain, seed: int) -> _Problem:
    rng = np.random.default_rng([seed, case.T])
    names, theta, merge = _floats(at)
    run = partial(_run, layer, at.side, at.T, merge)
    results = _leaves(jax.eval_shape(partial(run, plain, {}), theta))
    cotangents = [_cases.normal(rng, a) for _, a in results]
    sizes = [_differences.as_reals(a).size for a in theta]
    v = _differences.directions(rng, sizes)
    return _Problem(names, theta, merge, run, results, cotangents, v)


def _by_jax(problem: _Problem, run: Callable, options: dict | None = None) -> _Arm:
    """By JAX of `theta -> results`: of an unroll that is its hand-derived gradient."""
    return _Arm(*_gradient(run, problem.theta, problem.cotangents, options))


def _by_differences(
    problem: _Problem, at: Arguments, loop, by_jax: _Arm, reference, differs: bool
) -> _Arm:
    """By values alone, of NumPy where there is a reference; NaN where `differs` is False."""
    if reference is None:
        results, values = by_jax.results, lambda theta: _values(loop(theta))
    else:
        shapes = [a.shape for _, a in problem.results]
        values = partial(_reference, reference, at, problem.merge, shapes)
        results = values(problem.theta)
    if not differs:
        return _Arm(results, [np.full(len(d), np.nan) for d in problem.directions])
    v, w = problem.directions, problem.cotangents
    return _Arm(results, _truth(values, problem.theta, v, w, jitted=reference is None))


def _rows(
    problem: _Problem, hand: _Arm, by_jax: _Arm, truth: _Arm, tolerance, label: str
):
    """The verdict on each leaf and each result."""
    known = filter(np.isfinite, map(_verdict.largest_of, hand.gradient))
    floor = 1e-3 * max(known, default=0.0)
    for leaf, *each in zip(
        problem.names, hand.gradient, by_jax.gradient, problem.directions,
        truth.gradient, strict=True,
    ):  # fmt: skip
        yield _verdict.row(leaf, *each, floor, tolerance, label)
    for (leaf, _), *each in zip(
        problem.results, hand.results, by_jax.results, truth.results, strict=True
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
