"""A type checker holds functions against the contracts: what fits passes, what does not is an
error at its line.
"""

import json
import pathlib
import pickle
import subprocess
import sys
import typing

import pytest

import bptt_jax
from bptt_jax import types

PARTS = """
import jax
import jax.numpy as jnp
from bptt_jax.types import Batch, Gates, Gradient, Outer, Side, Sum


def init(key):
    return dict(w=jax.random.normal(key, (3, 4)), b=jnp.zeros(4))


def init_carry(params, batch_shape):
    return jnp.zeros((*batch_shape, 4), params["w"].dtype)


def step(params, h, x):
    h = jnp.tanh(x @ params["w"] + params["b"] + h)
    return h, h


def project(params, xs):
    return xs @ params["w"] + params["b"]


def gates(params, h, u):
    return Gates(dict(z=u + h))


def move(params, g, h):
    h = jnp.tanh(g.named["z"])
    return h, h


def local(params, g, hs, nexts):
    return 1 - nexts**2


def backward(params, slope, d_h, d_y):
    delta = (d_h + d_y) * slope
    return delta, delta


def factors(params, xs, hs, slopes, deltas):
    return dict(w=Outer(xs, deltas), b=Sum(deltas)), deltas @ params["w"].T


def fwd(params, carry, xs, side):
    return carry, xs * params, ()


def bwd(params, carry, xs, side, ys, residuals, d_carry, d_ys):
    return (xs * d_ys).sum(), d_carry, params * d_ys, None


def forward(cell, params, carry, inputs, keep, length):
    return carry, inputs, keep(params, carry, inputs[0], inputs[0], carry)


def back(cell, save, params, inputs, carry, nexts, kept, d_carry, d_ys):
    return params, d_carry, d_ys


def supports(cell, save, shapes, platform):
    return None if platform == "cpu" else "it runs on CPUs"


def keep(cell, params, carry, u, gates, after):
    return gates


def coeffs(cell, params, xs, carries, nexts, kept):
    return kept


def begin(params, batch):
    return ()


def grad(params, state, batch, key):
    return Gradient(jnp.ones(()), params, state, jnp.ones(()), {})


def read(first, n):
    return [first] * n


def batch(item, key):
    return Batch(item, Side())


def objective(ys, targets):
    return ((ys - targets) ** 2).sum(-1)


def unroll(layer, params, carry, xs, side=Side(), *, chunk=None):
    return carry, xs


def watch(seen):
    return (seen.params, seen.xs), ()


def hook(d_carry, aux):
    return d_carry
"""

RIGHT = """
from functools import partial

import jax
from jax import Array
from bptt_jax import cells, estimators, layers, models, objectives, unrolls, wholes
from bptt_jax.types import (
    Cell, Estimator, Gates, Layer, Loop, Recurrent, Save, Side, StepVJP, Stream, Task, Whole,
)
from parts import *

vjp = StepVJP(project, gates, move, local, backward, factors)
cell = Cell(init, init_carry, step, vjp, lambda h: h, couplings=lambda f, params: params)
layer = Layer(init, init_carry, fwd, bwd, lambda f: f(Recurrent(cell)), None)
loop = Loop("mine", forward, back, supports)
part = Recurrent(cell, hook, loop, Save("mine", keep, coeffs), watch)
stream = Stream(read, batch, None)
Task(3, 4, objective, stream, stream._replace(length=7))
Estimator(begin, grad)
estimators.exact(layer, objectives.squared_error, unroll=unroll)
estimators.exact(layer, objective, unroll=partial(unrolls.truncated, window=8))
both = models.bidirectional(cell, cell, unrolls.reverse(unroll))
whole = Whole(init, lambda params, ys, side: (ys, wholes.one_step(side)))
in_a_row = models.sections(layer, wholes.bidirectional(cell), whole)
estimators.exact(layers.with_options(in_a_row, save=layers.GATES), objective)


# names, annotations and further arguments are whoever writes them's own
def moved(
    theta: dict[str, Array], g: Gates, h: Array, gain: float = 1.0
) -> tuple[Array, Array]:
    return h, gain * h


class Pulled:
    def __call__(self, *at):
        return at[2], at[3]

    def factors(self, params, xs, hs, slopes, deltas) -> tuple[dict, Array]:
        return {}, deltas


vjp._replace(move=moved)
StepVJP(project, gates, jax.jit(move), partial(local), Pulled(), Pulled().factors)
StepVJP(lambda p, xs: xs, lambda p, h, u: u, moved, local, backward, factors)
carry, y = cell.step({}, init_carry({}, (2,)), 0)
d_params, d_carry, d_xs, d_targets = layer.bwd({}, 0, 0, Side(), 0, (), 0, 0)
cells.from_step(step, init, init_carry, gates=lambda p, h, x: dict(z=h), output=None)
layers.recurrent(cell, layers.in_turn(layers.h_detach, hook), loop=loop)
layers.time_distributed(init, lambda params, xs: xs @ params["w"])
"""

