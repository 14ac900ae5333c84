"""A library changes nothing in the process that imports it; the command line may."""

import json
import logging
import os
import subprocess
import sys

from bptt_jax import cli
from support import compiled
from support.kept_programs import ENVIRONMENT
from support.training import TESTS

BEFORE_AND_AFTER = """
import ast, importlib, json, logging, os, pathlib, pkgutil, random, signal, sys
import tempfile, threading, warnings

import jax
import numpy as np

folder = pathlib.Path(importlib.util.find_spec("bptt_jax").origin).parent


def others():
    "The modules of other packages that ours import."
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (a.name for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module
                yield from (f"{node.module}.{a.name}" for a in node.names)


def loggers():
    each = {"": logging.getLogger(), **logging.root.manager.loggerDict}
    each = {k: v for k, v in each.items() if isinstance(v, logging.Logger)}
    said = {k: [v.level, v.handlers, v.filters, v.propagate, v.disabled]
            for k, v in each.items()}
    return {k: str(v) for k, v in said.items() if v != [0, [], [], True, False]}


def process():
    hooks = "excepthook", "unraisablehook", "displayhook", "breakpointhook"
    return dict(
        loggers=loggers(),
        logging=[str(logging.getLoggerClass()), logging.raiseExceptions,
                 logging.root.manager.disable],
        warnings=list(map(str, warnings.filters)),
        showwarning=str(warnings.showwarning),
        **{hook: str(getattr(sys, hook)) for hook in hooks},
        threading=str(threading.excepthook),
        traced=[str(sys.gettrace()), str(sys.getprofile())],
        signals=[str(signal.getsignal(s)) for s in signal.valid_signals()],
        environment=dict(os.environ),
        folder=os.getcwd(),
        path=list(sys.path),
        recursion=sys.getrecursionlimit(),
        jax={k: str(v) for k, v in sorted(jax.config.values.items())},
        numpy=[str(np.geterr()), str(np.get_printoptions())],
        random=[hash(random.getstate()), str(np.random.get_state()[1][:5])],
        matplotlib={k: str(v) for k, v in dict.items(sys.modules["matplotlib"].rcParams)},
    )


for name in sorted(set(others())):
    if not name.startswith("bptt_jax"):
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # a name in a module, or a package that is not here
before = process()
import bptt_jax

ours = [m.name for m in pkgutil.walk_packages(bptt_jax.__path__, "bptt_jax.")]
for name in ours:
    if name != "bptt_jax.__main__":
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert error.name.split(".")[0] != "bptt_jax", error
assert len(ours) > 100
after = process()

from support.training import text
from bptt_jax import train

run = pathlib.Path(tempfile.mkdtemp())
options = train.RunOptions(updates=1, per_dispatch=1, checkpoint_every=1, evaluate_batches=1)
state = text().run(run, options).state
for path in (run / "checkpoint" / "1").rglob("*"):
    if path.parent.name == "d":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
checkpoints = train.Checkpoints(run / "checkpoint")
try:
    checkpoints.restore(state)
except ValueError as error:
    assert "damaged" in str(error), error
else:
    raise AssertionError("the damage was not seen")
checkpoints.close()
last = dict(process(), random=after["random"])
last["loggers"] = {k: v for k, v in last["loggers"].items() if k in after["loggers"]}


def differ(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        each = {k: differ(a.get(k), b.get(k)) for k in {*a, *b}}
        return {k: v for k, v in each.items() if v}
    return [] if a == b else [a, b]


print(json.dumps([differ(before, after), differ(after, last)]))
"""


def test_importing_every_module_and_a_failed_read_change_nothing():
    """Loggers, warnings, hooks, signals, environment, JAX's configuration."""
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_AND_AFTER],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            **ENVIRONMENT,
            **compiled.environment(),
            "PYTHONPATH": path,
        },
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [{}, {}]


def test_a_command_puts_back_what_it_changes(capsys):
    """It may be called in a process that goes on, as here."""
    absl = logging.getLogger("absl")
    level, hook = absl.level, sys.unraisablehook
    assert cli.main(["check", "--only", "nope"]) == 2
    assert (absl.level, sys.unraisablehook) == (level, hook)
    capsys.readouterr()
