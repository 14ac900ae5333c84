"""`bptt-jax train`: set-up, progress, held-out loss, a sample, a run folder."""

import functools
import json
import math
import pathlib
import platform

import jax
import numpy as np
from rich.console import Console
from rich.text import Text

import bptt_jax
from bptt_jax import _files, diagnose, plots, progress, tasks, train
from bptt_jax._processes import first, together
from bptt_jax._score import Score, refuse_unknown
from bptt_jax.cli import _figures, _settings
from bptt_jax.cli._build import Job, fewer_rows, job, lr_of, raw_unit, rows_of
from bptt_jax.cli._cores import use_cores
from bptt_jax.cli._interrupts import Interrupts
from bptt_jax.cli._owner import owned
from bptt_jax.cli._sample import written
from bptt_jax.cli._settings import Settings
from bptt_jax.cli._weights import keep, started


def command(argv: list[str]) -> int:
    settings = _settings.parse(argv)
    out = settings.out or pathlib.Path("runs") / _name(settings)
    if settings.mesh:
        use_cores()
    with owned(out):
        return _train(settings, out)


def _train(settings: Settings, out: pathlib.Path) -> int:
    if not first():
        together("claimed")  # by the first process; the others find it there
    saved = _saved(out, settings)
    boards = settings.tensorboard and first()
    board = progress.tensorboard() if boards else progress.silent
    start = functools.partial(started, run=settings.init_from, out=out)
    work = job(settings, saved["chunk"] if saved else None, start)
    refuse_unknown(Score(settings.score), work.task.metrics)
    _claim(out, settings, work, saved)
    keep(work.model, settings.init_from, out)
    if first():
        together("claimed")
    mesh = _mesh(settings, work)
    console = Console(highlight=False, quiet=not first())
    _show_setup(console, settings, work, out)
    baselines = _baselines(work.task, console)
    _show_timings(console, work, settings)
    options = train.RunOptions(
        updates=work.steps,
        evaluate_every=settings.evaluate_every,
        checkpoint_every=settings.checkpoint_every,
        patience=settings.patience,
        final_batches=_final_batches(settings),
    )
    with Interrupts(console) as interrupts:
        listens = _listeners(console, work, board, interrupts)
        try:
            run = train.run(
                work.task, work.model, work.estimator, work.optimizer, options, out,
                seed=settings.seed, mesh=mesh, progress=listens, reschedule=True,
                score=settings.score, maximise=settings.maximise,
            )  # fmt: skip
        finally:
            _note_steps(out, settings, work, saved)
    _finish(console, work, settings, run, out, baselines)
    return 0


def _listeners(
    console: Console, work: Job, board: progress.Progress, interrupts: Interrupts
) -> progress.Progress:
    asked = progress.Progress(interrupted=lambda: interrupts.noted)
    unit = _unit(work.task, train.RunOptions(1).evaluate_batches)
    screen = progress.terminal(unit=unit, console=console)
    return progress.together(screen, board, asked)


def _final_batches(s: Settings) -> int:
    return 20 if s.quick else 1000


