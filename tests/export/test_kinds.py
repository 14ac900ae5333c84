"""Programs of runs with several inputs, a context, or sections: any sizes, the same numbers."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from bptt_jax import InContext, cells, export, layers, models, tasks, train, wholes
from support import tiers

N, H = 20, 4
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(2, 7, N)
XS = [5 + 3 * RNG.normal(size=(T, 3)) for T in LENGTHS]
SIGNS = [RNG.integers(0, 5, T) for T in LENGTHS]
YS = ["no", "yes"] * (N // 2)
OF_STEPS = [x[:, 0] * 2 for x in XS]
AGE = RNG.normal(size=(N, H))


def aged(n_in: int):
    """A cell that sees a context."""
    normal = jax.nn.initializers.lecun_normal()

    def step(params, h, x):
        w, age = params
        h = jnp.tanh(x @ w + 0.5 * h + age)
        return h, h

    def init(key):
        return InContext(normal(key, (n_in, H)))

    return cells.from_step(step, init, lambda p, shape: jnp.zeros((*shape, H)))


KINDS = {
    "two inputs": lambda: (
        tasks.arrays(dict(light=XS, sign=SIGNS), YS, batch=4),
        layers.stack(
            layers.inputs(light=cells.elman(3, H), sign=layers.embedding(5, 2)),
            layers.dense(H + 2, 2),
        ),
    ),
    "a context": lambda: (
        tasks.arrays(XS, YS, batch=4, context=AGE),
        layers.stack(aged(3), layers.dense(H, 2)),
    ),
    "a context, sections": lambda: (
        tasks.arrays(XS, YS, batch=4, context=AGE),
        models.sections(aged(3), wholes.mean(), layers.dense(H, 2)),
    ),
    "both directions": lambda: (
        tasks.arrays(XS, OF_STEPS, batch=4),
        models.sections(wholes.bidirectional(cells.lstm(3, H)), layers.dense(2 * H, 1)),
    ),
    "attention": lambda: (
        tasks.arrays(XS, YS, batch=4),
        models.sections(
            wholes.bidirectional(cells.gru(3, 2)),
            wholes.attention(4, 2),
            layers.dense(4, 2),
        ),
    ),
    "ends": lambda: (
        tasks.arrays(XS, YS, batch=4),
        models.sections(wholes.ends(cells.gru(3, H)), layers.dense(2 * H, 2)),
    ),
    "attention_pool": lambda: (
        tasks.arrays(XS, YS, batch=4),
        models.sections(cells.gru(3, H), wholes.attention_pool(H), layers.dense(H, 2)),
    ),
    "last": lambda: (
        tasks.arrays(XS, YS, batch=4),
        models.sections(cells.gru(3, H), wholes.last(), layers.dense(H, 2)),
    ),
}


def of(task, model) -> train.Run:
    params = model.init(jax.random.key(0))
    best = train.Best(jax.tree.map(lambda a: a + 0.1, params), 0, 0.0)
    return train.Run(None, 0.0, False, best, model=model, task=task)


@functools.cache
def run(name: str) -> train.Run:
    return of(*KINDS[name]())


def given(name: str, n: int, T: int) -> tuple[tuple, list, dict]:
    """Arguments of the program, padded with what must not be read, and of `Run.predict`."""
    lengths = np.array([T, 1, T - 1][:n], np.int32)
    xs = [5 + 3 * np.random.default_rng(n).normal(size=(m, 3)) for m in lengths]
    light = np.full((n, T, 3), np.nan, np.float32)
    sign = np.full((n, T), 4, np.int32)
    for i, x in enumerate(xs):
        light[i, : len(x)] = x
        sign[i, : len(x)] = np.arange(len(x)) % 5
    if name == "two inputs":
        signs = [s[:m] for s, m in zip(sign, lengths, strict=True)]
        return (dict(light=light, sign=sign), lengths), dict(light=xs, sign=signs), {}
    if "context" in name:
        age = AGE[:n].astype(np.float32)
        return (light, lengths, age), xs, dict(context=age)
    return (light, lengths), xs, {}


def same(made: train.Run, found, xs, lengths, more) -> None:
    if made.task.encoding.per_step:
        steps = zip(np.asarray(found["number"]), lengths, strict=True)
        want = np.concatenate(made.predict(xs, **more))
        np.testing.assert_allclose(
            np.concatenate([a[:m] for a, m in steps]), want, rtol=1e-4, atol=1e-4
        )
        return
    want = made.predict_proba(xs, **more)
    np.testing.assert_allclose(found["probabilities"], want, rtol=1e-4, atol=1e-6)
    assert np.ptp(want) > 1e-3


SLOW = ("a context, sections", "attention_pool", "last")


@pytest.mark.parametrize("name", [tiers.slow(n, n not in SLOW) for n in KINDS])
def test_a_file_says_what_the_run_predicts(name, tmp_path):
    """Written once, read again, and run with other numbers of sequences and of steps."""
    pytest.importorskip("flatbuffers", reason="JAX writes exported programs with it")
    made, path = run(name), tmp_path / "run.stablehlo"
    export.stablehlo(made, path)
    program = jax_export.deserialize(bytearray(pathlib.Path(path).read_bytes()))
    for n, T in ((3, 6), (1, 2)):
        arguments, xs, more = given(name, n, T)
        same(made, program.call(*arguments), xs, arguments[1], more)


def test_a_pool_where_each_step_has_a_target_is_refused_before_any_work():
    task = tasks.arrays(XS, OF_STEPS, batch=4)
    model = models.sections(cells.gru(3, H), wholes.mean(), layers.dense(H, 1))
    with pytest.raises(ValueError, match="its sections make one of a sequence"):
        export.program(of(task, model))


def test_a_context_of_which_nothing_is_known_is_refused_before_any_work(tmp_path):
    def no_data(*arguments):
        raise ValueError("the data of this run are not here; give the task")

    made = run("a context")
    held_out = made.task.held_out._replace(read=no_data)
    made = made._replace(task=made.task._replace(held_out=held_out))
    with pytest.raises(ValueError, match="context: .* are not here; give the task"):
        export.stablehlo(made, tmp_path / "run.stablehlo")
    assert not list(tmp_path.iterdir())
    arguments, xs, more = given("a context", 3, 6)  # as a function it needs no shape
    same(made, export.program(made)(*arguments), xs, arguments[1], more)
