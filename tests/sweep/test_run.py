"""`sweep.run`: every configuration as if it were alone, and again after a stop."""

import functools
import json
import math
import os
import pwd
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, sweep, tasks, train
from bptt_jax.sweep import _group, _order, _program, _results, _run, _training
from bptt_jax.sweep._training import as_training
from support import compiled
from support.compilations import compilations
from support.sweeping import SPACE, descent, go
from support.training import emptied


def adding():
    task = tasks.adding(batch=4, T=12)
    model = models.features((cells.elman(2, 8),), 1, 8)
    return task, model, estimators.exact(model, task.objective)


def of_adding():
    return sweep.training(*adding(), lambda lr: optax.sgd(lr), held_out_batches=2)


def curve(result, config):
    at = [r for r in result.table.to_pylist() if r["config"] == config]
    return [(r["step"], r["loss"], r["held_out"], r["grad_norm"]) for r in at]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return go(tmp_path_factory.mktemp("whole") / "s")


# What a configuration gets


def test_a_configuration_is_trained_as_by_itself(tmp_path):
    task, model, estimator = adding()
    space = sweep.grid(lr=[0.1, 0.01], seed=[0, 5])
    found = sweep.run(
        of_adding(), space, steps=9, evaluate_every=3, out=tmp_path, lanes=1
    )
    optimizer = optax.inject_hyperparams(optax.sgd)(np.float32(0.01))
    state = train.init(model, estimator, optimizer, task.train, jax.random.key(5))
    _, metrics = train.many_steps(estimator, optimizer, task.train.batch)(
        state, task.train.read(0, 9)
    )
    means = np.asarray(metrics["loss"]).reshape(3, 3).mean(1)
    np.testing.assert_allclose(
        [loss for _, loss, *_ in curve(found, 3)], means, rtol=2e-5
    )


