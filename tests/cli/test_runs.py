"""`bptt-jax show`, `eval`, `predict` and `export`: what is done with a run that is there."""

import csv
import io
import json
import shutil

import jax
import numpy as np
import optax
import pytest

from bptt_jax import cells, cli, data, estimators, models, train
from bptt_jax.cli import _eval, _opened, _settings
from bptt_jax.cli._own import own_of
from bptt_jax.cli._settings import Settings
from bptt_jax.interop import files
from support.training import adding, listing

OPTIONS = train.RunOptions(
    updates=4, per_dispatch=2, evaluate_every=2, evaluate_batches=2
)
FEATURES = "speed", "height"


def walks(path, n=24, names=FEATURES, labels=True, seed=0):
    """Sequences of 3 to 8 steps, and whether their speed was great."""
    rng = np.random.default_rng(seed)
    with path.open("w") as file:
        print("who", *names, *(["kind"] if labels else []), sep=",", file=file)
        for i in range(n):
            fast = i % 2
            for _ in range(rng.integers(3, 9)):
                row = dict(speed=3 * fast + rng.normal(), height=rng.normal(100, 5))
                kind = ["fast" if fast else "slow"] if labels else []
                print(
                    f"w{i}", *(row.get(k, 7) for k in names), *kind, sep=",", file=file
                )
    return path


def trained(settings, out):
    """As `bptt-jax train` leaves a folder, without its screen."""
    task = own_of(settings).task
    model = models.features(cells.elman(task.n_in, 6), task.n_out, 6)
    estimator = estimators.exact(model, task.objective)
    run = train.run(task, model, estimator, optax.adam(1e-2), OPTIONS, out)
    config = dict(
        settings=_settings.saved(settings), data=task.record, symbols=None, unit="",
        steps=4, chunk=None, versions={},
    )  # fmt: skip
    (out / "config.json").write_text(json.dumps(config))
    return run


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """`(run, its folder, the file)`."""
    folder = tmp_path_factory.mktemp("cli")
    file = walks(folder / "walks.csv")
    settings = Settings(data=file, target="kind", sequence="who")
    out = folder / "run"
    out.mkdir()
    return trained(settings, out), out, file