def _mesh(s: Settings, work: Job) -> jax.sharding.Mesh | None:
    """All devices of all processes, where batches are to be spread over them."""
    if s.mesh is None:
        if jax.process_count() > 1:
            raise ValueError("train in several processes: say --mesh data")
        return None
    n = jax.device_count()
    if (rows := rows_of(work.task)) % n:
        raise ValueError(f"--batch {rows}: expected a multiple of the {n} devices")
    return jax.make_mesh((n,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def _name(s: Settings) -> str:
    file = s.text or s.data
    task = s.task if file is None else file.stem
    return f"{task}-{s.cell}" + ("-quick" if s.quick else "")


def _saved(out: pathlib.Path, settings: Settings) -> dict | None:
    """The `config.json` of the run that the folder holds, if it holds one like this."""
    if (out / "config.json").exists():
        before, config = _settings.load(out)
        _same_settings(out, _settings.saved(before), _settings.saved(settings))
        return config
    # A run that was killed while it wrote its settings has left nothing else.
    if out.exists() and not all(map(_files.is_left_over, out.iterdir())):
        raise ValueError(f"{out} is not empty and is no run; choose another --out")
    return None


def _claim(
    out: pathlib.Path, settings: Settings, work: Job, saved: dict | None
) -> None:
    """Writes `config.json`, or compares with the one that is there."""
    data = json.loads(json.dumps(work.task.record))
    if saved is not None:
        if saved["data"] != data:
            raise ValueError(f"{out} was made with other data; choose another --out")
        if work.steps < saved["steps"]:
            _refuse_changed(out, saved, dict(steps=work.steps), ["steps"])
        return
    config = dict(
        settings=_settings.saved(settings),
        data=data,
        symbols=work.task.text and work.task.text.symbols,
        unit=raw_unit(work.task),
        steps=work.steps,
        chunk=work.chunk,
        versions=dict(
            bptt_jax=bptt_jax.__version__,
            jax=jax.__version__,
            python=platform.python_version(),
        ),
    )
    _files.replace_json(out / "config.json", config)


def _note_steps(
    out: pathlib.Path, settings: Settings, work: Job, saved: dict | None
) -> None:
    """Of a run that goes on for more steps than before, once it has begun to.

    Where a process was killed before this, `run.json` knows it, and the same command does
    it next time.
    """
    if saved is None or saved["steps"] == work.steps or not first():
        return
    run = out / "run.json"
    if run.exists() and json.loads(run.read_text())["steps"] == work.steps:
        longer = dict(steps=settings.steps, epochs=settings.epochs)
        what = saved | dict(steps=work.steps, settings=saved["settings"] | longer)
        _files.replace_json(out / "config.json", what)


def _same_settings(out: pathlib.Path, before: dict, now: dict) -> None:
    """But for how long it runs, and for where data lie: `_claim` compares those."""
    files = {"text", "data"}
    elsewhere = {k for k in files if None not in (before[k], now[k])}
    others = [k for k in now if k not in {"steps", "epochs"} | elsewhere]
    _refuse_changed(out, before, now, others)


def _refuse_changed(out: pathlib.Path, before: dict, now: dict, names) -> None:
    changed = [k for k in names if now.get(k) != before.get(k)]
    if changed:
        what = ", ".join(f"{k} {before.get(k)} (now {now.get(k)})" for k in changed)
        raise ValueError(
            f"{out} holds a run made with other settings: {what}; choose another --out"
        )


def _count(params) -> int:
    return sum(math.prod(a.shape) for a in jax.tree.leaves(params))


def _show_setup(console: Console, s: Settings, work: Job, out: pathlib.Path) -> None:
    params = jax.eval_shape(work.model.init, jax.random.key(0))
    data = ", ".join(
        f"{k} {str(v)[:12]}" for k, v in work.task.record.items() if k != "task"
    )
    name = s.text or s.data or s.task
    console.print(f"[bold]{name}[/bold]  {data}")
    console.print(
        f"{s.layers} × {s.cell} of {s.hidden}{', both directions' if s.bidirectional else ''}"
        f"{f', pool {s.pool}' if s.pool else ''}, {_count(params):,} parameters; "
        f"{s.unroll}{', remat' if s.remat else ''}"
        f"{f', truncation {s.truncation}' if s.truncation else ''}; "
        f"{s.optimizer} lr {lr_of(s, work.task):g}, clip {s.clip:g}"
    )
    epoch = work.task.train.length
    share = f" ({work.steps / epoch:.2f} epochs)" if epoch else ""
    rows = rows_of(work.task)
    console.print(f"{work.steps:,} steps of {rows} sequences{share} -> {out}")
    if fewer := fewer_rows(s, work.task):
        console.print(fewer)
    if s.init_from is not None:
        console.print(f"begins with the weights of {s.init_from}", soft_wrap=True)
    devices = f"{jax.device_count()} × " if s.mesh else ""
    kind = jax.devices()[0].device_kind
    console.print(f"[dim]JAX {jax.__version__}, {devices}{kind}[/dim]")


def _unit(task, batches: int) -> progress.Unit:
    """What losses are shown in; the factor is of a held-out loss over so many batches."""
    if task.text is None:
        return progress.Unit()
    n = min(batches, task.held_out.length)
    return progress.Unit(
        tasks.bits_unit(task),
        lambda losses, position: tasks.bits(
            task.text.train, losses, position - len(losses)
        ),
        tasks.bits(task.text.held_out, np.ones(n)),
    )


def _baselines(task, console: Console) -> dict[str, float]:
    """Name -> level, in the unit that is shown."""
    if task.text is None:
        return dict(task.baselines)
    with console.status("counting 5-grams"):
        return {"5-gram": tasks.ngram_bits_per_character(task)}


def _show_timings(console: Console, work: Job, s: Settings) -> None:
    with console.status("compiling and timing the parts of a step"):
        state = train.init(
            work.model,
            work.estimator,
            work.optimizer,
            work.task.train,
            jax.random.key(0),
        )
        parts = train.timings(
            work.task, work.model, work.estimator, work.optimizer, state
        )
    text = ", ".join(f"{name} {1e3 * t:.1f} ms" for name, t in parts.items())
    console.print(f"a step: {text}")


def _finish(console, work: Job, s: Settings, run, out: pathlib.Path, baselines) -> None:
    unit, _, factor = _unit(work.task, _final_batches(s))
    if first():
        _figure(out, work.task, baselines, run, _final_batches(s))
    if run.stopped_early:
        what = s.score or "loss"
        console.print(f"stopped: the held-out {what} has not improved (--patience)")
    last, best = int(run.state.position), run.best
    by = f" by {s.score}" if s.score else ""
    held_out = f"\nheld out: [bold]{factor * best.held_out:.3f}[/bold] {unit}"
    if best.position == last:
        console.print(f"{held_out}, at step {last:,}, the last and the best{by}")
    else:
        console.print(
            f"{held_out}, at step {best.position:,}, the best{by}, whose parameters are "
            f"kept; {factor * run.held_out:.3f} at step {last:,}, the last",
            soft_wrap=True,
        )
    for name, level in baselines.items():
        console.print(f"{name}: {level:.3f} {unit}")
    for text in progress.metrics_in_words(work.task, run.metrics, unit, beside=True):
        console.print(text, soft_wrap=True)
    if first():
        _show_gradient(console, s, out, last)
    if work.task.text is not None:
        _show_sample(console, work, best)
    files = "config.json, run.json, metrics.jsonl, timings.jsonl, checkpoint/, loss.png"
    drawn = _figures.write(out, work.task, work.model, best.params, _final_batches(s))
    console.print(f"\n{out}: {', '.join([files, *drawn])}", soft_wrap=True)


def _show_gradient(
    console: Console, s: Settings, out: pathlib.Path, position: int
) -> None:
    """How often the gradient was clipped, and how far back it went."""
    lines = train.MetricsFile(out / "metrics.jsonl").lines()
    steps = [line for line in lines if "grad_norm" in line]
    if not steps:
        return
    found = diagnose.clipping(np.array([x["grad_norm"] for x in steps]), s.clip)
    less = f", to {found.factor:.2f} of its norm in the mean" if found.share else ""
    lacks = len(train.missing(lines, position))
    of = f" {position - lacks:,} of {position:,}" if lacks else ""
    text = f"gradient clipped in {found.share:.0%} of the{of} steps{less}"
    console.print(f"{text}; metrics.jsonl lacks the others" if lacks else text)
    windows = [int(line["window"]) for line in steps if "window" in line]
    if windows:
        each = ", ".join(f"{w}: {windows.count(w):,}" for w in sorted(set(windows)))
        console.print(f"window of the gradient, in how many steps: {each}")


def _show_sample(console: Console, work: Job, best: train.Best) -> None:
    """The network goes on where a piece of held-out text ends."""
    text = work.task.text
    assert text is not None
    part = text.held_out
    assert part is not None
    start = part.windows // 2 * part.steps
    window = part.tokens(start, start + part.steps + 1)
    prompt = text.decode(window).strip("\ufffd") or "\n"
    drawn = written(work.model, best.params, text, prompt, 400, 0.7, 0)
    console.print(
        f"\na sample of step {best.position:,}, after some held-out text (dim):\n"
    )
    console.print(Text(prompt, style="dim") + Text(drawn), soft_wrap=True)


def _curve(task, lines: list[dict]) -> np.ndarray:
    """The training loss of each step there is a line of, in the unit that is shown."""
    losses = np.array([x["loss"] for x in lines])
    if task.text is None or not lines:
        return losses
    at = np.array([x["step"] for x in lines]) - 1
    each = np.full(at[-1] - at[0] + 1, np.nan)
    each[at - at[0]] = losses
    return tasks.bits_each(task.text.train, each, at[0])[at - at[0]]


def _figure(
    out: pathlib.Path,
    task,
    baselines: dict[str, float],
    run: train.Run,
    final_batches: int,
) -> None:
    unit, _, at_evaluations = _unit(task, train.RunOptions(1).evaluate_batches)
    factor = _unit(task, final_batches).held_out
    position = int(run.state.position)
    marks: dict[str, tuple[float, float]] = {
        "best, held out": (run.best.position, factor * run.best.held_out)
    }
    if run.best.position != position:
        marks["last, held out"] = position, factor * run.held_out
    lines = train.MetricsFile(out / "metrics.jsonl").lines()
    steps = [x for x in lines if "loss" in x]
    held = [x for x in lines if "held_out" in x]
    figure = plots.loss(
        np.array([x["step"] for x in steps]),
        _curve(task, steps),
        held_out_steps=np.array([x["step"] for x in held]),
        held_out=at_evaluations * np.array([x["held_out"] for x in held]),
        marks=marks,
        baselines=baselines,
        unit=unit,
    )
    draw = functools.partial(figure.savefig, dpi=130, format="png")
    _files.replace(out / "loss.png", draw)