@pytest.mark.parametrize("lanes", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_neighbours_change_nothing_even_if_they_diverge(tmp_path, lanes):
    """Bit for bit: one training beside three others, and beside three that diverge."""
    calm = sweep.grid(lr=[0.1, 0.03, 0.01, 0.003])
    wild = sweep.grid(lr=[1e30, 0.03, 1e20, 1e25])
    one = of_adding()
    options = dict(steps=8, evaluate_every=2, lanes=lanes)
    a = sweep.run(one, calm, out=tmp_path / "a", **options)
    b = sweep.run(one, wild, out=tmp_path / "b", **options)
    assert curve(a, 1) == curve(b, 1)
    assert curve(a, 0) != curve(b, 0)
    diverged = {r["config"]: r["diverged_at"] for r in b.table.to_pylist()}
    assert diverged[1] is None
    assert all(1 <= diverged[i] <= 8 for i in (0, 2, 3))
    assert [best.config for best in b.best] == [1]


def test_what_has_diverged_is_frozen_and_says_where(tmp_path):
    found = go(tmp_path / "s", steps=60, evaluate_every=10)
    rows = [r for r in found.table.to_pylist() if r["lr"] == 3.0]
    steps = {r["diverged_at"] for r in rows if r["config"] == rows[0]["config"]}
    (at,) = steps - {None}
    assert 20 < at < 35  # 5^2t leaves float32 after 27 steps
    assert rows[0]["loss"] > 1
    assert all(r["loss"] is None and r["x"] is None for r in rows if r["step"] >= at)


def test_what_has_diverged_does_not_come_back():
    """Though the steps after it are finite again."""

    def step(config, state, item):
        return state + 1, dict(loss=jnp.where(item == 2, math.nan, 1.0) * config["lr"])

    one = sweep.Training(lambda config, key: jnp.int32(0), step)
    config = dict(lr=jnp.float32(0.1))
    lane, means = jax.jit(functools.partial(_training.advance, one))(
        config, _training.begin(one, config), np.arange(5), jnp.int32(5)
    )
    assert (int(lane.state), int(lane.position), int(lane.diverged_at)) == (2, 5, 3)
    assert np.isnan(means["loss"])


def test_a_long_unit_has_the_mean_over_all_its_steps(tmp_path):
    """Of more steps than one call of a program takes."""

    def counted(config, key):
        return jnp.float32(0), lambda t: (t + config["lr"], dict(loss=t))

    n = 3 * _group.PIECE // 2
    one = sweep.grid(lr=[1])
    found = sweep.run(counted, one, steps=n, evaluate_every=n, lanes=1, out=tmp_path)
    assert found.table["loss"].to_pylist() == [(n - 1) / 2]


def with_numbers(config, key):
    """A training whose state and metrics have numbers of Python."""

    def step(state):
        x = state["x"] - config["lr"] * state["half"] * 2 * (state["x"] - 3)
        after = dict(state, x=x, steps=state["steps"] + 1, on=False)
        return after, dict(loss=(x - 3) ** 2, steps=after["steps"], real=True)

    return dict(x=5.0, half=0.5, steps=0, on=True, seen=np.float64(2)), step


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_state_may_have_numbers_of_python(tmp_path, lanes):
    """One lane is no vmap, which would make arrays of them; files give arrays back."""
    found = sweep.run(
        with_numbers, sweep.grid(lr=[0.5, 0.25]), steps=4, evaluate_every=2,
        lanes=lanes, out=tmp_path, halving=sweep.halving(2, rungs=2),
    )  # fmt: skip
    last = {row["config"]: row for row in found.table.to_pylist()}
    assert {i: row["step"] for i, row in last.items()} == {0: 4, 1: 2}
    assert last[0]["loss"] == np.mean([(2 * 0.5**n) ** 2 for n in (3, 4)])
    assert last[0]["steps"] == 3.5
    one = as_training(with_numbers)
    begin = functools.partial(_training.begin, one)
    lane = jax.eval_shape(begin, dict(lr=jnp.float32(0.5)))
    assert not any(a.weak_type for a in jax.tree.leaves(lane))


def test_layouts_agree(tmp_path, whole):
    other = go(tmp_path / "s", lanes=7)
    for name in ("loss", "x"):
        np.testing.assert_allclose(
            np.array(other.table[name], float), np.array(whole.table[name], float), 1e-5
        )


def test_results_are_a_tidy_table_and_are_there_again(whole, tmp_path):
    found = go(tmp_path / "s")
    assert found.table.equals(whole.table)
    assert found.table.column_names == [
        "config", "lr", "seed", "rung", "step", "loss", "x", "diverged_at"
    ]  # fmt: skip
    assert found.table.num_rows == SPACE.size * 6
    again = sweep.load(tmp_path / "s")
    assert again.table.equals(found.table)
    assert again.best == found.best
    scores = [b.score for b in found.best]
    assert scores == sorted(scores)
    assert all(b.values["lr"] != 3.0 for b in found.best)
    state = sweep.parameters(found.best[0].path, np.zeros(2, np.float32))
    x = {r["config"]: r["x"] for r in found.table.to_pylist()}[found.best[0].config]
    assert abs(state[0] - 3) < 0.5
    assert abs(state[0] - x) < 0.5


def test_parameters_of_the_best_alone_are_there_in_the_end(tmp_path):
    """The first is the best until the second has ended."""
    rates = sweep.grid(lr=[0.001, 0.1])
    found = sweep.run(
        descent, rates, steps=4, evaluate_every=4, lanes=1, keep=1, out=tmp_path
    )
    assert [b.config for b in found.best] == [1]
    assert list((tmp_path / "best").iterdir()) == [found.best[0].path]


def test_a_score_is_the_held_out_loss_where_something_is_held_out():
    of = lambda at=-1, **metrics: _results.score(dict(metrics=metrics, diverged_at=at))
    assert of(loss=1.0, held_out=2.0) == 2.0
    assert of(loss=1.0) == 1.0
    assert math.isnan(of(loss=None, held_out=None))
    assert math.isnan(of(loss=1.0, at=3))


def of_rate(lr):
    return optax.sgd(lr)


@pytest.mark.parametrize("lanes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_batches_without_a_real_step_count_as_nothing(tmp_path, lanes):
    """Two of the first six are none, and so are all of the next three."""
    task, model, estimator = adding()
    empty = emptied(task, [1, 4, 6, 7, 8], "mask")
    rates = sweep.grid(lr=[0.01, 0.02])
    options = dict(steps=9, evaluate_every=3, lanes=lanes)
    one = sweep.training(empty, model, estimator, of_rate, held_out_batches=2)
    rows = sweep.run(one, rates, out=tmp_path, **options).table.to_pylist()
    optimizer = optax.inject_hyperparams(optax.sgd)(np.float32(0.01))
    state = train.init(model, estimator, optimizer, task.train, jax.random.key(0))
    advance = train.many_steps(estimator, optimizer, empty.train.batch)
    _, metrics = advance(state, task.train.read(0, 9))
    loss, real = (np.asarray(metrics[k]) for k in ("loss", "real"))
    means = [loss[i : i + 3][real[i : i + 3]].mean() for i in (0, 3)]
    mine = [r for r in rows if r["config"] == 0]
    np.testing.assert_allclose([r["loss"] for r in mine[:2]], means, rtol=2e-5)
    assert mine[2]["loss"] is None
    assert mine[2]["held_out"] == mine[1]["held_out"]
    assert all(r["diverged_at"] is None for r in rows)


def test_held_out_data_without_a_real_step_is_named():
    task, model, estimator = adding()
    task = emptied(task._replace(train=task.held_out), [0, 1], "weights")
    task = task._replace(held_out=task.train)
    with pytest.raises(ValueError, match="no step of its first 2 held-out batches"):
        sweep.training(task, model, estimator, of_rate, held_out_batches=2)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 2])