WRONG = """
from jax import Array
from bptt_jax import cells, layers, unrolls
from bptt_jax.types import (
    Cell, Estimator, Layer, Loop, Recurrent, Save, Seen, StepVJP, Stream, Unroll,
)
from parts import *


def few(first):
    return first, first


def many(a, b, c, d, e, f, g, h, i):
    return a, b


def named(*, params, carry, u):
    return u


def state_alone(params, g, h) -> Array:
    return h


def three(params, g, h):
    return h, h, g


StepVJP(few, gates, move, local, backward, factors)  # error
StepVJP(project, few, move, local, backward, factors)  # error
StepVJP(project, named, move, local, backward, factors)  # error
StepVJP(project, gates, project, local, backward, factors)  # error
StepVJP(project, gates, state_alone, local, backward, factors)  # error
StepVJP(project, gates, three, local, backward, factors)  # error
StepVJP(project, gates, move, move, backward, factors)  # error
StepVJP(project, gates, move, local, move, factors)  # error
StepVJP(project, gates, move, local, lambda p, c, d: (d, d), factors)  # error
StepVJP(project, gates, move, local, backward, many)  # error
StepVJP(
    project,
    gates,
    move,
    local,
    factors=backward,  # error
    backward=factors,  # error
)
vjp = StepVJP(project, gates, move, local, backward, factors)
Cell(few, few, step, vjp)  # error
Cell(init, init_carry, init_carry, vjp)  # error
Cell(init, init_carry, step, vjp, output=move)  # error
Cell(init, init_carry, step, step)  # error
cell = Cell(init, init_carry, step, vjp)


def without_d_ys(params, carry, xs, side, ys, residuals, d_carry):
    return params, d_carry, xs, None


def without_targets(params, carry, xs, side, ys, residuals, d_carry, d_ys):
    return params, d_carry, d_ys


def without_residuals(params, carry, xs, side):
    return carry, xs


Layer(init, init_carry, fwd, without_d_ys)  # error
Layer(init, init_carry, fwd, without_targets)  # error
Layer(init, init_carry, without_residuals, bwd)  # error
Layer(init, init_carry, fwd, bwd, over=lambda f: cell)  # error


def whether(cell, save, shapes, platform) -> bool:
    return True


Loop("mine", back, back, supports)  # error
Loop("mine", forward, forward, supports)  # error
Loop("mine", forward, back, whether)  # error
Save("mine", coeffs, few)  # error
Recurrent(cell, few)  # error
Recurrent(cell, watch=hook)  # error


def shown_first(seen: Seen) -> tuple[dict, tuple[dict, dict]]:
    return {}, ({}, {})


def by_value(params, state, batch, key):
    return jnp.ones(()), params, state


Recurrent(cell, watch=shown_first)  # error
Estimator(begin, by_value)  # error
Estimator(begin, begin)  # error
Stream(read, begin, None)  # error
run: Unroll = few  # error
cells.from_step(project, init, init_carry)  # error
layers.recurrent(cell, lambda d_carry: d_carry)  # error
layers.with_loss(cell, few)  # error
layers.time_distributed(init, lambda params: params)  # error
unrolls.pullback(cell, {}, 0, 0, watch=move)  # error
cell.vjp.gates({}, 0)  # error
after, y, more = cell.step({}, 0, 0)  # error
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory) -> dict[str, list[int]]:
    """The lines of each file that the checker has an error for."""
    folder = tmp_path_factory.mktemp("checked").resolve()
    room = pathlib.Path(bptt_jax.__file__).parent.parent
    settings = dict(include=["."], extraPaths=[str(room)], typeCheckingMode="basic")
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    for name, text in dict(parts=PARTS, right=RIGHT, wrong=WRONG).items():
        (folder / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath",
         sys.executable, "-p", folder],
        capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, list[int]] = dict(parts=[], right=[], wrong=[])
    assert done.returncode == 1, done.stdout + done.stderr  # 1: it has found errors
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        if each["severity"] == "error":
            line = each["range"]["start"]["line"] + 1
            found[pathlib.Path(each["file"]).stem].append(line)
            print(pathlib.Path(each["file"]).stem, line, each["message"])
    return found


@pytest.mark.slow
def test_what_fits_passes(errors):
    assert errors["parts"] == []
    assert errors["right"] == []


@pytest.mark.slow
def test_what_does_not_is_an_error_at_its_line(errors):
    lines = WRONG.split("\n")
    marked = [n for n, line in enumerate(lines, 1) if line.endswith("# error")]
    assert len(marked) > 30
    missed = [lines[n - 1] for n in marked if n not in errors["wrong"]]
    more = [lines[n - 1] for n in errors["wrong"] if n not in marked]
    assert (missed, more) == ([], [])


RECORDS = [kind for kind in vars(types).values() if hasattr(kind, "_fields")]
PROTOCOLS = [kind for kind in vars(types).values() if hasattr(kind, "_is_protocol")]


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_functions_of_records_have_protocols(kind):
    """No field is any function, whatever its arguments."""
    for name, said in typing.get_type_hints(kind).items():
        assert "Callable" not in str(said), f"{name}: {said}"


@pytest.mark.parametrize("name", types.__all__)
def test_names_are_of_the_room(name):
    """Where a noun stands in it is nobody's business, of pickles neither."""
    kind = getattr(types, name)
    assert kind.__module__ == "bptt_jax.types"
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert kind.__doc__


def test_protocols_are_called_by_position():
    assert len(PROTOCOLS) > 25
    for kind in PROTOCOLS:
        code = kind.__call__.__code__
        assert code.co_posonlyargcount == code.co_argcount, kind
