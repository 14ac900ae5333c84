"""What is public changes on purpose alone: names, parameters, options, as committed.

`python tests/support/public_names.py` writes the list anew.
"""

import inspect
import pathlib
import re

import pytest

import bptt_jax
from bptt_jax import cells, cli, unrolls
from support import public_names

ROOT = pathlib.Path(__file__).parent.parent
WRITE = "python tests/support/public_names.py"


def differences() -> list[str]:
    kept, now = public_names.FILE.read_text().splitlines(), public_names.names()
    gone = [f"- {name}" for name in kept if name not in now]
    return gone + [f"+ {name}" for name in now if name not in kept]


def test_names_are_those_of_the_committed_list():
    found = differences()
    assert not found, "\n".join([f"on purpose? then {WRITE}", *found])
    assert public_names.FILE.read_text().splitlines() == public_names.names()


def lstm(n_in, n_hidden, forget_bias=1.0):
    """One parameter that is no keyword any more, others that are gone."""


def test_a_parameter_that_changes_is_named(monkeypatch):
    monkeypatch.setattr(cells, "lstm", lstm)
    gone, new = differences()
    assert gone.startswith("- cells.lstm(n_in, n_hidden, *, forget_bias=, ")
    assert new == "+ cells.lstm(n_in, n_hidden, forget_bias=)"


def test_a_name_that_comes_or_goes_is_named(monkeypatch):
    names = [name for name in unrolls.__all__ if name != "bptt"]
    monkeypatch.setattr(unrolls, "__all__", [*names, "Pulled2"])
    monkeypatch.setattr(unrolls, "Pulled2", 3, raising=False)
    gone, new = differences()
    assert gone.startswith("- unrolls.bptt(layer, params, carry, xs, side=, *, ")
    assert new == "+ unrolls.Pulled2"


def test_an_option_that_goes_is_named(monkeypatch):
    main = cli.main
    help_of_check = ["check", "--help"]

    def renamed(argv):
        if argv != help_of_check:
            return main(argv)
        print("│ --all   Every member │")

    monkeypatch.setattr(cli, "main", renamed)
    assert differences() == [
        "- bptt-jax check --only",
        "- bptt-jax check --quick",
        "+ bptt-jax check --all",
    ]


def test_every_command_has_its_options_in_the_list():
    lines = public_names.FILE.read_text().splitlines()
    assert {f"bptt-jax {command}" for command in cli.COMMANDS} <= set(lines)
    for command in set(cli.COMMANDS) - {"export"}:  # which has none
        assert any(line.startswith(f"bptt-jax {command} --") for line in lines)
    assert {"bptt-jax train --hidden", "bptt-jax sweep --halving"} <= set(lines)
    assert not any("--help" in line for line in lines)


PAGE = (ROOT / "docs" / "stability.md").read_text()


@pytest.mark.parametrize("name", public_names.PROVISIONAL)
def test_what_is_provisional_says_so(name):
    assert "Provisional: " in inspect.getdoc(getattr(bptt_jax.types, name))
    assert f"`{name}`" in PAGE


def test_the_page_promises_what_the_list_holds():
    (promised,) = re.findall(r"Calls of the rooms (.*?):", PAGE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", promised)) == set(public_names.PROMISED)
    assert WRITE in PAGE


def test_the_version_has_its_section():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## {re.escape(bptt_jax.__version__)}\b", text, re.MULTILINE)
