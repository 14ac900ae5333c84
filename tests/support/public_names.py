"""The public names, one a line. Where they change on purpose:

    python tests/support/public_names.py

writes `tests/public_names.txt` anew; its differences are what a changelog has to tell.

Of a call of the rooms that docs/stability.md promises the line has the parameters: `*`
before those that are keywords only, `=` after those that may be left out. Fields of records
likewise.
"""

import contextlib
import inspect
import io
import pathlib
import re

import bptt_jax
from bptt_jax import cli

FILE = pathlib.Path(__file__).parents[1] / "public_names.txt"
PROMISED = ("cells", "estimators", "layers", "sweep", "train", "unrolls")
PROVISIONAL = ("Layer", "Loop", "StepVJP")  # records of types, whose fields may change


def public(room) -> list[str]:
    """What a room's door lets out; of a room in one file, what is defined there."""
    if hasattr(room, "__all__"):
        return sorted(room.__all__)
    return sorted(
        name
        for name, value in vars(room).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == room.__name__
    )


def parameters(f) -> str:
    each = [
        p.replace(
            annotation=p.empty, default=p.default if p.default is p.empty else ...
        )
        for p in inspect.signature(f).parameters.values()
    ]
    return str(inspect.Signature(each)).replace("=Ellipsis", "=")


def members(kind: type) -> list[str]:
    """Methods and properties; fields are parameters already."""
    fields = {*getattr(kind, "_fields", ()), *getattr(kind, "__dataclass_fields__", ())}
    own = [c for c in kind.__mro__ if c.__module__.startswith("bptt_jax")]
    return sorted({n for c in own for n in vars(c) if n[0] != "_"} - fields)


def of_room(at: str, room, promised: bool) -> list[str]:
    found = []
    for name in public(room):
        value, where = getattr(room, name), f"{at}.{name}"
        if inspect.ismodule(value):
            found += [where, *of_room(where, value, promised)]
            continue
        with_parameters = promised and callable(value)
        found.append(where + (parameters(value) if with_parameters else ""))
        if inspect.isclass(value) and promised:
            found += [f"{where}.{member}" for member in members(value)]
    return found


def of_types() -> list[str]:
    """The records; fields of those that the package's door has."""
    found = []
    for name in public(bptt_jax.types):
        kind = getattr(bptt_jax.types, name)
        told = name in bptt_jax.__all__ and name not in PROVISIONAL
        found.append(f"types.{name}" + (parameters(kind) if told else ""))
    return found


def of_command(words: str) -> list[str]:
    """The options that its help shows."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        cli.main([*words.split(), "--help"])
    options = re.findall(r"^\W? ?(--[a-z][\w-]*)", shown.getvalue(), re.MULTILINE)
    return [f"bptt-jax {words}", *(f"bptt-jax {words} {o}" for o in sorted(options))]


def names() -> list[str]:
    rooms = {n: getattr(bptt_jax, n) for n in bptt_jax.__all__}
    found = [f"bptt_jax.{name}" for name in sorted(rooms)] + of_types()
    for name, room in sorted(rooms.items()):
        if inspect.ismodule(room):
            found += of_room(name, room, name in PROMISED)
    for command in sorted({*cli.COMMANDS, "sweep show"}):
        found += of_command(command)
    return found


if __name__ == "__main__":
    FILE.write_text("\n".join(names()) + "\n")