def test_optimizers_are_given_what_they_ask_for(tmp_path, lanes):
    """The rate of `polyak_sgd` is that of the loss, here at its bound or below it."""
    task, model, estimator = adding()
    of_bound = lambda bound: optax.polyak_sgd(max_learning_rate=bound)
    one = sweep.training(task, model, estimator, of_bound, held_out_batches=1)
    bounds = sweep.grid(bound=[1e-3, 1.0])
    found = sweep.run(one, bounds, out=tmp_path, steps=4, evaluate_every=4, lanes=lanes)
    for i, bound in enumerate((1e-3, 1.0)):
        optimizer = optax.inject_hyperparams(optax.polyak_sgd)(np.float32(bound))
        state = train.init(model, estimator, optimizer, task.train, jax.random.key(0))
        advance = train.many_steps(estimator, optimizer, task.train.batch)
        _, metrics = advance(state, task.train.read(0, 4))
        (row,) = curve(found, i)
        assert row[1] == pytest.approx(float(metrics["loss"].mean()), rel=2e-4)


def test_lbfgs_is_refused_by_name(tmp_path):
    task, model, estimator = adding()
    one = sweep.training(task, model, estimator, lambda lr: optax.lbfgs(lr))
    with pytest.raises(ValueError, match="optimizer: optax.lbfgs compares"):
        sweep.run(one, sweep.grid(lr=[0.1]), steps=2, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def halved(config, key):
    return descent({**config, "lr": config["lr"] / 2}, key)


def test_static_choices_are_compiled_apart(tmp_path):
    kinds, rates = dict(whole=descent, half=halved), sweep.grid(lr=[0.1, 0.01])
    space = sweep.product(sweep.static(kind=list(kinds)), rates)
    found = sweep.run(
        lambda kind: kinds[kind], space, out=tmp_path, evaluate_every=2, lanes=2,
        steps=lambda kind: 4 if kind == "whole" else 6,
    )  # fmt: skip
    rows = found.table.to_pylist()
    last = {r["config"]: (r["kind"], r["step"]) for r in rows}
    assert last == {0: ("whole", 4), 1: ("whole", 4), 2: ("half", 6), 3: ("half", 6)}
    assert len(found.layouts) == 2
    alone = sweep.run(
        halved, rates, steps=6, evaluate_every=2, lanes=2, out=tmp_path / "alone"
    )
    numbers = {
        name: [(r["step"], r["loss"], r["x"]) for r in rows if r["config"] == config]
        for name, rows, config in (
            ("alone", alone.table.to_pylist(), 1),
            ("beside another", rows, 3),
            ("the other", rows, 1),
        )
    }
    assert numbers["alone"] == numbers["beside another"]
    assert numbers["alone"][:2] != numbers["the other"]


def test_values_are_no_constants_of_the_program(tmp_path):
    """One compilation for any number of learning rates."""
    counts = []
    for n in (2, 6):
        space = sweep.grid(lr=list(np.linspace(0.01, 0.1, n)))
        with compilations() as made:
            sweep.run(
                descent,
                space,
                steps=4,
                lanes=1,
                out=tmp_path / f"{n}",
                evaluate_every=2,
            )
        counts.append(len(made))
    assert counts[0] >= 2
    assert counts[1] <= counts[0]


def test_memory_is_that_of_a_group(tmp_path):
    """Ten times as many configurations hold no more on the device."""
    held = {}
    for n in (4, 40):
        most = 0

        def look(status):
            nonlocal most
            most = max(most, sum(a.nbytes for a in jax.live_arrays()))

        before = sum(a.nbytes for a in jax.live_arrays())
        space = sweep.grid(lr=list(np.linspace(0.01, 0.1, n)))
        progress = train.Progress(advanced=look)
        sweep.run(descent, space, steps=2, evaluate_every=1, lanes=2,
                  out=tmp_path / f"{n}", progress=progress)  # fmt: skip
        held[n] = most - before
    assert 0 < held[40] <= 1.01 * held[4]


def test_lanes_are_written_where_they_are():
    """Their buffers are given away, and those of nothing else."""
    training, mesh = as_training(descent), _program.mesh_of(jax.devices()[:1])
    made = _program.program(training, 2, mesh)
    configs = dict(
        lr=jax.ShapeDtypeStruct((2,), np.float32),
        seed=jax.ShapeDtypeStruct((2,), np.int32),
    )
    lanes = jax.eval_shape(made.begin, configs)
    given = made.advance.lower(
        configs, lanes, training.read(0, 3), _program.count(3)
    ).args_info[0]
    for i, argument in enumerate(given):
        assert {a.donated for a in jax.tree.leaves(argument)} == {i == 1}


def test_the_layout_is_measured_kept_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = []
    progress = train.Progress(message=said.append)
    options = dict(steps=20, evaluate_every=10, lanes=None, progress=progress)

    def run(name):
        sweep.run(descent, SPACE, out=tmp_path / name, **options)
        return json.loads((tmp_path / name / "sweep.json").read_text())["layouts"]

    first = run("a")
    assert "a step of one configuration by lanes: 1: " in " ".join(said)
    kept = json.loads((tmp_path / "cache" / "bptt_jax" / "layouts.json").read_text())
    assert len(kept) == 1
    assert run("b") == first
    assert json.loads((tmp_path / "cache/bptt_jax/layouts.json").read_text()) == kept
    (tmp_path / "cache" / "bptt_jax" / "layouts.json").write_text("{")
    assert run("c")["0"] >= 1


def test_a_user_without_a_home_measures_each_time(tmp_path, monkeypatch):
    """`docker run --user`: no HOME, and a number that no file of users has."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    found = sweep.run(descent, SPACE, steps=2, out="s")
    assert "a step of one configuration by lanes" in found.layouts[0]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_one_device_on_several_cores_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(_run, "cores", lambda: 4)
    said = []
    sweep.run(descent, SPACE, steps=2, lanes=1, out=tmp_path / "s",
              progress=train.Progress(message=said.append))  # fmt: skip
    assert any("one CPU device on 4 cores" in text for text in said)
    with pytest.warns(UserWarning, match="one CPU device on 4 cores") as told:
        sweep.run(descent, SPACE, steps=2, lanes=1, out=tmp_path / "s")
    assert told[0].filename == __file__


# Halving


def test_rungs():
    from bptt_jax.sweep import _halving

    found = _halving.rungs(sweep.halving(3), 27)
    assert [r.configs for r in found] == [27, 9, 3, 1]
    np.testing.assert_allclose([r.share for r in found], [1 / 27, 1 / 9, 1 / 3, 1])
    few = _halving.rungs(sweep.halving(2, rungs=2), 5)
    assert few == [(0.5, 5), (1.0, 3)]
    odd = _halving.rungs(sweep.halving(2), 5)
    assert [r.configs for r in odd] == [5, 3, 2, 1]
    assert _halving.best({0: 1.0, 1: math.nan, 2: 0.5, 3: 1.0}, 2) == [0, 2]


def test_units_end_at_evaluations_and_with_their_rung():
    space = sweep.grid(lr=[0.1, 0.2])
    two = _order.spec(space, [({}, [0, 1])], 30, 10, sweep.halving(2), 1, 0.0)
    order, step = _order.Order(two), 0
    for rung, ends in enumerate(([10, 15], [20, 30])):
        assert order.ends_of(rung, 0) == ends
        for end in ends:
            assert step + order.length(step, ends[-1]) == end
            step = end


def test_halving_goes_on_with_the_best_from_where_they_were(tmp_path, whole):
    found = go(tmp_path / "s", halving=sweep.halving(2, rungs=3), evaluate_every=10)
    rows = found.table.to_pylist()
    each = {k: {r["config"] for r in rows if r["rung"] == k} for k in range(3)}
    assert [len(v) for v in each.values()] == [15, 8, 4]
    assert each[2] < each[1] < each[0]
    ends = {r["config"]: r["loss"] for r in rows if r["rung"] == 0 and r["step"] == 30}
    fine = {i: math.inf if v is None else v for i, v in ends.items()}
    assert each[1] == set(sorted(fine, key=lambda i: (fine[i], i))[:8])
    longest = {r["config"]: r["step"] for r in rows}
    assert {longest[i] for i in each[2]} == {120}
    # the survivors' numbers are those they have without halving
    plain = {(r["config"], r["step"]): r["x"] for r in whole.table.to_pylist()}
    last = {r["config"]: r["x"] for r in rows}
    for i in each[2]:
        assert abs(last[i] - plain[i, 120]) < 0.3
    assert {b.config for b in found.best} <= each[2]
    assert not list((tmp_path / "s" / "lanes").rglob("*.safetensors"))


# Stops


def killed_and_continued(out, devices, eta, kills):
    def in_a_process(units, **options):
        command = [sys.executable, "-m", "support.sweeping", out, devices, units, eta]
        environment = os.environ | compiled.environment()
        return subprocess.run(
            [*map(str, command)], cwd="tests", env=environment, timeout=120, **options
        )

    for units in kills:
        assert in_a_process(units).returncode == -signal.SIGKILL
    in_a_process(0, check=True)
    return sweep.load(out)


def test_killed_and_continued(tmp_path, whole):
    found = killed_and_continued(tmp_path / "s", 1, 0, (1, 20))
    assert found.table.equals(whole.table)
    assert [b.config for b in found.best] == [b.config for b in whole.best]


@pytest.mark.slow
def test_killed_in_rungs_on_two_devices(tmp_path):
    plain = killed_and_continued(tmp_path / "plain", 2, 2, ())
    found = killed_and_continued(tmp_path / "s", 2, 2, (2, 5, 3))
    assert found.table.equals(plain.table)


def test_interrupted_and_continued(tmp_path, whole):
    units = iter(range(100))
    progress = train.Progress(interrupted=lambda: next(units) == 4)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(descent, SPACE, steps=120, evaluate_every=20, lanes=2,
                  out=tmp_path / "s", progress=progress)  # fmt: skip
    with pytest.raises(ValueError, match="has not ended"):
        sweep.load(tmp_path / "s")
    assert go(tmp_path / "s").table.equals(whole.table)


# Bad input


def test_another_sweep_is_refused_and_nothing_is_changed(tmp_path):
    go(tmp_path / "s")
    before = {p: p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"another sweep \(steps differ\)"):
        go(tmp_path / "s", steps=60)
    with pytest.raises(ValueError, match="another sweep"):
        sweep.run(descent, sweep.grid(lr=[0.1]), steps=120, out=tmp_path / "s")
    config = json.loads((tmp_path / "s" / "sweep.json").read_text())
    (tmp_path / "s" / "sweep.json").write_text(json.dumps(config | dict(devices=3)))
    with pytest.raises(ValueError, match="begun on 3 devices, now there are 1; go on"):
        go(tmp_path / "s")
    (tmp_path / "s" / "sweep.json").write_bytes(before[tmp_path / "s" / "sweep.json"])
    assert before == {p: p.read_bytes() for p in before}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="is not empty and holds no sweep"):
        go(tmp_path / "full")
    with pytest.raises(ValueError, match="is not a sweep"):
        sweep.load(tmp_path / "full")


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sweep.run(
            descent, SPACE, steps=120, evaluate_every=20, lanes=2, out=tmp_path / "s",
            checkpoint_seconds=0.0, progress=train.Progress(interrupted=lambda: True),
        )  # fmt: skip
    now = tmp_path / "s" / "now.safetensors"
    good = now.read_bytes()
    for damage in (good[:-4] + b"\0\0\0\1", good[:40], b""):
        now.write_bytes(damage)
        with pytest.raises(ValueError, match="damaged"):
            go(tmp_path / "s")
        assert now.read_bytes() == damage
    now.write_bytes(good)
    go(tmp_path / "s")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(steps=0), "steps: expected a whole number"),
        (dict(lanes=0), "lanes: expected at least 1"),
        (dict(evaluate_every=0), "evaluate_every: expected"),
        (dict(keep=0), "keep: expected"),
    ],
)
def test_senseless_options_are_named(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        go(tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_a_seed_makes_the_key_that_it_makes_elsewhere(tmp_path):
    def drawn(config, key):
        return key, lambda key: (key, dict(loss=jax.random.uniform(key)))

    seeds = [0, 7, 2**31 - 1, 2**31, 2**32 - 1]
    found = sweep.run(drawn, sweep.grid(seed=seeds), steps=1, lanes=5, out=tmp_path)
    here = [float(jax.random.uniform(jax.random.key(seed))) for seed in seeds]
    assert found.table["loss"].to_pylist() == here


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            dict(seed=[0, 2**32]),
            "seed: expected whole numbers in [0, 2^32), got 0 to 42",
        ),
        (dict(seed=[-1]), "seed: expected whole numbers in [0, 2^32), got -1 to -1"),
        (dict(seed=[0.5]), "seed: expected whole numbers in [0, 2^32), got 0.5"),
        (dict(lr=[2**32]), "lr: 4294967296 leaves the range of 32 bits"),
        (dict(lr=[-1, 2**31]), "lr: 2147483648 leaves the range of 32 bits"),
        (dict(lr=[0.1, 1e39]), "lr: 1e+39 leaves the range of 32 bits"),
        (dict(lr=[0.1, 1e-60]), "lr: 1e-60 leaves the range of 32 bits"),
    ],
)
def test_numbers_that_32_bits_do_not_have_are_refused(tmp_path, columns, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        sweep.run(descent, sweep.grid(**columns), steps=2, out=tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_training_without_a_loss_is_refused(tmp_path):
    def silent(config, key):
        return config["lr"], lambda state: (state, dict(x=state))

    with pytest.raises(ValueError, match="step: expected metrics with 'loss'"):
        sweep.run(silent, SPACE, steps=2, lanes=1, out=tmp_path / "s")
    with pytest.raises(TypeError, match=r"training: expected a sweep\.Training"):
        sweep.run(3, SPACE, steps=2, lanes=1, out=tmp_path / "s2")


# What comes of it


def test_the_best_is_a_run(tmp_path):
    """It predicts by the parameters that were kept, in the labels of the data."""
    waves = np.sin(np.arange(12)[:, None] * np.linspace(0.1, 1, 20)).T
    labels = np.where(np.arange(20) > 9, "high", "low")
    task = tasks.arrays(waves, labels, batch=8)
    made = lambda size: models.features(
        (cells.elman(task.n_in, size),), task.n_out, size
    )

    def one(size):
        model = made(size)
        exact = estimators.exact(model, task.objective)
        return sweep.training(task, model, exact, of_rate)

    space = sweep.product(
        sweep.static(size=[3, 4]), sweep.grid(lr=[0.1, 0.3], seed=[7])
    )
    sweep.run(one, space, steps=6, evaluate_every=3, lanes=1, out=tmp_path / "s")
    found = sweep.load(tmp_path / "s")
    sizes = set()
    for best in found.best:
        run = best.load()
        sizes.add(best.values["size"])
        assert run.model == made(best.values["size"])
        assert set(run.predict(waves)) <= {"high", "low"}
        assert int(run.state.position) == 6
        rows = [r for r in found.table.to_pylist() if r["config"] == best.config]
        assert run.metrics["loss"] == rows[-1]["held_out"] == best.score
        assert run.metrics["accuracy"] == rows[-1]["accuracy"]
        held = jax.tree.map(np.asarray, task.held_out.read(0, task.held_out.length))
        assert held is not None
        again = run.evaluate(waves, labels)
        assert 0 <= again["accuracy"] <= 1
        like = jax.eval_shape(run.model.init, jax.random.key(0))
        kept = sweep.parameters(best.path, like)
        assert jax.tree.all(jax.tree.map(np.array_equal, kept, run.params))
    assert sizes == {3, 4}


def test_a_training_of_functions_is_no_run(tmp_path):
    found = go(tmp_path / "s", steps=20)
    with pytest.raises(ValueError, match="does not say which model was trained"):
        found.best[0].load()


def test_means_and_spreads_over_seeds(tmp_path, whole):
    rows = [r for r in whole.table.to_pylist() if r["step"] == 120]
    found = whole.over_seeds().to_pylist()
    assert [r["lr"] for r in found][-1] == 3.0  # all of its seeds diverged
    assert found[-1]["failed"] == found[-1]["seeds"] == 3
    for one in found[:-1]:
        losses = [r["loss"] for r in rows if r["lr"] == one["lr"]]
        assert one["mean"] == pytest.approx(np.mean(losses))
        assert one["std"] == pytest.approx(np.std(losses, ddof=1))
        assert (one["least"], one["most"]) == (min(losses), max(losses))
        assert (one["step"], one["seeds"], one["failed"]) == (120, 3, 0)
    means = [one["mean"] for one in found[:-1]]
    assert means == sorted(means)
    most = whole.over_seeds(score="x", maximise=True).to_pylist()
    assert most[0]["mean"] == max(one["mean"] for one in most[:-1])
    with pytest.raises(
        ValueError, match=r"score: expected the name of a metric \(loss"
    ):
        whole.over_seeds(score="accuracy")


def test_those_that_came_further_come_first(tmp_path):
    """Halving gave the others up, whatever their figures were by then."""
    found = go(tmp_path / "s", halving=sweep.halving(2, rungs=3), evaluate_every=10)
    each = found.over_seeds().to_pylist()
    steps = [one["step"] for one in each]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) > 1
    assert sum(one["seeds"] for one in each) == SPACE.size
