"""Shapes and dtypes that annotations name are those of what goes in and comes out.

The package does not import `jaxtyping`; type checkers do, and these tests
(`support/checked.py`). Right arrays are those of the docstrings' examples, where NumPy is
enough for them, and of `more`.
"""

import ast
import doctest
import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from bptt_jax import cells, diagnose, objectives, plots, sequences, unrolls
from bptt_jax.cells import _init, _products
from support import checked

ANNOTATED = checked.annotated()
KEY = jax.random.key(0)


def f(*shape, dtype=jnp.float32):
    return jnp.asarray(np.ones(shape, dtype))


def i(*shape):
    return jnp.asarray(np.zeros(shape, np.int32))


def b(*shape):
    return jnp.asarray(np.ones(shape, bool))


def test_the_rooms_of_plain_arrays_are_annotated():
    figures = {f"plots._{name}" for name in plots.__all__} - {"plots._bars"}
    assert set(checked.modules()) == figures | {
        "cells._init", "cells._products", "diagnose._decay", "diagnose._jacobians",
        "objectives", "plots._axes", "sequences",
    }  # fmt: skip
    assert len(ANNOTATED) > 40


def test_nothing_of_it_is_there_at_run_time():
    """In the package annotations are text, and jaxtyping need not be installed."""
    for module in checked.modules().values():
        tree = ast.parse(inspect.getsource(module))
        (guarded,) = [n for n in tree.body if isinstance(n, ast.If)]
        assert ast.unparse(guarded.test) == "TYPE_CHECKING"
        assert not [n for n in tree.body if "jaxtyping" in ast.unparse(n) and n != guarded
                    and isinstance(n, ast.Import | ast.ImportFrom)]  # fmt: skip
        assert "jaxtyping" not in vars(module)
    names = [f"bptt_jax.{name}" for name in checked.modules()]
    code = f"""
import importlib, sys
sys.modules["jaxtyping"] = sys.modules["beartype"] = None
for name in {names}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


# What is right


def gradient(**options):
    """Through a whole cell."""
    cell = cells.lstm(2, 3, **options)
    params = cell.init(KEY)

    def loss(params, xs):
        carry = cell.init_carry(params, (4,))
        return unrolls.bptt(cell, params, carry, xs)[1].sum()

    jax.grad(loss, (0, 1))(params, f(5, 4, 2))


def more():
    """JAX's arrays, and what the examples do not have."""
    jax.eval_shape(more_arrays)  # traced alone: no program is made
    steps = np.arange(3)
    plots.loss(steps, steps, held_out_steps=[1, 2], held_out=jnp.ones(2))
    plots.memory_time({"a": ([1, 2], [1, 2])}, theory={"b": ([1], [2])})
    plots.curves({"a": (steps, np.ones((2, 3))), "b": ([1], [2])})


def more_arrays():
    objectives.softmax_cross_entropy(f(5, 3, 2, 4), i(5, 3, 2))
    objectives.squared_error(f(5, 3, 2) * 1j, i(5, 3, 2))
    objectives.sigmoid_cross_entropy(f(5, 3, 2), b(5, 3, 2))
    objectives.sigmoid_cross_entropy(f(5, 3, 2), i(5, 3, 2))
    objectives.at_last_step(b(5, 3), b(5, 3))
    objectives.at_last_step(b(5), None)
    norms = 0.5 ** jnp.arange(6.0)
    for rate in (
        diagnose.fitted_rate,
        diagnose.largest_rate,
        diagnose.quantile_rate,
    ):
        diagnose.window(norms, norms, tolerance=0.1, rate=rate)
    diagnose.horizon(norms)
    cell = cells.lstm(2, 3)
    params = cell.init(KEY)
    Js = diagnose.jacobians(cell, params, cell.init_carry(params, ()), f(5, 2))
    diagnose.singular_values(Js)
    diagnose.singular_values(f(2, 3, 4, 4))
    diagnose.spectral_radius(f(4, 4))
    diagnose.spectral_radius(f(3, 4, 4))
    diagnose.products(f(7, 2, 2), 3)
    sequences.episode_starts(b(5, 2), b(2))
    sequences.episode_starts(b(5), b())
    _products.affine(f(5, 3, 2), f(2, 4), f(4))
    _products.affine(f(5, 2), f(2, 3, 4), f(3, 4))
    _products.gate_products(f(5, 3, 2), f(2, 12), 4, f(12))
    _products.held_dot_t(f(5, 12), f(2, 12))
    _products.dot_t(f(5, 3, 4), f(2, 3, 4))
    _products.outer_sum(f(5, 3, 2), f(5, 3, 4))
    _products.outer_sum(f(5, 3, 2, dtype=jnp.bfloat16), f(5, 3, 4, 6))
    _products.total(f(5, 3, 4, 6), 2)
    for options in ({}, dict(gate_axis=True), dict(peepholes=True)):
        gradient(**options)
    orthogonal = _init.orthogonal
    _init.fused(orthogonal, KEY, 2, 3, 4, jnp.float32)
    _init.orthogonal(jax.random.PRNGKey(0), (3, 3), jnp.bfloat16)
    _init.identity(KEY, (3, 2))
    _init.chrono_bias(KEY, 3, 10, jnp.float32)


