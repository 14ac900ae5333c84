"""How a model is made, as data and back; a file names nothing but what is in a list."""

import functools
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers, loops, models, objectives, recipes, unrolls
from support.members import ALIKE, CELLS, COMBINED, LAYERS

ALL = {**CELLS, **COMBINED, **LAYERS}
OWN = {
    "from_step": "cells.from_step: the function _leaky_step",
    "from_parts": "cells.from_parts: the function _sum_init",
    "zoneout of from_step": "cells.zoneout: cells.from_step: the function _leaky_step",
    "learned_carry of from_step": "cells.learned_carry: cells.from_step: the function",
    "complex, by hand": "cells.from_parts: the function init",
    "complex, from_step": "cells.from_step: the function _leaky",
    "time_distributed": "layers.time_distributed: the function _scale_init",
}
"""Members of functions of one's own, and what is said of them."""


def again(record):
    """Through a file and back."""
    return recipes.read(json.loads(json.dumps(recipes.write(record))))


@pytest.mark.parametrize("name", [n for n in ALL if n not in OWN])
def test_every_member_comes_back_equal(name):
    record = ALL[name].make()
    assert again(record) == record
    assert hash(again(record)) == hash(record)


@pytest.mark.parametrize("name", OWN)
def test_functions_of_ones_own_are_not_written(name):
    with pytest.raises(ValueError, match=OWN[name] + ".* is one's own"):
        recipes.write(ALL[name].make())


def test_the_suites_have_members_of_both_kinds():
    assert set(OWN) < set(ALL)
    assert set(ALIKE) < set(ALL)


LEAKY = functools.partial(jax.nn.leaky_relu, negative_slope=0.1)
MORE = {
    "a field replaced": lambda: cells.gru(3, 8)._replace(keyed=True),
    "a partial": lambda: cells.elman(3, 8, activation=LEAKY),
    "jnp's dtype": lambda: cells.lstm(3, 8, dtype=jnp.bfloat16),
    "NumPy's dtype": lambda: cells.lstm(3, 8, param_dtype=np.dtype("float64")),
    "NumPy's type": lambda: cells.lstm(3, 8, param_dtype=np.float64),
    "JAX's own initialiser": lambda: cells.gru(
        3, 8, kernel_init=jax.nn.initializers.zeros
    ),
    "hooks": lambda: layers.recurrent(
        cells.lstm(3, 8), layers.in_turn(layers.h_detach, layers.clip_d_carry(1.0))
    ),
    "a loop": lambda: layers.recurrent(cells.gru(3, 8), loop=loops.step_by_step),
    "over the parts": lambda: layers.stack(cells.gru(3, 4), layers.dense(4, 2)).over(
        lambda part: layers.made(part._replace(save=layers.GATES))
    ),
    "a number that is none of JSON": lambda: layers.scale_d_carry(float("inf")),
    "a model": lambda: models.symbols(
        9, 4, (cells.gru(4, 8), layers.residual(cells.gru(8, 8))), 9, 8, dropout=0.1
    ),
    "both directions": lambda: models.bidirectional(
        cells.gru(3, 4), cells.gru(3, 4), functools.partial(unrolls.truncated, window=5)
    ),
    "with a loss": lambda: layers.with_loss(
        cells.gru(3, 4), objectives.softmax_cross_entropy
    ),
}


@pytest.mark.parametrize("name", MORE)
def test_options_and_what_is_made_of_them(name):
    assert again(MORE[name]()) == MORE[name]()


INITIALISERS = {
    "normal": jax.nn.initializers.normal(0.3),
    "uniform": jax.nn.initializers.uniform(2.0),
    "lecun_normal": jax.nn.initializers.lecun_normal(),
    "orthogonal": jax.nn.initializers.orthogonal(0.5),
    "constant": jax.nn.initializers.constant(0.25),
}


@pytest.mark.parametrize("name", INITIALISERS)
def test_initialisers_that_jax_makes(name):
    """JAX's are equal to themselves alone: another function, and the same numbers."""
    cell = cells.elman(3, 4, recurrent_kernel_init=INITIALISERS[name])
    key = jax.random.key(0)
    for a, b in zip(
        *map(jax.tree.leaves, (cell.init(key), again(cell).init(key))), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert again(cell) == again(cell)


def own(x):
    return jnp.tanh(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: cells.elman(3, 4, activation=own),
            "cells.elman, activation: the function own is one's own",
        ),
        (
            lambda: cells.elman(
                3, 4, activation=functools.partial(jnp.multiply, np.ones(4))
            ),
            r"activation: jnp.multiply: an array float64\[4\] is one's own",
        ),
        (
            lambda: cells.gru(3, 4)._replace(couplings=own),
            "_replace, couplings: the function own",
        ),
        (lambda: 3 * jnp.ones(2), r"an array float32\[2\]"),
        (lambda: [1], "a list is one's own"),
    ],
)
def test_what_is_ones_own_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        recipes.write(make())


def recipe(**data):
    return dict(format=1, recipe=data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "expected a recipe, with its format"),
        (dict(recipe={}), "expected a recipe, with its format"),
        (
            dict(format=9, recipe={}),
            "a recipe of format 9; this version reads 1",
        ),
        (recipe(call="os.system", args=["true"]), "'os.system' is no name that"),
        (recipe(call="cells.transformer", args=[3]), "'cells.transformer' is no name"),
        (recipe(call=["cells.gru"]), "expected a name, got a list"),
        (recipe(name="jax.nn.__loader__"), "is no name that this version knows"),
        (recipe(partial="builtins.eval", args=["1"]), "is no name that this version"),
        (recipe(record="types.Cell", fields={}), "is no name that this version knows"),
        (recipe(call="cells.gru", args=[3]), "cells.gru: .*n_hidden"),
        (recipe(call="cells.gru", args=[3, 0]), "n_hidden must be a whole number"),
        (recipe(call="cells.gru", args=3), "cells.gru: expected arguments in a list"),
        (recipe(dtype="object"), "'object' is no type of numbers"),
        (recipe(float="1e9"), "'1e9' is no number"),
        (recipe(complex=["a", 1]), "expected a real and an imaginary part"),
        (recipe(replaced=3, fields={}), "expected a record"),
        (recipe(lambda_="x"), "unknown part of a recipe: lambda_"),
    ],
)
def test_what_is_no_recipe_is_refused_in_a_line(data, message):
    with pytest.raises(ValueError, match=message) as raised:
        recipes.read(data)
    assert "\n" not in str(raised.value)


def test_a_recipe_that_is_too_deep():
    data = 3
    for _ in range(100_000):
        data = [data]
    with pytest.raises(ValueError, match="too deep"):
        recipes.read(dict(format=1, recipe=data))


def test_nothing_is_imported(monkeypatch):
    """A name is looked up in the list; the import system is not asked."""

    def refused(*arguments, **options):
        raise AssertionError(arguments)

    data = recipes.write(LAYERS["character model"].make())
    monkeypatch.setattr(importlib, "import_module", refused)
    assert recipes.read(data) is not None
