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
from bptt_jax.sweep import _results, _store
from bptt_jax.sweep._layout import Layout
from bptt_jax.sweep._order import Order, Plan, Unit
from bptt_jax.sweep._results import Best
from bptt_jax.sweep._rows import Rows


class Folder:
    """The files of a sweep, by what they are for.

    Args:
      out: the folder, which `claim` has found or made.
      there: what its `sweep.json` holds.
      order: of the sweep: a row that is at no evaluation of it is none.
    """

    def __init__(self, out: pathlib.Path, there: dict[str, Any], order: Order):
        self.out, self.there, self.writes = out, there, first()
        self.rows = Rows(out / "rows.jsonl", order.ends_of)

    # Layouts

    def lanes_of(self, choice: int) -> int | None:
        """Configurations on a device at a time; None: not known yet."""
        return self.there["layouts"].get(str(choice))

    def note_layout(self, choice: int, layout: Layout, shown: str) -> None:
        self.there["layouts"][str(choice)] = layout.lanes
        self.there["layouts_shown"].append(shown)
        if self.writes:
            _files.replace_json(self.out / "sweep.json", self.there)

    # Arrays

    def kept(self, rung: int, row: int) -> pathlib.Path:
        """The lane of a configuration as a rung has left it."""
        return self.out / "lanes" / f"rung-{rung}" / f"config-{row}.safetensors"

    def best(self, row: int) -> pathlib.Path:
        """The parameters of a configuration that is among the best."""
        return self.out / "best" / f"config-{row}.safetensors"

    def save(self, path: pathlib.Path, tree: Any) -> None:
        if self.writes:
            _store.save(path, tree)

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
    out: pathlib.Path, plan: Plan, devices: int, record: dict[str, Any]
) -> dict[str, Any]:
    """The folder's `sweep.json`, which is made where there is none.

    Raises:
      ValueError: the folder holds something else; nothing has been changed.
    """
    what = _what(plan)
    if (out / "sweep.json").exists():
        there = _results.read_config(out)
        _refuse_another(out, there, what, devices)
        return there
    if out.exists() and not all(map(_files.is_left_over, out.iterdir())):
        raise ValueError(f"out: {out} is not empty and holds no sweep")
    there = dict(
        sweep=what, devices=devices, layouts={}, layouts_shown=[], record=record
    )
    _files.replace_json(out / "sweep.json", there)
    return there


def _what(plan: Plan) -> dict[str, Any]:
    """What makes a sweep what it is, as JSON gives it back."""
    what = dict(
        columns=_results.columns_of(plan.space),
        static=sorted(plan.space.static),
        steps=plan.steps,
        evaluate_every=plan.every,
        rungs=plan.rungs,
        keep=plan.keep,
    )
    return json.loads(json.dumps(what))


def _refuse_another(out: pathlib.Path, there: dict, what: dict, devices: int) -> None:
    changed = [k for k in what if there["sweep"].get(k) != what[k]]
    if changed:
        raise ValueError(
            f"out: {out} holds another sweep ({', '.join(changed)} differ); "
            "choose another folder"
        )
    if there["devices"] != devices:
        raise ValueError(
            f"out: {out} was begun on {there['devices']} devices, now there are "
            f"{devices}; go on with as many"
        )
