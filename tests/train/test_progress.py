"""Who listens to a loop: a terminal, a notebook, TensorBoard, one's own; and who does not."""

import functools
import io
import sys
import types

import pytest
from rich.console import Console

from bptt_jax import progress, sweep, train
from bptt_jax.progress import _notebook, _shown
from bptt_jax.types import Metric
from support.training import adding

OPTIONS = train.RunOptions(
    updates=6, per_dispatch=2, evaluate_every=2, checkpoint_every=6, evaluate_batches=1,
    final_batches=1,
)  # fmt: skip


@functools.cache
def job():
    square = Metric(lambda ys, targets: ((ys - targets) ** 2).sum(-1), unit="cm²")
    made = adding()
    return made._replace(task=made.task._replace(metrics={"square": square}))


def telling(into: list) -> progress.Progress:
    """Each function appends its name and what it was given."""
    tell = lambda name: lambda *said: into.append((name, *said))
    told = {name: tell(name) for name in progress.Progress._fields}
    return progress.Progress(**told | dict(interrupted=lambda: False))


def one_step(config, key):
    """A training of a sweep that is a sum."""
    step = lambda state: (state - config["lr"] * state, dict(loss=state))
    return 1.0 + 0 * config["lr"], step


def swept(out, listens):
    space = sweep.grid(lr=[0.5, 0.25])
    return sweep.run(
        one_step, space, steps=4, out=out, evaluate_every=2, lanes=2, progress=listens
    )


def test_the_order_in_which_a_run_tells(tmp_path):
    told = []
    job().run(tmp_path, OPTIONS, progress=telling(told))
    names = [name for name, *_ in told]
    assert names == [
        "begun", *2 * ["updates", "advanced", "evaluated", "measured"],
        "updates", "advanced", "measured", "ended",
    ]  # fmt: skip
    start = told[0][1]
    assert (start.done, start.total, start.out) == (0, 6, tmp_path)
    assert list(start.task.metrics) == ["square"]
    status = [said[0] for name, *said in told if name == "advanced"]
    assert [(s.done, s.total, s.alive) for s in status] == [
        (2, 6, 1),
        (4, 6, 1),
        (6, 6, 1),
    ]
    assert status[0].best is None
    assert status[2].best[1] in (2, 4)
    told.clear()
    job().run(tmp_path, OPTIONS, progress=telling(told))
    assert [name for name, *_ in told] == ["message", "begun", "ended"]


def test_a_sweep_tells_by_the_same_record(tmp_path):
    told = []
    swept(tmp_path, telling(told)._replace(message=str))
    assert [name for name, *_ in told] == [
        "begun", *2 * ["advanced", "measured"], "ended",
    ]  # fmt: skip
    assert (told[0][1].total, told[0][1].task) == (8, None)
    assert [said for name, *said in told if name == "measured"][-1] == [
        8, dict(best=told[-3][1].best[0], alive=2),
    ]  # fmt: skip


def test_ended_is_told_where_a_run_is_stopped(tmp_path):
    told = []
    stop = telling(told)._replace(interrupted=lambda: True)
    with pytest.raises(KeyboardInterrupt):
        job().run(tmp_path, OPTIONS, progress=stop)
    assert told[-1] == ("ended",)


def test_all_that_listen_are_told_and_any_may_interrupt():
    told, asked = [], []
    stops = progress.Progress(interrupted=lambda: bool(asked.append(1)) or True)
    goes_on = progress.Progress(interrupted=lambda: bool(asked.append(2)))
    both = progress.together(telling(told), stops, goes_on, telling(told))
    both.updates(3, "losses")
    assert told == 2 * [("updates", 3, "losses")]
    assert both.interrupted()
    assert asked == [1, 2]
    nothing = progress.together(progress.silent, progress.Progress(updates=max))
    assert nothing == progress.Progress(updates=nothing.updates)
    with pytest.raises(TypeError, match="together: expected Progress, got function"):
        progress.together(lambda: None)


