"""`bptt-jax check`: what it says before, while and after, and what is the compiler's."""

import pathlib

import pytest

from bptt_jax import cells, cli, verify
from bptt_jax.cli import _check
from bptt_jax.verify import Finding
from support.changed import with_parts

RIGHT = Finding("A", True, 0.0, "XLA_FLAGS=--one", 1e-16)
AVOIDED = Finding("B", False, 1.0, "XLA_FLAGS=--two", 1e-16)
REACHED = Finding("C", False, 1.0, "XLA_FLAGS=--three", 0.5)


def check(monkeypatch, capsys, *options, findings=(RIGHT,)):
    monkeypatch.setattr(verify, "canary", lambda: list(findings))
    status = cli.main(["check", *options])
    return status, capsys.readouterr().out.splitlines()


def test_quick(monkeypatch, capsys):
    """One case of each member, and one program where there is a reference in NumPy."""
    gradients, of = [], verify._check._gradient

    def counted(f, *arguments):
        gradients.append(f)
        return of(f, *arguments)

    monkeypatch.setattr(verify._check, "_gradient", counted)
    status, said = check(monkeypatch, capsys, "--quick", "--only", "indrnn")
    assert status == 0
    assert said[0] == "2 members, about 13 s"
    heads = [line for line in said if "leaves in" in line]
    assert [head.split(":")[:2] for head in heads] == [
        ["1 of 2, cells", " indrnn"],
        ["2 of 2, cells", " indrnn, tanh"],
    ]
    assert all("in 1 cases: right" in head for head in heads)
    assert sum("chunk=3, loops.native" in line for line in said) == 2 * 7
    assert said[-1] == (
        "2 right, 0 wrong; of 1 known miscompilations 0 are on this machine"
    )
    assert len(gradients) == 2  # by a kernel, which is how they run here


@pytest.mark.parametrize(
    ("findings", "status", "told"),
    [
        (
            (RIGHT, AVOIDED),
            0,
            "of 2 known miscompilations 1 are on this machine, all avoided by this "
            "library (docs/miscompilations.md)",
        ),
        (
            (RIGHT, AVOIDED, REACHED),
            1,
            "of 3 known miscompilations 2 are on this machine, 1 of them NOT avoided by "
            "this library (docs/miscompilations.md)",
        ),
    ],
)
def test_what_is_the_compilers(monkeypatch, capsys, findings, status, told):
    """Told so where it is found, and counted in the last line; it is no wrong gradient."""
    monkeypatch.setattr(verify, "check_member", lambda name, member, **options: name)
    found, said = check(monkeypatch, capsys, "--only", "mgu", findings=findings)
    assert found == status
    assert said[-1] == f"2 right, 0 wrong; {told}"
    assert any("the compiler is wrong" in line for line in said)
    assert not any("B: WRONG" in line for line in said)


def test_before_and_while(monkeypatch, capsys):
    """All members but those that are like another; how long is said at once."""
    monkeypatch.setattr(verify, "check_member", lambda name, member, **options: name)
    _, said = check(monkeypatch, capsys)
    racks = verify.CELLS, verify.LAYERS, verify.UNROLLS, verify.WHOLES
    count = sum(map(len, racks))
    count -= sum(bool(member.alike) for member in verify.CELLS.values())
    assert said[0] == f"{count} members, about 18 minutes (--quick: less)"
    assert said[12].startswith(f"12 of {count}, cells: ")
    _, said = check(monkeypatch, capsys, "--quick")
    count -= sum(
        bool(member.part_of) for members in racks for member in members.values()
    )
    assert said[0] == f"{count} members, about {10 + 1.5 * count:.0f} s"
    assert 20 < count <= (60 - 10) / 1.5  # within a minute


def test_a_wrong_gradient(monkeypatch, capsys):
    cell = cells.gru(3, 4)

    def twice(*arguments):
        d_params, *rest = cells.contract(cell, *arguments)
        return {k: 2 * d for k, d in d_params.items()}, *rest

    bad = with_parts(cell, contract=twice)
    monkeypatch.setitem(verify.CELLS, "mine", verify.Member(lambda n=4: bad))
    status, said = check(monkeypatch, capsys, "--quick", "--only", "mine")
    assert status == 1
    assert said[1].startswith("1 of 1, cells: mine: params")
    assert said[-1].startswith("0 right, 1 wrong; ")


def test_the_page_is_there_and_names_every_program():
    page = pathlib.Path(__file__).parents[2] / _check.PAGE
    if not page.exists():
        pytest.skip("an installed package has no docs")
    text = page.read_text()
    for finding in ("A", "B", "C"):
        assert f"**{finding}**" in text
