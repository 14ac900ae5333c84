"""Options from a command line, and what is wrong with them in one line."""

import contextlib
import io
import pathlib
import re
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")
Folder = Annotated[pathlib.Path, tyro.conf.Positional]
File = Folder


def parse(kind: type[T], argv: list[str], prog: str, default: T | None = None) -> T:
    """`argv` as an instance of a dataclass; `default` stands where it is silent.

    Raises:
      ValueError: what is wrong, in one line (tyro would draw a box).
      SystemExit: help was asked for, and has been shown.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if default is None:
                return tyro.cli(kind, args=argv, prog=prog)
            return tyro.cli(kind, args=argv, prog=prog, default=default)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(said.getvalue(), prog)) from None


def said(argv: list[str]) -> set[str]:
    """Names of the options that the command line has, as fields have them."""
    options = [word.partition("=")[0] for word in argv if word.startswith("--")]
    return {option[2:].replace("-", "_") for option in options}


def _one_line(box: str, prog: str) -> str:
    """The first paragraph inside the box, and the first option that may be meant."""
    inside = re.sub(r"[│╭╮╰╯]", " ", box)
    inside = re.sub(r"\('(--[\w-]+)',\)", r"\1", inside)  # a name, as older tyro has it
    _, *parts = [" ".join(p.split()) for p in re.split(r"[-─━]{5,}", inside)]
    parts = [part for part in parts if part] or [" ".join(inside.split())]
    meant = [re.search(r"--[\w-]+", part) for part in parts if "meant" in part]
    hint = f"; did you mean {meant[0].group()}?" if meant and meant[0] else ""
    return f"{parts[0].rstrip('.')}{hint} ({prog} --help lists the options)"
