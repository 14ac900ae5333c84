"""Rows that are damaged or missing are trained again; a table is never short in silence."""

import json
import pathlib
import shutil

import pytest

from bptt_jax import sweep, train
from bptt_jax.sweep._rows import Rows
from support.sweeping import SPACE, descent


def run(out: pathlib.Path, stop_after: int = 0, eta: int = 0, message=None):
    """`stop_after`: units of work after which it is interrupted; 0: never."""
    units = 0

    def interrupted():
        nonlocal units
        units += 1
        return units == stop_after

    listens = dict(message=message) if message else {}
    return sweep.run(
        descent, SPACE, steps=40, evaluate_every=10, lanes=4, out=out,
        halving=sweep.halving(eta, rungs=2) if eta else None,
        progress=train.Progress(interrupted=interrupted, **listens),
    )  # fmt: skip


@pytest.fixture(scope="module", params=[0, 2], ids=["plain", "halving"])
def eta(request):
    return request.param


@pytest.fixture(scope="module")
def folders(tmp_path_factory, eta):
    """A sweep that has ended, and one that stopped in the third quarter."""
    folder = tmp_path_factory.mktemp("sweeps")
    run(folder / "ended", eta=eta)
    units = len({row["step"] for row in rows_of(folder / "ended")})
    # in the second rung, or the third group: two evaluations after the last that ended
    stop = {0: 10, 2: 8 + 1}[eta]
    assert stop < units
    with pytest.raises(KeyboardInterrupt):
        run(folder / "stopped", stop, eta)
    return folder


def rows_of(out: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def odd(line: str, **changes) -> str:
    return json.dumps(json.loads(line) | changes)


DAMAGES = {
    "cut": lambda line: line[: len(line) // 2],
    "blank": lambda line: "",
    "null": lambda line: "null",
    "no row": lambda line: '{"step": 1}',
    "a list": lambda line: "[1, 2]",
    "step 5.0": lambda line: odd(line, step=5.0),
    "config": lambda line: odd(line, config=99),
    "config of another kind": lambda line: odd(line, config=[]),
    "at": lambda line: odd(line, at=7),
    "rung": lambda line: odd(line, rung=-1),
    "last": lambda line: odd(line, last=1),
    "metrics": lambda line: odd(line, metrics={}),
    "values": lambda line: odd(line, metrics={"loss": "1"}),
    "truth": lambda line: odd(line, diverged_at=True),
}


@pytest.mark.parametrize("state", ["stopped", "ended"])
def test_damaged_lines_are_named_kept_and_made_again(state, folders, tmp_path, eta):
    """Each kind of damage in a line of its own, in groups that had ended, and the last."""
    out = tmp_path / "s"
    shutil.copytree(folders / state, out)
    lines = (out / "rows.jsonl").read_text().splitlines()
    bad = [5 * i + 1 for i in range(len(lines) // 5)] + [len(lines) - 1]
    kept = []
    for i, damage in zip(bad, [*DAMAGES.values()] * 9, strict=False):
        lines[i] = damage(lines[i])
        kept += [lines[i]] * bool(lines[i])
    (out / "rows.jsonl").write_text("\n".join(lines) + "\n")
    said = []
    found = run(out, eta=eta, message=said.append)
    assert found.table.equals(sweep.load(folders / "ended").table)
    assert found.best == [
        b._replace(path=out / "best" / b.path.name)
        for b in sweep.load(folders / "ended").best
    ]
    same = (folders / "ended" / "rows.jsonl").read_bytes()
    assert (out / "rows.jsonl").read_bytes() == same
    assert (out / "rows.jsonl.damaged").read_text().splitlines() == kept
    assert all(b.path.exists() for b in found.best)
    assert any(f"{len(kept)} damaged lines (2, " in text for text in said)
    assert any("rows are missing: trains settings" in text for text in said)


def test_every_kind_of_damage_is_seen(folders, tmp_path, eta):
    out = tmp_path / "s"
    shutil.copytree(folders / "ended", out)
    whole = (out / "rows.jsonl").read_text().splitlines()
    for name, damage in DAMAGES.items():
        (out / "rows.jsonl").write_text("\n".join([damage(whole[0]), *whole[1:]]))
        rows = Rows(out / "rows.jsonl", lambda rung, config: _ends(rung, config, eta))
        rows.resume(10_000, lambda text: None)
        assert len(rows.found) == len(whole) - 1, name


def _ends(rung, config, eta):
    whole = {0: [[10, 20, 30, 40]], 2: [[10, 20], [30, 40]]}[eta]
    fits = rung in range(len(whole)) and config in list(range(SPACE.size))
    return whole[rung] if fits else []


def test_rows_up_to_the_last_unit_are_taken(tmp_path):
    """And those of later ones made again."""
    ends = [10, 20, 30]
    each = [
        dict(step=i + 1, config=0, rung=0, at=at, last=at == 30,
             metrics=dict(loss=1.0), diverged_at=-1)
        for i, at in enumerate(ends)
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in each))
    rows = Rows(path, lambda rung, config: ends)
    rows.resume(2, pytest.fail)
    assert list(rows.found.values()) == each[:2]


def test_rows_that_are_not_there_at_all(folders, tmp_path, eta):
    """Cut to a third, and taken away; without anybody who listens it is a warning."""
    for n in (1, 0):
        out = tmp_path / f"{n}"
        shutil.copytree(folders / "stopped", out)
        text = (out / "rows.jsonl").read_text()
        (out / "rows.jsonl").write_text(text[: n * len(text) // 3])
        if not n:
            (out / "rows.jsonl").unlink()
        with pytest.warns(
            UserWarning, match="rows are missing: trains settings"
        ) as told:
            found = run(out, eta=eta)
        assert {warning.filename for warning in told} == {__file__}
        assert found.table.equals(sweep.load(folders / "ended").table)


def test_stopped_while_it_makes_rows_again(folders, tmp_path, eta):
    out = tmp_path / "s"
    shutil.copytree(folders / "stopped", out)
    lines = (out / "rows.jsonl").read_text().splitlines()
    (out / "rows.jsonl").write_text("\n".join(lines[1:5] + lines[9:]) + "\n")
    going_on = (out / "now.safetensors").read_bytes()
    for units in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(out, units, eta, message=lambda text: None)
        assert (out / "now.safetensors").read_bytes() == going_on
    found = run(out, eta=eta, message=lambda text: None)
    assert found.table.equals(sweep.load(folders / "ended").table)
    same = (folders / "ended" / "rows.jsonl").read_bytes()
    assert (out / "rows.jsonl").read_bytes() == same


def test_rows_made_again_are_written_down_with_their_group(folders, tmp_path, eta):
    """Not in the end alone: who stops then does not make them a third time."""
    out = tmp_path / "s"
    shutil.copytree(folders / "stopped", out)
    whole = rows_of(out)
    lost = [row for row in whole if row["rung"] == 0 and row["config"] < 4]
    rest = [row for row in whole if row not in lost]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rest))
    with pytest.raises(KeyboardInterrupt):
        run(out, len(lost) // 4 + 1, eta, message=lambda text: None)
    found = rows_of(out)
    assert lost
    assert all(row in found for row in lost)


def test_rungs_that_end_at_one_step_are_refused(tmp_path):
    with pytest.raises(ValueError, match="halving: 4 rungs end at steps 1, 1, 1, 2"):
        sweep.run(descent, SPACE, steps=2, lanes=1, out=tmp_path / "s",
                  halving=sweep.halving(2, rungs=4))  # fmt: skip
    assert not list(tmp_path.iterdir())
