"""Runs the notebooks' scripts and writes the notebooks: `python build.py [NAME …]`.

A notebook is its script (jupytext's percent format) and what it printed. The scripts are
what is edited. It needs `pip install jupytext nbclient ipykernel`.
"""

import datetime
import os
import pathlib
import re
import sys
import time

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent
METADATA = dict(
    kernelspec=dict(display_name="Python 3", language="python", name="python3"),
    language_info=dict(name="python"),
)
FOREIGN = re.compile(r"(?<![\w.])/(home|root|tmp|usr|work|opt|Users)/|Warning:")


def joined(outputs: list) -> list:
    """Text that came in pieces, as one piece."""
    found: list = []
    for output in outputs:
        last = found[-1] if found else {}
        if output.output_type == "stream" and last.get("name") == output["name"]:
            last.text += output.text
        else:
            found.append(output)
    return found


def refuse(path: pathlib.Path, outputs: list) -> None:
    """Errors, what went to stderr, warnings, this machine's paths."""
    for output in outputs:
        text = str(output.get("text") or output.get("data", {}).get("text/plain", ""))
        kind = output.get("name", output.output_type)
        if kind in ("stderr", "error") or FOREIGN.search(text):
            raise SystemExit(f"{path.name}: not to be shown: {kind}: {text or output}")


def slow(number: int, cell) -> None:
    """Says which cells take more than a second: their text should name it."""
    times = cell.metadata.get("execution", {})
    if "shell.execute_reply" in times:
        first, last = (
            datetime.datetime.fromisoformat(times[name])
            for name in ("iopub.status.busy", "shell.execute_reply")
        )
        if (seconds := (last - first).total_seconds()) > 1:
            print(f"  {seconds:5.1f} s  {cell.source.splitlines()[0]} … ({number})")


def build(path: pathlib.Path) -> None:
    """Executes `NAME.py` from top to bottom and writes `NAME.ipynb`."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(METADATA)
    began = time.monotonic()
    NotebookClient(
        notebook, timeout=1800, resources=dict(metadata=dict(path=str(HERE)))
    ).execute()
    for number, cell in enumerate(notebook.cells):
        slow(number, cell)
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
            refuse(path, cell.outputs)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    nbformat.write(notebook, path.with_suffix(".ipynb"))
    print(f"{path.stem}: {time.monotonic() - began:.0f} s")


def main(names: list[str]) -> None:
    os.environ["PYTHONPATH"] = str(HERE.parent)  # this clone, whatever is installed
    os.environ.pop("BPTT_JAX_QUICK", None)
    scripts = sorted(p for p in HERE.glob("*.py") if p.name != "build.py")
    unknown = set(names) - {p.stem for p in scripts}
    if unknown:
        raise SystemExit(f"no such notebook: {', '.join(sorted(unknown))}")
    for path in scripts:
        if not names or path.stem in names:
            build(path)


if __name__ == "__main__":
    main(sys.argv[1:])
