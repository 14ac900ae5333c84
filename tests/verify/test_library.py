"""One list of members: who reads it, and that nothing of the library is missing in it."""

import inspect
import pathlib

import pytest

from bptt_jax import cells, cli, layers, unrolls, verify, wholes
from bptt_jax.cli import _build, _settings
from bptt_jax.types import Cell, Layer, Whole
from support import grid, members, tiers
from support.wholes import REFERENCE, WHOLES

ROOT = pathlib.Path(__file__).parents[2]
TABLES = members.CELLS | members.COMBINED | members.LAYERS | members.UNROLLS


def factories(rack, kind) -> set[str]:
    """The public functions of a room that make a cell or a layer."""
    made = {name: getattr(rack, name) for name in rack.__all__}
    return {
        name
        for name, f in made.items()
        if hasattr(f, "__wrapped__") and inspect.signature(f).return_annotation is kind
    }


def parts(record) -> set[str]:
    """The factories that made it and what it is made of, by name."""
    if not isinstance(record, tuple) or not hasattr(record, "made"):
        return set().union(*map(parts, record)) if type(record) is tuple else set()
    inner = (*record.made.args, *record.made.keywords.values())
    return {record.made.func.__name__}.union(*map(parts, inner))


def test_every_factory_of_cells_and_layers_is_in_a_member():
    there = set().union(*(parts(member.make()) for member in TABLES.values()))
    wanted = factories(cells, Cell) | factories(layers, Layer)
    assert {"lstm", "zoneout", "dropout"} <= wanted
    # Who looks, or edits a gradient, has no plain loop to be compared with.
    others = {"hooked", "watching", "made"}
    assert wanted - there - others == set()


def test_every_whole_is_in_a_member_and_has_its_formula():
    wanted = factories(wholes, Whole)
    assert {"ends", "attention"} <= wanted
    there = set().union(*(parts(member.make()) for member in verify.WHOLES.values()))
    assert wanted - there == set()
    assert wanted == set(REFERENCE)
    assert verify.WHOLES.items() <= WHOLES.items()


def test_every_exact_unroll_is_in_a_member():
    """The others have no gradient of the plain loop to be compared with."""
    public = {
        name
        for name in unrolls.__all__
        if inspect.isfunction(f := getattr(unrolls, name))
        and list(inspect.signature(f).parameters)[:4]
        == ["layer", "params", "carry", "xs"]
    }
    names = {name.split(",")[0] for name in verify.UNROLLS}
    others = {"scan", "randomly_truncated", "pullback", "plan"}
    assert public - names - others == set()


def test_what_a_member_is_part_of_is_a_member_that_is_checked():
    for table in (TABLES, verify.WHOLES):
        for name, member in table.items():
            for other in filter(None, (member.alike, member.part_of)):
                assert not table[other].part_of, name
                assert not table[other].alike, name


def test_a_new_cell_is_one_entry(capsys):
    """Trained by its name, checked, and in the suites."""
    assert _build.CELLS == {
        name: member.trained for name, member in verify.CELLS.items() if member.trained
    }
    assert {"lstm", "gru", "elman", "irnn", "indrnn", "ctrnn", "mgu"} <= set(
        _build.CELLS
    )
    for name, make in _build.CELLS.items():
        assert isinstance(make(3, 4), Cell), name
    assert _settings.CELLS == ", ".join(_build.CELLS)
    assert members.CELLS is verify.CELLS
    assert members.UNROLLS is verify.UNROLLS
    assert cli.main(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in _build.CELLS)


def test_the_suites_run_over_all_of_it():
    for name in verify.UNROLLS:
        marked = {p.values[0] for p in tiers.unrolls()}
        assert name in marked
    assert {name.split(": ")[0] for name in (*grid.GRID, *grid.SLOW_GRID)} == set(
        TABLES
    )


def test_the_loop_of_a_contributor_is_editable():
    page = ROOT / "CONTRIBUTING.md"
    if not page.exists():
        pytest.skip("an installed package has no such page")
    assert 'pip install -e ".[dev]"' in page.read_text()
    assert "bptt_jax/verify/_library.py" in page.read_text()
