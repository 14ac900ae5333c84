"""What the fast tier finds: one fault after another is put into a copy of the source.

    python tests/source_mutants.py --list
    python tests/source_mutants.py --out mutants.json [--jobs 2]
    python tests/source_mutants.py --of contracts/test_memory.py --hints --out memory.json
    python tests/source_mutants.py --out now.json --against mutants.json

The faults are those of `tests/source_edits`. Of each the tests that should find it run
first and then all others of the fast tier, up to the first failure; a survivor has run
all of them. A test that fails without the fault, too, finds nothing. Where the JSON has a
fault already, found in the same source by the same tests, it is not run again.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

from source_edits import EDITS, Edit

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "bptt_jax"
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", "__pycache__", "*.egg-info", "build", "dist", "_build",
    "runs",
)  # fmt: skip
OPTIONS = (
    "-x", "-q", "-n0", "-m", "not slow and not release and not elsewhere", "--tb=line",
    "--no-header",
    "-o", "addopts=--import-mode=importlib", "-o", "cache_dir=.failed",
)  # fmt: skip
NO_TESTS = 5  # of pytest: nothing was selected


class Outcome(NamedTuple):
    """Of one fault.

    source: hash of the source, the tests and the edit.
    caught: the test that found it; None: it has survived.
    seconds: up to then.
    whole: whether a survivor has run all of the fast tier.
    """

    source: str
    caught: str | None
    seconds: float
    whole: bool


def place(edit: Edit, root: pathlib.Path = ROOT) -> pathlib.Path:
    """The file that has the text.

    Raises:
      ValueError: it is not there, or more than once.
    """
    at = root / PACKAGE / edit.file
    files = sorted(at.rglob("*.py")) if at.is_dir() else [at]
    counts = {f: f.read_text(encoding="utf-8").count(edit.before) for f in files}
    if sum(counts.values()) != 1:
        raise ValueError(
            f"{edit.name}: expected {edit.before!r} once in {edit.file}, it is there "
            f"{sum(counts.values())} times"
        )
    return next(f for f, n in counts.items() if n)


def edited(edit: Edit, text: str) -> str:
    return text.replace(edit.before, edit.after)


def hashed(edit: Edit) -> str:
    sha256 = hashlib.sha256(repr((edit.file, edit.before, edit.after)).encode())
    own = pathlib.Path(__file__), *(ROOT / "tests/source_edits").glob("*.py")
    for folder in (PACKAGE, "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path not in own:
                sha256.update(
                    f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes()
                )
    return sha256.hexdigest()[:16]


class Bench:
    """Copies of the project as it is now, and the tests that fail without a fault."""

    def __init__(self, folder: str):
        self.lock, self.broken = threading.Lock(), {}
        self.original = pathlib.Path(folder) / "original"
        shutil.copytree(ROOT, self.original, ignore=LEFT_OUT)

    def copy(self, folder: str, edit: Edit | None) -> pathlib.Path:
        root = pathlib.Path(folder) / "project"
        shutil.copytree(self.original, root)
        if edit is not None:
            path = place(edit, root)
            text = path.read_text(encoding="utf-8")
            path.write_text(edited(edit, text), encoding="utf-8")
        return root

    def fails_anyway(self, test: str) -> bool:
        """Whether a test fails on the source as it is, asked once."""
        with self.lock:
            if test not in self.broken:
                with tempfile.TemporaryDirectory() as folder:
                    found = failed(self.copy(folder, None), [test], [])
                self.broken[test] = found is not None
            return self.broken[test]

    def finds(self, root: pathlib.Path, tests: list[str]) -> str | None:
        """The first of the tests that fails for the fault."""
        while True:
            known = [test for test, fails in self.broken.items() if fails]
            test = failed(root, tests, known)
            if test is None or not self.fails_anyway(test):
                return test


def failed(root: pathlib.Path, tests: list[str], without: list[str]) -> str | None:
    """The first test that fails in a folder; where the process ends, what it said last."""
    shutil.rmtree(root / ".failed", ignore_errors=True)
    ignored = [option for test in without for option in ("--deselect", test)]
    paths = [
        f"tests/{test}" if not test.startswith("tests/") else test for test in tests
    ]
    environment = os.environ | {"PYTHONPATH": str(root), "MPLBACKEND": "Agg"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, *ignored, *paths],
        cwd=root, env=environment, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    if run.returncode in (0, NO_TESTS):
        return None
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((root / ".failed/v/cache/lastfailed").read_text())
        return next(iter(found))
    said = (run.stdout + run.stderr).strip().split("\n")
    if run.returncode == 4:  # of pytest: such a test is not there
        raise ValueError("\n".join(said[-5:]))
    return f"the process ended with {run.returncode}: {said[-1][:200]}"


def others(first: tuple[str, ...]) -> list[str]:
    """All files of tests but those that have run as a whole."""
    tests = ROOT / "tests"
    files = sorted(str(f.relative_to(tests)) for f in tests.rglob("test_*.py"))
    return [f for f in files if f not in first]


def tried(bench: Bench, edit: Edit, source: str, hints: bool) -> Outcome:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        root = bench.copy(folder, edit)
        found = bench.finds(root, list(edit.first))
        if found is None and not hints:
            found = bench.finds(root, others(edit.first))
    seconds = round(time.perf_counter() - began, 1)
    return Outcome(source, found, seconds, not hints)


def chosen(only: list[str], of: str | None) -> list[Edit]:
    """Those whose name or file begins so, and whose first tests are in a file."""
    found = [e for e in EDITS if not only or (e.name.startswith(tuple(only)) or
             e.file.startswith(tuple(only)))]  # fmt: skip
    return [e for e in found if of is None or any(t.startswith(of) for t in e.first)]


def lost(before: dict, now: dict) -> list[str]:
    """What was found and no longer is."""
    return [
        name
        for name, outcome in before.items()
        if outcome["caught"] and name in now and not now[name]["caught"]
    ]


def is_known(there: dict, source: str, hints: bool) -> bool:
    same = there.get("source") == source
    return same and bool(there["caught"] or there["whole"] or hints)


def run(
    edits: list[Edit], found: dict, out: pathlib.Path | None, jobs: int, hints: bool
):
    sources = {edit: hashed(edit) for edit in edits}
    rest = [e for e in edits if not is_known(found.get(e.name, {}), sources[e], hints)]
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
    ):
        bench = Bench(folder)
        tries = {pool.submit(tried, bench, e, sources[e], hints): e for e in rest}
        for each in concurrent.futures.as_completed(tries):
            name, outcome = tries[each].name, each.result()
            found[name] = outcome._asdict()
            if out is not None:
                text = json.dumps(dict(sorted(found.items())), indent=1)
                out.write_text(text + "\n", encoding="utf-8")
            said = outcome.caught or "SURVIVED"
            print(f"{name}: {said} ({outcome.seconds} s)", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME",
                        help="faults or files that begin so")  # fmt: skip
    parser.add_argument("--of", metavar="FILE", help="those that this file should find")
    parser.add_argument("--hints", action="store_true", help="the first tests alone")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, metavar="JSON")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--against", type=pathlib.Path, metavar="OLD.json")
    options = parser.parse_args()
    edits, out = chosen(options.only, options.of), options.out
    if options.list:
        print("\n".join(f"{e.file}: {e.name}  <- {', '.join(e.first)}" for e in edits))
        return 0
    found = json.loads(out.read_text()) if out is not None and out.exists() else {}
    run(edits, found, out, options.jobs, options.hints)
    survivors = [e.name for e in edits if not found[e.name]["caught"]]
    print(f"{len(edits) - len(survivors)} of {len(edits)} are found")
    for name in survivors:
        print(f"survived: {name}")
    if options.against is not None:
        for name in (gone := lost(json.loads(options.against.read_text()), found)):
            print(f"no longer found: {name}")
        return bool(gone)
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
