"""The drawing of the house: which room may import which, and no more."""

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(importlib.util.find_spec("bptt_jax").origin).parent

# room -> rooms it may import; everything may import `types` and the private helpers.
ARROWS = {
    "types": set(),
    "_chunks": set(),
    "_deprecated": set(),
    "_factory": set(),
    "_files": set(),
    "_jax": set(),
    "_processes": set(),
    "_pytrees": set(),
    "_score": set(),
    "_shardings": set(),
    "cells": set(),
    "data": set(),
    "native": set(),
    "loops": {"cells", "native"},
    "layers": {"cells", "loops"},
    "unrolls": {"cells", "layers", "loops"},
    "objectives": set(),
    "sequences": {"unrolls"},
    "models": {"cells", "layers", "unrolls"},
    "wholes": {"layers", "objectives", "unrolls"},
    "recipes": {
        "cells",
        "layers",
        "loops",
        "models",
        "objectives",
        "tasks",
        "unrolls",
        "wholes",
    },
    "estimators": {"layers", "unrolls"},
    "diagnose": {"cells", "estimators", "layers", "unrolls"},
    "tasks": {"objectives"},
    "progress": {"plots"},
    "train": {
        "estimators",
        "layers",
        "models",
        "progress",
        "recipes",
        "tasks",
        "unrolls",
    },
    "sweep": {"estimators", "layers", "progress", "train"},
    "verify": {"cells", "layers", "loops", "objectives", "unrolls", "wholes"},
    "plots": set(),
    "interop": {"cells", "layers", "models", "unrolls"},
    "export": {
        "interop",
        "layers",
        "loops",
        "recipes",
        "tasks",
        "train",
        "unrolls",
    },
    "__main__": {"cli"},
}
FOR_ALL = {
    "types",
    "_chunks",
    "_deprecated",
    "_factory",
    "_files",
    "_jax",
    "_processes",
    "_pytrees",
    "_score",
    "_shardings",
}
TOP = {"__init__", "cli"}  # these see everything


def room(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path):
    """`(module, names, whether inside a function)` of each import of our own."""
    tree = ast.parse(path.read_text())
    inside = {
        node
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(f)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "bptt_jax"
        ):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, [a.name for a in node.names], node in inside
        elif isinstance(node, ast.Import):
            for a in node.names:
                if a.name.startswith("bptt_jax"):
                    yield a.name, [], node in inside


def targets(module: str, names: list[str]) -> set[str]:
    parts = module.split(".")
    return {parts[1]} if len(parts) > 1 else set(names)


SOURCES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_is_in_the_drawing():
    assert {room(path) for path in SOURCES} <= set(ARROWS) | TOP


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows(path):
    here = room(path)
    for module, names, _ in imports(path):
        for there in targets(module, names) - {here}:
            assert here in TOP or there in ARROWS[here] | FOR_ALL, f"{here} -> {there}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_inner_files_of_a_rack_are_its_own(path):
    for module, names, _ in imports(path):
        parts = module.split(".")
        private = [p for p in [*parts[2:], *names] if p.startswith("_")]
        if len(parts) > 1 and private and not parts[1].startswith("_"):
            allowed = parts[1] == room(path)
            assert allowed, f"{path.name} reaches into {module}: {private}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_imports_inside_functions(path):
    if room(path) in TOP:
        return  # the rooms a command needs load with it
    late = [module for module, _, inside in imports(path) if inside]
    assert not late


def test_there_are_no_cycles():
    seen: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]):
        assert name not in trail, " -> ".join([*trail, name])
        if name not in seen:
            for there in sorted(ARROWS[name]):
                if there != "cli":
                    visit(there, (*trail, name))
            seen.add(name)

    for name in ARROWS:
        visit(name, ())


def test_the_drawing_has_these_rooms_and_arrows():
    page = (pathlib.Path(__file__).parents[1] / "docs/architecture.md").read_text(
        encoding="utf-8"
    )
    block = page.split("## The rooms and their arrows")[1].split("```")[1]
    everybody, _, *lines = block.strip().splitlines()
    assert set(everybody.split()) == FOR_ALL
    drawn = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        to = rest.strip().removeprefix("->").strip() if "->" in rest else ""
        drawn[name] = {a for a in re.split(r"\s{2,}", to)[0].split(", ") if a}
    assert drawn.pop("cli") == {"everything"}
    rooms = {name: to for name, to in ARROWS.items() if not name.startswith("_")}
    assert drawn == {name: to for name, to in rooms.items() if name not in FOR_ALL}


def test_there_is_no_drawer_for_everything():
    names = {path.stem for path in SOURCES}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_import_is_light():
    """What the first import leaves out of memory, and that the rooms are there."""
    code = """
import sys
import bptt_jax
heavy = [m for m in ("flax", "optax", "chex", "orbax", "matplotlib", "tyro", "rich",
                   "llvmlite")
         if m in sys.modules]
assert not heavy, heavy
assert {"cells", "layers", "unrolls"} <= set(vars(bptt_jax))
assert "train" in dir(bptt_jax) and "train" not in vars(bptt_jax)
bptt_jax.objectives
assert "optax" in sys.modules
try:
    bptt_jax.nowhere
except AttributeError as error:
    assert "nowhere" in str(error)
else:
    raise AssertionError("no AttributeError")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_public_jax():
    """`jax._src`, and jaxlib itself, change without notice."""
    for path in SOURCES:
        text = path.read_text()
        assert "jax._src" not in text, path
        assert "import jaxlib" not in text, path
