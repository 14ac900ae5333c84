"""The little language of lists in options: `0.1,0.01`, `0:8`, `1e-4:1e-1:log:16`."""

import dataclasses
import re

from bptt_jax.cli._settings import FILES, Settings

SINGLE = (
    "text", "data", "target", "sequence", "time", "horizon", "season", "quick",
    "tensorboard", "out", "config", "patience", "evaluate_every", "checkpoint_every",
    "epochs", "remat", "mesh", "score", "maximise",
)  # fmt: skip
"""Options that take one value."""


def split(argv: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The arguments with the first of each list, and the lists by option."""
    first, lists, name = [], {}, None
    fields = {f.name for f in dataclasses.fields(Settings)}
    for word in argv:
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            name = option[2:].replace("-", "_")
            if equals and name in fields and name not in SINGLE:
                values = _values(name, value)
                lists |= {name: values} if len(values) > 1 else {}
                word = f"{option}={values[0]}"
            elif equals and name in SINGLE:
                _refuse_list(name, value)
        elif name in fields and name not in SINGLE:
            values = _values(name, word)
            lists |= {name: values} if len(values) > 1 else {}
            word = values[0]
        elif name in fields:
            _refuse_list(name, word)
        first.append(word)
    return first, lists


def _refuse_list(name: str, word: str) -> None:
    """Names of files and columns may have commas and colons; other single values not."""
    if name in (*FILES, "target", "sequence", "time"):
        return
    if "," in word or re.search(r"\d:\d", word):
        raise ValueError(f"--{name.replace('_', '-')} takes one value, got {word}")


def _values(name: str, text: str) -> list[str]:
    """`0:8`, `1e-4:1e-1:log:16`, `0.1:0.9:lin:5`, `a,b,c`, or one value."""
    option = f"--{name.replace('_', '-')} {text}"
    if "," in text:
        values = [v for part in text.split(",") for v in _values(name, part)]
        if len(set(values)) < len(values):
            raise ValueError(f"{option}: a value more than once")
        return values
    parts = text.split(":")
    if len(parts) == 1:
        if not text:
            raise ValueError(f"{option}: an empty value")
        return [text]
    try:
        if len(parts) == 2:
            low, high = map(int, parts)
            if not low < high:
                raise ValueError
            return [str(i) for i in range(low, high)]
        low, high, n = float(parts[0]), float(parts[1]), int(parts[3])
        spaced = dict(log=_log, lin=_lin)[parts[2]]
        if n < 2 or len(parts) > 4:
            raise ValueError
        return [repr(v) for v in spaced(low, high, n)]
    except (ValueError, KeyError, IndexError):
        raise ValueError(
            f"{option}: expected a list a,b,c, a range 0:8, or low:high:log:n "
            "(or lin) with n of at least 2"
        ) from None


def _log(low: float, high: float, n: int) -> list[float]:
    if not (low > 0 and high > 0):
        raise ValueError
    return [float(f"{low * (high / low) ** (i / (n - 1)):.6g}") for i in range(n)]


def _lin(low: float, high: float, n: int) -> list[float]:
    return [float(f"{low + (high - low) * i / (n - 1):.6g}") for i in range(n)]
