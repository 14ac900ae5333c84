"""Files of one's own at the command line: what is understood, and runs on them."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

import bptt_jax
from bptt_jax import cli, data, export, sweep, train
from bptt_jax.cli import _data, _own, _sweep
from bptt_jax.cli._settings import Settings
from support.training import listing, start

NAMED = ("--sequence", "who", "--time", "at", "--target", "kind")
SMALL = (
    "--cell elman --lr 0.02 --hidden 8 --batch 4 --steps 25 --evaluate-every 10 "
    "--checkpoint-every 5"
).split()


def command(*arguments) -> str:
    """What a command that ends well has shown."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert cli.main([*map(str, arguments)]) == 0
    return " ".join(shown.getvalue().split())


def walks(path: pathlib.Path) -> pathlib.Path:
    """40 walks of 3 to 8 steps, up or down, their rows in no order."""
    rng = np.random.default_rng(0)
    rows = []
    for i, n in enumerate(rng.integers(3, 9, 40)):
        slope = 1 if i % 2 else -1
        each = zip(range(n), rng.normal(slope, 1, n), rng.normal(size=n), strict=True)
        kind = "up" if i % 2 else "down"
        rows += [f"w{i},{t},{x:.4f},{y:.4f},{kind}" for t, x, y in each]
    lines = ["who,at,x,y,kind", *rng.permutation(rows), ""]
    path.write_text("\n".join(lines))
    return path


def months(path: pathlib.Path) -> pathlib.Path:
    t = np.arange(120)
    sales = 100 + t + 20 * np.sin(2 * np.pi * t / 12)
    rows = [f"{1950 + i // 12}-{1 + i % 12:02},{x:.3f},7" for i, x in enumerate(sales)]
    path.write_text("\n".join(["month,sales,shops", *rows, ""]))
    return path


# what is understood


def test_held_out_batches_are_counted_one_by_one(tmp_path):
    """All windows at once are as many series."""
    own = _own.own_of(
        Settings(data=months(tmp_path / "months.csv"), time="month", horizon=2)
    )
    read, asked = own.task.held_out.read, []
    stream = own.task.held_out._replace(read=lambda i, n: asked.append(n) or read(i, n))
    held, _ = _data._held_out(own._replace(task=own.task._replace(held_out=stream)))
    assert held == 11
    assert set(asked) == {1}


def test_classes(tmp_path):
    shown = command("data", walks(tmp_path / "walks.csv"), *NAMED)
    for part in (
        "walks.csv sha256 ",
        "40 sequences of 3 to 8 steps, 2 features: x, y",
        "targets, one a sequence: 2 classes",
        "held out would be 4 of the sequences",
        "down: 20, of these held out 2",
        "up: 20, of these held out 2",
        "class frequencies: 0.6931",
    ):
        assert part in shown


def test_numbers_a_step_and_none(tmp_path):
    path = walks(tmp_path / "walks.csv")
    text = path.read_text().replace(",up\n", "\n").replace(",down\n", "\n")
    path.write_text(text.replace(",kind", ""))
    shown = command("data", path, "--sequence", "who", "--target", "y")
    assert "targets, one a step: 1 number held out would be 4 of the sequ" in shown
    shown = command("data", path, "--sequence", "who", "--time", "at")
    assert "no targets: at each step the next input is predicted" in shown


def test_symbols(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(60).reshape(20, 3) % 5)
    shown = command("data", tmp_path / "a.npz")
    assert "20 sequences of 3 steps, 5 symbols" in shown


def test_forecast(tmp_path):
    path = months(tmp_path / "months.csv")
    options = ("--time", "month", "--horizon", "6", "--season", "12")
    shown = command("data", path, *options, "--target", "sales")
    for part in (
        "1 series of 120 steps, 2 features: sales, shops",
        "forecast: sales, 6 steps ahead, of the 40 before",
        "held out would be the last tenth of each series: 7 windows",
        "MAE there: last value ",
        ", seasonal naive 12",
    ):
        assert part in shown
    shown = command("data", path, *options, "--length", "9")
    assert "forecast: all of them, 6 steps ahead, of the 9 before" in shown


# runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`(folder, options)` of a run on a table."""
    folder = tmp_path_factory.mktemp("walks")
    options = ["--data", walks(folder / "walks.csv"), *NAMED, *SMALL]
    options += ["--out", folder / "run"]
    command("train", *options)
    return folder, options


def test_a_run_on_a_table(run):
    folder, _ = run
    config = json.loads((folder / "run" / "config.json").read_text())
    asked = dict(sequence="who", time="at", target="kind")
    assert config["settings"].items() >= asked.items()
    assert config["data"].items() >= asked.items()
    assert len(config["data"]["file"]) == 64
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [x["loss"] for x in map(json.loads, lines) if "loss" in x]
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert (folder / "run" / "loss.png").stat().st_size > 5000


def test_the_same_bytes_elsewhere_are_the_same_data(run, tmp_path):
    folder, options = run
    moved = shutil.copy(folder / "walks.csv", tmp_path / "moved.csv")
    before = listing(folder / "run")
    shown = command("train", "--data", moved, *options[2:])
    assert "has all 25 steps; nothing is trained" in shown
    assert listing(folder / "run") == before


@pytest.mark.parametrize(
    ("words", "said"),
    [(("y", "x"), "made with other data"), (("--target", "y"), "target kind (now y)")],
)
def test_other_data_are_refused(run, tmp_path, capsys, words, said):
    """A column that is another, and one that is called another."""
    folder, options = run
    before = listing(folder / "run")
    changed = [*map(str, options)]
    if words[0] == "--target":
        changed[changed.index("kind")] = words[1]
    else:
        text = (folder / "walks.csv").read_text().replace("who,at,x,y", "who,at,y,x")
        (tmp_path / "walks.csv").write_text(text)
        changed[1] = str(tmp_path / "walks.csv")
    assert cli.main(["train", *changed]) == 2
    assert said in capsys.readouterr().err
    assert listing(folder / "run") == before


@pytest.mark.slow
def test_a_forecast_by_name(tmp_path, monkeypatch):
    """The run's folder is called by the file."""
    monkeypatch.chdir(tmp_path)
    months(tmp_path / "months.csv")
    options = ("--time", "month", "--target", "sales", "--horizon", "6")
    shown = command("train", "--data", "months.csv", *options, *SMALL)
    assert "held out: " in shown
    config = json.loads((tmp_path / "runs/months-elman/config.json").read_text())
    assert config["data"]["horizon"] == 6


@pytest.mark.slow
def test_a_sweep_on_a_table(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_sweep, "_devices", lambda out: None)
    monkeypatch.chdir(tmp_path)
    options = (*NAMED, *SMALL[:2], *SMALL[4:8], "--steps", "4", "--lanes", "1")
    path = walks(tmp_path / "walks,1:2.csv")
    words = ("sweep", "--data", path, *options, "--lr", "1e-3,1e-2", "--out", "s")
    assert "2 settings, 0 diverged" in command(*words)
    assert set(sweep.load(tmp_path / "s").table["lr"].to_pylist()) == {1e-3, 1e-2}
    path.write_text(path.read_text().replace("who,at,x,y", "who,at,y,x"))
    assert cli.main([*map(str, words)]) == 2
    assert "s was made with other data" in capsys.readouterr().err


