"""Several programs in one process that is not the tests': importing JAX takes seconds.

`python -m support.apart < PROGRAMS` is that process.
"""

import contextlib
import io
import json
import os
import pathlib
import runpy
import subprocess
import sys
import traceback
from typing import NamedTuple

from support import compiled

TESTS = pathlib.Path(__file__).parents[1]
ROOT = TESTS.parent


class Ended(NamedTuple):
    """What a program came to, as of a process of its own."""

    returncode: int
    stdout: str
    stderr: str


def run(
    programs: dict[str, list], folder: pathlib.Path = ROOT, **environment: str
) -> dict[str, Ended]:
    """What each comes to, in a folder and one after another.

    Each is what may follow `python`: `["-c", CODE]`, `["-m", MODULE, ARGUMENT, …]` or
    `[FILE, ARGUMENT, …]`. Those that import `support.compiled` compile as the tests do.
    """
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "support.apart"],
        input=json.dumps(list(programs.values())),
        cwd=folder,
        env={
            **os.environ,
            **compiled.environment(),
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": path,
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    each = map(json.loads, done.stdout.splitlines())
    return {name: Ended(*one) for name, one in zip(programs, each, strict=True)}


def one(*words: str) -> Ended:
    out, errors = io.StringIO(), io.StringIO()
    code, before = 0, dict(os.environ)
    how, what, *arguments = words if words[0] in ("-c", "-m") else ("", *words)
    sys.argv = [what, *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            if how == "-m":
                runpy.run_module(what, run_name="__main__", alter_sys=True)
            elif not how:
                runpy.run_path(what, run_name="__main__")
            else:
                exec(compile(what, how, "exec"), {"__name__": "__main__"})  # noqa: S102
        except SystemExit as end:  # of Python: a text is an error's
            code = end.code if isinstance(end.code, int | None) else 1
            if not isinstance(end.code, int | None):
                print(end.code, file=sys.stderr)
        except BaseException:
            code = 1
            traceback.print_exc()
    os.environ.clear()
    os.environ.update(before)
    return Ended(code or 0, out.getvalue(), errors.getvalue())


def main():
    for program in json.load(sys.stdin):
        print(json.dumps(one(*program)), flush=True)


if __name__ == "__main__":
    main()
