"""The folder of a sweep: what is written down, and where a sweep goes on.

`sweep.json` says what the sweep is, `rows.jsonl` has a line for each configuration and
evaluation, `now.safetensors` the group that is running; `lanes/` has what the next rung
needs, `best/` the parameters that are kept. Of several processes the first one writes.
"""

import json
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa

from bptt_jax import _files
from bptt_jax._processes import first
from bptt_jax._score import LEAST_LOSS
from bptt_jax.sweep import _results, _store
from bptt_jax.sweep._layout import Layout
from bptt_jax.sweep._order import Order, Spec, Unit
from bptt_jax.sweep._results import Best
from bptt_jax.sweep._rows import Rows


class Folder:
    """The files of a sweep, by what they are for.

    Args:
      out: the folder, which `claim` has found or made.
      config: what its `sweep.json` holds.
      order: of the sweep: a row that is at no evaluation of it is none.
    """

    def __init__(self, out: pathlib.Path, config: dict[str, Any], order: Order):
        self.out, self.config, self.writes = out, config, first()
        self.rows = Rows(out / "rows.jsonl", order.ends_of)
        self.rungs = len(order.spec.rungs)

    # Layouts

    def lanes_of(self, choice: int) -> int | None:
        """Configurations on a device at a time; None: not known yet."""
        return self.config["layouts"].get(str(choice))

    def note_layout(self, choice: int, layout: Layout, shown: str) -> None:
        self.config["layouts"][str(choice)] = layout.lanes
        self.config["layouts_shown"].append(shown)
        if self.writes:
            _files.replace_json(self.out / "sweep.json", self.config)

    # Arrays

    def kept(self, rung: int, row: int) -> pathlib.Path:
        """The lane of a configuration as a rung has left it."""
        return self.out / "lanes" / f"rung-{rung}" / f"config-{row}.safetensors"

    def best(self, row: int) -> pathlib.Path:
        """The parameters of a configuration that is among the best."""
        return self.out / "best" / f"config-{row}.safetensors"

    def leave(self, rung: int, row: int, left: Any) -> None:
        """What is needed of a configuration that has ended a rung."""
        last = rung == self.rungs - 1
        if self.writes:
            _store.save(self.best(row) if last else self.kept(rung, row), left)

    def save_now(self, unit: Unit, lanes: Any) -> None:
        """Where the sweep goes on; `lanes` (on the host) None: with a new group."""
        host = np.zeros(1) if lanes is None else lanes
        if self.writes:
            _store.save(self.out / "now.safetensors", host, **unit._asdict())

    def now(self) -> Unit | None:
        """Where the sweep goes on; None where it has not begun."""
        path = self.out / "now.safetensors"
        if not path.exists():
            return None
        about = _store.record(path)
        return Unit(*(int(about[name]) for name in Unit._fields))

    def running(self, like: Any) -> Any:
        """The lanes of the group that was running."""
        return _store.load(self.out / "now.safetensors", like)[0]

    # The end

    def write(self, table: pa.Table, best: list[Best]) -> None:
        """The result, of which what only a sweep needs that goes on is taken away."""
        if not self.writes:
            return
        named = [b._asdict() | {"path": f"best/{b.path.name}"} for b in best]
        _files.replace_json(self.out / "best.json", named)
        _results.write(self.out / "results.parquet", table)
        self._tidy({b.config for b in best})

    def _tidy(self, kept: set[int]) -> None:
        stale = list((self.out / "lanes").rglob("*.safetensors"))
        for path in (self.out / "best").glob("config-*.safetensors"):
            if int(path.stem.removeprefix("config-")) not in kept:
                stale.append(path)
        for path in stale:
            path.unlink()


def claim(
    out: pathlib.Path, spec: Spec, devices: int | None, record: dict[str, Any],
    trainings: list[dict[str, Any] | None],
) -> dict[str, Any]:  # fmt: skip
    """The folder's `sweep.json`, which is made where there is none.

    Args:
      out, spec, record: of the sweep.
      devices: of a group; None: an executor has it, and a group is on one.
      trainings: `Training.about` of each choice.

    Raises:
      ValueError: the folder holds something else; nothing has been changed.
    """
    what = _what(spec)
    if (out / "sweep.json").exists():
        config = _results.read_config(out)
        _refuse_another(out, config, what, devices)
        return config
    if out.exists() and not all(map(_files.is_left_over, out.iterdir())):
        raise ValueError(f"out: {out} is not empty and holds no sweep")
    config = dict(
        sweep=what, devices=devices or 1, layouts={}, layouts_shown=[], record=record
    )
    config["trainings"] = trainings
    if devices is None:
        config["executor"] = True
    _files.replace_json(out / "sweep.json", config)
    return config


def _what(spec: Spec) -> dict[str, Any]:
    """What makes a sweep what it is, as JSON gives it back."""
    what = dict(
        columns=_results.columns_of(spec.space),
        static=sorted(spec.space.static),
        steps=spec.steps,
        evaluate_every=spec.every,
        rungs=spec.rungs,
        keep=spec.keep,
        score=str(spec.score),
    )
    return json.loads(json.dumps(what))


def _refuse_another(
    out: pathlib.Path, config: dict, what: dict, devices: int | None
) -> None:
    before = {"score": str(LEAST_LOSS)} | config["sweep"]  # as it was once
    changed = [k for k in what if before.get(k) != what[k]]
    if changed:
        raise ValueError(
            f"out: {out} holds another sweep ({', '.join(changed)} differ); "
            "choose another folder"
        )
    if config.get("executor", False) != (devices is None):
        without = "without" if devices is None else "with"
        raise ValueError(f"out: {out} was begun {without} an executor; go on so")
    if devices is not None and config["devices"] != devices:
        raise ValueError(
            f"out: {out} was begun on {config['devices']} devices, now there are "
            f"{devices}; go on with as many"
        )