@pytest.mark.slow
def test_from_a_table_through_a_kill_to_the_end(run, tmp_path):
    """The program itself, killed in the middle of its training, and its command again."""
    folder, options = run
    out = tmp_path / "run"
    command_line = ("train", *options[:-1], out)
    process = start("bptt_jax", *command_line)
    for line in process.stdout:
        if "step 10 " in " ".join(line.split()):
            break
    os.kill(process.pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert 0 < len((out / "metrics.jsonl").read_text().splitlines())
    assert not json.loads((out / "run.json").read_text()).get("done", False)
    process = start("bptt_jax", *command_line)
    shown, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "at step 25" in shown
    whole = folder / "run" / "metrics.jsonl"
    assert (out / "metrics.jsonl").read_bytes() == whole.read_bytes()

    done = bptt_jax.load(out)
    found = data.read(folder / "walks.csv", sequence="who", time="at", target="kind")
    said = done.predict(found.inputs)
    assert set(said) <= {"up", "down"}
    told = done.evaluate(found.inputs, found.targets)
    assert told["accuracy"] == pytest.approx(np.mean(said == found.targets))
    export.stablehlo(done, tmp_path / "walks.stablehlo")
    export.safetensors(done, tmp_path / "walks.safetensors")
    assert (tmp_path / "walks.safetensors").stat().st_size > 1000
    program = jax.export.deserialize(
        bytearray((tmp_path / "walks.stablehlo").read_bytes())
    )
    assert len(program.in_avals) == 2  # inputs and lengths


@pytest.mark.slow
def test_the_best_by_a_metric(tmp_path):
    """What is kept, when patience ends, and in a sweep; a run by another score is another."""
    table, out = walks(tmp_path / "walks.csv"), tmp_path / "run"
    score = "--score", "accuracy", "--maximise"
    said = ("--data", table, *NAMED, *SMALL[:-2])
    by_loss = ("train", *said, "--patience", 1, "--steps", 200, "--out", out)
    shown = command(*by_loss, *score)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    found = [line["metrics"]["accuracy"] for line in lines if "held_out" in line]
    assert "stopped: the held-out accuracy has not improved (--patience)" in shown
    assert "the best by accuracy" in shown
    assert train.load(out).best.score == max(found)
    assert max(found) == found[-2] >= found[-1]
    with pytest.raises(AssertionError):
        command(*by_loss)
    command("sweep", *said, *score, "--lr", "1e-9,0.02", "--out", tmp_path / "sweep")
    found = sweep.load(tmp_path / "sweep")
    assert found.best[0].score == 1.0
    of = {row["config"]: row["lr"] for row in found.table.to_pylist()}
    assert of[found.best[0].config] == np.float32(0.02)


# models that need the whole sequence


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (
            "--bidirectional --pool last",
            "wholes.ends(layers.recurrent(cells.elman(2, 8))",
        ),
        pytest.param("--pool mean --remat", "wholes.mean()", marks=pytest.mark.slow),
        pytest.param(
            "--bidirectional --layers 2 --dropout 0.1 --pool attention --unroll scan",
            "wholes.bidirectional(layers.recurrent(cells.elman(16, 8)), unroll=scan)",
            marks=pytest.mark.release,
        ),
    ],
)
def test_a_run_that_needs_the_whole_sequence(words, model, tmp_path):
    path, out = walks(tmp_path / "walks.csv"), tmp_path / "run"
    shown = command(
        "train", "--data", path, *NAMED, *SMALL, *words.split(), "--out", out
    )
    assert "accuracy" in shown
    assert ("both directions" in shown) == ("--bidirectional" in words)
    assert model in command("show", out)
    assert (out / "confusion.png").exists()
    said = command("predict", out, path)
    assert "up" in said
    assert "down" in said
    assert "has all 25 steps" in command(
        "train", "--data", path, *NAMED, *SMALL, *words.split(), "--out", out
    )


def test_a_pool_of_steps_that_have_targets_of_their_own(tmp_path, capsys):
    words = (
        "train",
        "--task",
        "copy",
        "--length",
        "5",
        *SMALL,
        "--out",
        str(tmp_path / "run"),
    )
    assert cli.main([*words, "--pool", "mean"]) == 2
    assert "--pool mean: each step of this task has a target" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