def test_one_that_cannot_end_does_not_keep_others_from_it():
    told = []
    broken = progress.Progress(ended=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        progress.together(broken, telling(told)).ended()
    assert told == [("ended",)]


def test_where_one_cannot_begin_those_before_it_end():
    told = []
    broken = progress.Progress(begun=lambda start: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        progress.together(telling(told), broken, telling(told)).begun("start")
    assert told == [("begun", "start"), ("ended",)]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal(terminal, tmp_path):
    paper = io.StringIO()
    console = Console(
        file=paper,
        force_terminal=terminal,
        width=120,
        color_system=None,
        legacy_windows=False,
    )
    job().run(tmp_path, OPTIONS, progress=progress.terminal(console=console))
    shown = paper.getvalue()
    lines = [x.rstrip() for x in shown.splitlines() if "step      2" in x]
    assert len(lines) == 1
    assert "training " in lines[0]
    assert " loss per step, square " in lines[0]
    assert lines[0].endswith(" (cm²)")
    assert ("━" in shown) == terminal
    assert ("6/6" in shown) == terminal


def test_a_terminal_of_a_sweep(tmp_path):
    console = Console(file=io.StringIO(), width=120)
    unit = progress.Unit("nats")
    swept(tmp_path, progress.terminal(console=console, unit=unit))
    lines = console.file.getvalue().splitlines()
    assert lines[-1].startswith("100 %  2 alive, best 0.1875")
    assert lines[-1].endswith("nats")


class Display(types.SimpleNamespace):
    """What of `IPython.display` is used; all that is shown is kept."""

    def __init__(self):
        super().__init__(shown=[])

    def HTML(self, text):
        return text

    def display(self, what, display_id=False):
        self.shown.append([what])
        return types.SimpleNamespace(update=self.shown[-1].append)


def test_a_notebook(tmp_path, monkeypatch):
    display = Display()
    package = types.ModuleType("IPython")
    package.display, package.version_info = display, (9, 0)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(_notebook, "EVERY", 0.0)
    job().run(tmp_path, OPTIONS, progress=progress.notebook())
    bar, *others = display.shown
    assert bar[0].startswith('<progress value="0" max="6"></progress> 0/6 compiling')
    assert bar[-1].startswith('<progress value="6" max="6"></progress> 6/6 training 0.')
    lines = [x[0] for x in others if isinstance(x[0], str)]
    assert "step 2: held out " in lines[0]
    assert lines[0].endswith("(cm²)</div>")
    figures = [x for x in others if not isinstance(x[0], str)]
    assert len(figures) == 1  # one picture, which is replaced
    assert len(figures[0]) == 3
    held_out = figures[0][-1].axes[0].get_lines()[-2 - len(job().task.baselines) + 1]
    assert len(held_out.get_xdata()) in (2, 3)
    assert figures[0][-1].axes[0].get_ylabel() == "loss per step"


def test_a_notebook_without_ipython(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(
        ModuleNotFoundError, match="needs IPython: pip install ipykernel"
    ):
        progress.notebook()


def test_where_nothing_was_said(tmp_path, monkeypatch, capsys):
    """A screen where somebody looks, and one word that silences it."""
    assert progress.shown() is progress.silent  # a test is no terminal
    monkeypatch.setattr(_shown, "on_terminal", lambda: True)
    job().run(tmp_path / "shown", OPTIONS)
    assert "held out" in capsys.readouterr().out
    job().run(tmp_path / "silent", OPTIONS, progress=progress.silent)
    assert capsys.readouterr().out == ""
    shell = types.SimpleNamespace(kernel=object())
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert _shown.in_notebook()
    with pytest.raises(TypeError, match="progress: expected a progress.Progress"):
        job().run(tmp_path / "refused", OPTIONS, progress=print)
    assert not (tmp_path / "refused").exists()


def test_tensorboard_of_a_run_and_of_a_sweep(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    from tensorboardX import summary

    written, scalar = [], summary.scalar
    note = lambda name, value: written.append((name, value)) or scalar(name, value)
    monkeypatch.setattr(summary, "scalar", note)
    job().run(tmp_path / "run", OPTIONS, progress=progress.tensorboard())
    names = [name for name, _ in written]
    assert names.count("loss") == 6
    assert names.count("held_out") == names.count("held_out/square") == 3
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    written.clear()
    swept(tmp_path / "sweep", progress.tensorboard(tmp_path / "board"))
    assert {name for name, _ in written} == {"best", "alive"}
    assert list((tmp_path / "board").iterdir())