@pytest.fixture
def folder(there, tmp_path, monkeypatch):
    """One's own copies of both, where commands are given."""
    shutil.copytree(there[1], tmp_path / "run")
    shutil.copy(there[2], tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(capsys, *words) -> str:
    """What a command that succeeds shows."""
    status = cli.main([*map(str, words)])
    shown = capsys.readouterr()
    assert (status, shown.err) == (0, "")
    return shown.out


def refusal(capsys, *words) -> str:
    """The one line of a command that is refused."""
    assert cli.main([*map(str, words)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("bptt-jax: ")
    assert shown.err.count("\n") == 1
    return shown.err


def table(text) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


def test_all_about_a_run(folder, there, capsys):
    before = listing(folder)
    shown = command(capsys, "show", "run")
    run = there[0]
    assert "model: models.features(cells.elman(2, 6), 2, 6)" in shown
    assert "parameters: 68" in shown
    assert sum(a.size for a in jax.tree.leaves(run.params)) == 68
    assert "classes: 2: fast, slow" in shown
    assert "updates: 4 of 4" in shown
    assert f"held-out loss: {run.best.held_out:.4g} at step" in shown
    assert f"accuracy: {run.metrics['accuracy']:.4g}" in shown
    assert "settings: " in shown
    assert listing(folder) == before


def test_a_damaged_record_in_a_line(folder, capsys):
    """None of its parts is looked for where it is not."""
    path = folder / "run" / "run.json"
    whole = json.loads(path.read_text())
    for name in ("made", "program", "versions", "steps", "earlier"):
        path.write_text(json.dumps(whole | {name: [3]}))
        assert "run.json is damaged" in refusal(capsys, "show", "run")
    path.write_text(json.dumps(whole | dict(program=dict(shapes={"w": 3}))))
    assert "run.json is damaged" in refusal(capsys, "show", "run")
    path.write_text(json.dumps(whole | dict(about=3)))
    assert "classes" not in command(capsys, "show", "run")


def test_a_run_without_an_evaluation(folder, capsys):
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    assert "held-out loss: not evaluated yet" in command(capsys, "show", "run")


def test_several_runs(folder, there, capsys):
    shutil.copytree("run", "other")
    lines = (folder / "other" / "metrics.jsonl").read_text().splitlines()
    (folder / "other" / "metrics.jsonl").write_text("\n".join(lines[:3]) + "\n")
    shown = command(capsys, "show", "run", "other", "--figure", "both.png")
    head, *rows = shown.splitlines()
    for name in ("run", "parameters", "updates", "held-out loss", "accuracy"):
        assert name in head
    assert any(row.startswith("run ") for row in rows)
    assert any(row.startswith("other ") for row in rows)
    assert (folder / "both.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "runs.png").exists()


def test_figures_of_what_was_held_out_and_of_a_file(folder, there, capsys):
    run, _, _ = there
    shown = command(capsys, "eval", "run")
    want = train.evaluate(run.task, run.model, run.params)
    assert f"loss: {want['loss']:.4g}" in shown
    assert f"accuracy: {want['accuracy']:.4g}" in shown
    shown = command(capsys, "eval", "run", walks(folder / "new.csv", seed=3))
    assert "24 sequences" in shown
    assert "accuracy: " in shown


def test_predictions_of_a_file(folder, there, capsys):
    """Features are found by their names, a target is not read."""
    run, _, file = there
    found = data.read(file, target="kind", sequence="who")
    want = run.predict(found.inputs)
    rows = table(command(capsys, "predict", "run", "walks.csv"))
    assert [row["sequence"] for row in rows] == [f"w{i}" for i in range(24)]
    assert [row["prediction"] for row in rows] == want.tolist()
    text = file.read_text().splitlines()
    turned = [",".join([c[0], c[2], "9", c[1]]) for c in (r.split(",") for r in text)]
    turned[0] = "who,height,more,speed"
    (folder / "turned.csv").write_text("\n".join(turned) + "\n")
    again = table(command(capsys, "predict", "run", "turned.csv", "--probabilities"))
    assert [row["prediction"] for row in again] == want.tolist()
    odds = run.predict_proba(found.inputs)
    for row, each in zip(again, odds, strict=True):
        np.testing.assert_allclose(
            [float(row[f"probability of {name}"]) for name in ("fast", "slow")], each
        )


@pytest.mark.parametrize("value", ["", "NaN", "?", "none left out"])
def test_what_is_to_be_predicted_may_be_missing(folder, there, capsys, value):
    """In no row, in one, or in all of them; a gap among the inputs is refused."""
    want = command(capsys, "predict", "run", "walks.csv")
    rows = [row.split(",") for row in (folder / "walks.csv").read_text().splitlines()]
    kinds = [value if i % 7 else row[-1] for i, row in enumerate(rows)]
    gaps = [[*row[:-1], kind] for row, kind in zip(rows, kinds, strict=True)]
    empty = [rows[0], *([*row[:-1], value] for row in rows[1:])]
    for table_ in gaps, empty, [row[:-1] for row in rows]:
        (folder / "new.csv").write_text("\n".join(map(",".join, table_)) + "\n")
        assert command(capsys, "predict", "run", "new.csv") == want
    gaps[3][1] = ""
    (folder / "new.csv").write_text("\n".join(map(",".join, gaps)) + "\n")
    line = refusal(capsys, "predict", "run", "new.csv")
    assert "column 'speed', row 3: the value is missing" in line
    line = refusal(capsys, "eval", "run", "new.csv")
    assert "the value is missing" in line


def test_predictions_into_a_new_file(folder, there, capsys):
    shown = command(capsys, "predict", "run", "walks.csv", "--out", "said.csv")
    assert shown == "said.csv: 24 sequences\n"
    assert len(table((folder / "said.csv").read_text())) == 24
    line = refusal(capsys, "predict", "run", "walks.csv", "--out", "said.csv")
    assert "said.csv is there already" in line


def test_exports(folder, there, capsys):
    run, _, _ = there
    shown = command(capsys, "export", "run", "net.safetensors")
    assert shown.startswith(f"net.safetensors: step {run.best.position} of run, ")
    kept = files.read(folder / "net.safetensors")
    for name, a in kept.items():
        place, leaf = name.split("/")
        np.testing.assert_array_equal(a, run.params[int(place)][leaf])
    command(capsys, "export", "run", "net.stablehlo")
    assert (folder / "net.stablehlo").stat().st_size > 1000


def test_a_run_as_torch_has_it(folder, there, capsys):
    run, _, _ = there
    shown = command(capsys, "convert", "run", "net.safetensors", "--to", "torch")
    assert shown.startswith("net.safetensors: step ")
    found = files.read(folder / "net.safetensors")
    assert sorted(found) == [
        "readout.bias", "readout.weight", "rnn.bias_hh_l0", "rnn.bias_ih_l0",
        "rnn.weight_hh_l0", "rnn.weight_ih_l0",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["readout.weight"].T, run.params[1]["kernel"])
    about = json.loads(files.stored(folder / "net.safetensors")[1]["bptt_jax"])
    assert about["about"]["encoding"]["classes"] == ["fast", "slow"]


REFUSED = {
    "another library": (["convert", "run", "a", "--to", "flax"], "--to flax: expected"),
    "from": (
        ["convert", "run", "a", "--to", "torch", "--from", "torch"],
        "run is a run; expected --to torch alone",
    ),
    "without from": (
        ["convert", "walks.csv", "a", "--to", "torch"],
        "--from: expected one of torch",
    ),
    "no folder": (["show", "nowhere"], "nowhere: no such folder"),
    "no run": (["show", "."], ". holds no run"),
    "none": (["show"], "name a run's folder"),
    "twice": (["show", "run", "./run"], "a run is named twice"),
    "eval of none": (["eval", "nowhere"], "nowhere: no such folder"),
    "no file": (["predict", "run", "nowhere.csv"], "nowhere.csv: No such file"),
    "another file": (
        ["predict", "run", "run/run.json"],
        "expected a file that ends in",
    ),
    "suffix": (
        ["export", "run", "net.pt"],
        "ends in .onnx, .safetensors, .stablehlo, got",
    ),
    "no suffix": (["export", "run", "net"], "got none of these"),
    "is there": (["export", "run", "walks.csv.stablehlo"], "is there already"),
    "no such folder": (["export", "run", "a/b.stablehlo"], "a: no such folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_in_a_line(folder, capsys, name):
    (folder / "walks.csv.stablehlo").write_text("")
    words, message = REFUSED[name]
    assert message in refusal(capsys, *words)


def test_a_file_that_lacks_a_feature(folder, capsys):
    walks(folder / "less.csv", names=("speed",))
    line = refusal(capsys, "predict", "run", "less.csv")
    assert "expected the features speed, height; it lacks height" in line


def test_a_file_with_a_label_that_is_none(folder, capsys):
    text = (folder / "walks.csv").read_text().replace("slow", "still")
    (folder / "new.csv").write_text(text)
    assert "'still' is no class of the run" in refusal(capsys, "eval", "run", "new.csv")
    walks(folder / "bare.csv", labels=False)
    assert "expected targets, it has none" in refusal(capsys, "eval", "run", "bare.csv")


def test_data_that_have_changed(folder, capsys):
    """The run's own settings say where its data lie."""
    config = json.loads((folder / "run" / "config.json").read_text())
    config["settings"]["data"] = str(walks(folder / "walks.csv", seed=9))
    (folder / "run" / "config.json").write_text(json.dumps(config))
    assert "its data are others now; name a file" in refusal(capsys, "eval", "run")
    (folder / "walks.csv").unlink()
    assert "walks.csv: No such file" in refusal(capsys, "eval", "run")


def test_a_run_of_python(tmp_path, capsys, folder):
    """Its data are the library's; a model of one's own functions is for Python."""
    job = adding()
    run = job.run(tmp_path / "adding", OPTIONS)
    want = train.evaluate(job.task, job.model, run.params)
    assert f"loss: {want['loss']:.4g}" in command(capsys, "eval", "adding")
    saved = json.loads((tmp_path / "adding" / "run.json").read_text())
    saved["model"] = dict(own="the function f is one's own and is not written down")
    (tmp_path / "adding" / "run.json").write_text(json.dumps(saved))
    line = refusal(capsys, "export", "adding", "a.stablehlo")
    assert "the function f is one's own" in line
    assert "(train.load opens it in Python)" in line
    assert "not written down: the function f" in command(capsys, "show", "adding")


def test_a_config_of_a_run_is_taken(folder, there):
    """All of its settings, under those of the command line."""
    found = _settings.parse(["--config", "run/config.json", "--lr", "0.5"])
    assert (found.data, found.target, found.sequence) == (there[2], "kind", "who")
    assert found.lr == 0.5


def scaled_error(run, file):
    """MASE of all windows of one series whose first feature is forecast."""
    (series,), (T, ahead) = data.read(file).inputs, (12, 3)
    starts = range(len(series) - T - ahead + 1)
    said = run.predict(np.stack([series[i : i + T] for i in starts]))
    true = np.stack([series[i + T : i + T + ahead, :1] for i in starts])
    known = series[: len(series) - round(len(series) / 10), 0]
    return np.abs(said - true).mean() / np.abs(np.diff(known)).mean()


def test_series_are_known_by_their_names(tmp_path, there):
    """By which errors are scaled: those of the training, each by its own."""
    rng = np.random.default_rng(0)
    sales = {"north": rng.normal(size=40), "7": 9 * rng.normal(size=60)}
    rows = [f"{shop},{a}" for shop, each in sales.items() for a in each]
    file = tmp_path / "sales.csv"
    file.write_text("\n".join(["shop,sold", *rows]) + "\n")
    task = own_of(Settings(data=file, sequence="shop", horizon=2, length=5)).task
    naive = {k: np.abs(np.diff(a[: -len(a) // 10])).mean() for k, a in sales.items()}
    assert list(task.encoding.naive) == ["north", "7"]
    for name, of in naive.items():
        np.testing.assert_allclose(task.encoding.naive[name], [of], rtol=1e-6)
    run = there[0]._replace(task=task, config=dict(made=dict(task=task.record)))
    found = _opened.windows(run, file)
    assert found.names == ("north",) * 34 + ("7",) * 54
    assert _eval._known(run, found.names) == found.names
    assert _eval._known(run, (*found.names, "south")) is None
    gap = tmp_path / "gap.csv"
    gap.write_text("\n".join(["shop,sold", *rows[:-1], "7,"]) + "\n")
    with pytest.raises(ValueError, match="'sold', row 100: the value is missing"):
        _opened.inputs(run, gap)


@pytest.mark.slow
def test_forecasts_of_the_ends_of_series(tmp_path, monkeypatch, capsys):
    """The next steps after the file; figures over all of its windows."""
    monkeypatch.chdir(tmp_path)
    series = 50 + 10 * np.sin(np.arange(90) / 3)
    text = "\n".join(["sales,rain", *(f"{a},{a / 2}" for a in series)]) + "\n"
    (tmp_path / "sales.csv").write_text(text)
    out = tmp_path / "run"
    out.mkdir()
    file = tmp_path / "sales.csv"
    settings = Settings(data=file, horizon=3, length=12, target="sales")
    run = trained(settings, out)
    rows = table(command(capsys, "predict", "run", "sales.csv"))
    last = np.stack([series, series / 2], 1)[None, -12:]
    said = [float(rows[0][f"prediction[{i},0]"]) for i in range(3)]
    np.testing.assert_allclose(said, run.predict(last)[0, :, 0])
    shown = command(capsys, "eval", "run", "sales.csv")
    assert "76 windows" in shown
    assert f"MASE: {scaled_error(run, 'sales.csv'):.4g}" in shown
    saved = json.loads((out / "run.json").read_text())
    del saved["about"]["encoding"]["naive"]  # as an older version left it
    (out / "run.json").write_text(json.dumps(saved))
    assert "MASE: left out; " in command(capsys, "eval", "run", "sales.csv")
    gap = text.splitlines()
    gap[80] = f",{gap[80].split(',')[1]}"
    (tmp_path / "gap.csv").write_text("\n".join(gap) + "\n")
    line = refusal(capsys, "predict", "run", "gap.csv")
    assert "column 'sales', row 80: the value is missing" in line
    (tmp_path / "short.csv").write_text("\n".join(text.splitlines()[:8]) + "\n")
    line = refusal(capsys, "predict", "run", "short.csv")
    assert "7 steps; a forecast of this run sees 12" in line