@pytest.fixture(scope="module")
def calls():
    """The calls of each annotated function, all of them checked."""
    runner = doctest.DebugRunner(optionflags=doctest.ELLIPSIS)
    with checked.everywhere() as calls:
        for name, function in ANNOTATED.items():
            if not name.startswith(("plots", "sequences")):
                continue  # op by op, each would be a program
            module = sys.modules[function.__module__]
            inner = inspect.unwrap(function)
            for test in doctest.DocTestFinder(recurse=False).find(
                inner, name, module, globs=dict(vars(module))
            ):
                runner.run(test)
        more()
    return calls


@pytest.mark.parametrize("name", ANNOTATED)
def test_right_arrays_pass(calls, name):
    assert calls[name]


@pytest.mark.parametrize("name", ANNOTATED)
def test_each_annotation_is_looked_at(calls, name):
    """With other shapes in its place, what was right is wrong."""
    function = ANNOTATED[name]
    for of, text in inspect.unwrap(function).__annotations__.items():
        if checked.shaped(text) and "Callable" not in text:
            other = {of: checked.SHAPE.sub('"9 9 9 9 9 9 9 9"', text)}
            given = [c for c in calls[name] if of == "return" or of in c.arguments]
            assert given, of
            assert not all(checked.fits(function, call, **other) for call in given), of
            assert all(checked.fits(function, call) for call in given[:2]), of


# What is wrong

WRONG = {
    "another batch": lambda: objectives.softmax_cross_entropy(f(5, 3, 4), i(5, 2)),
    "no axis of outputs": lambda: objectives.softmax_cross_entropy(f(5), i(5)),
    "labels that are numbers": lambda: objectives.softmax_cross_entropy(f(5, 4), f(5)),
    "targets that would spread": lambda: objectives.squared_error(f(5, 3, 2), f(3, 2)),
    "other outputs": lambda: objectives.squared_error(f(5, 3, 2), f(5, 3, 1)),
    "complex logits": lambda: objectives.sigmoid_cross_entropy(f(5, 2) * 1j, f(5, 2)),
    "a mask of numbers": lambda: objectives.at_last_step(f(5, 2)),
    "resets of others": lambda: objectives.at_last_step(b(5, 2), b(5, 3)),
    "no lags": lambda: diagnose.fitted_rate(f()),
    "lags of two": lambda: diagnose.largest_rate(f(3, 2)),
    "whole lags": lambda: diagnose.quantile_rate(i(3)),
    "a rate a lag": lambda: diagnose.remainder(f(3), f(3)),
    "fewer sums": lambda: diagnose.relative_bias(f(3), f(2), f()),
    "more sums": lambda: diagnose.window(f(3), f(4), tolerance=0.1),
    "a share of lags of two": lambda: diagnose.horizon(f(3, 2)),
    "no matrices": lambda: diagnose.singular_values(f(3)),
    "no square": lambda: diagnose.spectral_radius(f(5, 3, 2)),
    "a square in a batch": lambda: diagnose.products(f(5, 2, 3, 3), 2),
    "all flags before": lambda: sequences.episode_starts(b(5, 2), b(5, 2)),
    "flags that are numbers": lambda: sequences.episode_starts(i(5, 2), b(2)),
    "segments of one row": lambda: sequences.unpacked(f(5, 2), np.zeros(5, np.int32)),
    "long segments": lambda: sequences.unpacked(f(5, 2), np.zeros((5, 2), np.int64)),
    "weights of other inputs": lambda: _products.affine(f(5, 3), f(2, 4)),
    "a bias of others": lambda: _products.affine(f(5, 2), f(2, 4), f(3)),
    "a bias of inputs": lambda: _products.gate_products(f(5, 2), f(2, 4), 2, f(2)),
    "a product with others": lambda: _products.held_dot_t(f(5, 3), f(2, 4)),
    "gates of others": lambda: _products.dot_t(f(5, 3, 4), f(2, 3, 5)),
    "steps of others": lambda: _products.outer_sum(f(5, 3, 2), f(4, 3, 2)),
    "whole cotangents": lambda: _products.total(i(5, 3)),
    "no key": lambda: _init.orthogonal(f(2), (3, 3)),
    "many keys": lambda: _init.chrono_bias(jax.random.split(KEY), 3, 10, jnp.float32),
    "keys of gates": lambda: _init.fused(
        _init.identity, jax.random.split(KEY), 2, 2, 2, jnp.float32
    ),
    "a key of halves": lambda: _init.identity(i(2), (3, 3)),
    "states of one unit": lambda: plots.activity([1, 2, 3]),
    "scores of others": lambda: plots.against([1, 2], [1, 2, 3], label="lr"),
    "norms of two": lambda: plots.by_lag({"a": [[1.0, 2.0]]}),
    "a row of counts": lambda: plots.confusion([1, 2]),
    "times of two": lambda: plots.curves({"a": ([[1, 2]], [1, 2])}),
    "steps of other exponents": lambda: plots.exponents([[1, 2]], steps=[1, 2]),
    "forecasts of others": lambda: plots.forecast([1.0, 2.0], {"a": [1.0]}),
    "steps of other norms": lambda: plots.gradient_flow([[1], [2]], steps=[1]),
    "heights of others": lambda: plots.heat_map([1, 2], [1], [1, 2], labels=("a", "b")),
    "losses of others": lambda: plots.loss([1], [1, 2]),
    "held out at others": lambda: plots.loss([1], [1], held_out_steps=[1], held_out=[1, 2]),
    "a time, not times": lambda: plots.memory_time({"a": ([1.0], 1.0)}),
    "scores of two": lambda: plots.parallel_coordinates({"a": [1]}, [[1.0]]),
    "truths of others": lambda: plots.residuals([1.0, 2.0], [1.0]),
    "flows of two": lambda: plots.flows({"a": [[0.1, 0.2]]}),
    "edges of two": lambda: plots.gates({"a": ([[0, 1]], [1.0])}),
    "shares of two": lambda: plots.shares({"a": ([1], [[0.5]])}, label="lag"),
    "words": lambda: plots.spectrum({"a": ["x"]}),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arrays_are_refused(what):
    with checked.everywhere(), pytest.raises(TypeCheckError):
        WRONG[what]()


def test_every_public_function_has_something_wrong():
    used = {n for case in WRONG.values() for n in case.__code__.co_names}
    public = {
        n.rpartition(".")[2] for n in ANNOTATED if not n.startswith("plots._axes")
    }
    without = {"jacobians", "packed"}  # trees of arrays go in
    assert {n for n in public if not n.startswith("_")} - used == without


# What the checks see

LIES = {
    "objectives.squared_error": ("return", 'Float[Array, "K *B O"]'),
    "objectives.softmax_cross_entropy": ("labels", 'Integer[Array, "K *B O"]'),
    "objectives.at_last_step": ("return", 'Bool[Array, "T *B"]'),
    "diagnose._decay.relative_bias": ("return", 'Float[Array, "n-1"]'),
    "diagnose._decay.horizon": ("return", 'Float[Array, ""]'),
    "diagnose._jacobians.products": ("return", 'Inexact[Array, "T N N"]'),
    "diagnose._jacobians.jacobians": ("return", 'Float[Array, "T N M=2"]'),
    "sequences.packed": ("return", 'tuple[Batch, Int32[np.ndarray, "R {length}"]]'),
    "sequences.episode_starts": ("before", 'Bool[Array, "T *B"]'),
    "cells._products.gate_products": ("return", 'list[Inexact[Array, "*K nH"]]'),
    "cells._products.outer_sum": ("return", 'Inexact[Array, "O I"]'),
    "cells._init.fused": ("return", 'Inexact[Array, "{n_in} {n_hidden}"]'),
    "plots._axes.edges": ("return", 'Float[np.ndarray, "N"]'),
    "plots._axes.line": (
        "return",
        'tuple[Float[np.ndarray, "N"], Float[np.ndarray, "N *S"]]',
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_an_annotation_that_is_wrong_is_caught(calls, name):
    of, text = LIES[name]
    function = ANNOTATED[name]
    assert not all(checked.fits(function, c, **{of: text}) for c in calls[name])
