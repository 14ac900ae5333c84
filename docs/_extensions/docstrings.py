"""Makes reStructuredText of our docstrings, which are written to be read as they are.

- `x` is code;
- what is indented after an empty line, and is no section, is shown as it stands;
- the fields of a record (`name: text`) are a list of definitions;
- *, | and a last _ mean themselves.
"""

import re

SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Example|Examples):\s*$")
FIELD = re.compile(r"([a-z_][\w, ]*): (?=\S)")
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def blocks(lines: list[str]) -> list[list[str]]:
    """The lines between empty ones."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [block for block in found if block]


def plain(text: str) -> str:
    """Text in which only code is marked."""
    parts = re.split(r"(`[^`]+`)", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*|\\])", r"\\\1", parts[i])
        parts[i] = re.sub(r"_(?=\W|$)", r"\\_", parts[i])
    return CODE.sub(_code, "".join(parts))


def _code(match: re.Match) -> str:
    """Literal text ends where no letter follows, so an empty escape comes between."""
    after = match.string[match.end() : match.end() + 1]
    return f"``{match[1].strip()}``" + ("\\ " if after.isalnum() else "")


def fields(block: list[str]) -> list[str]:
    lines = []
    for line in plain("\n".join(block)).split("\n"):
        name = FIELD.match(line)
        if name:
            lines += [f"``{name[1]}``", f"    {line[name.end() :]}"]
        else:
            lines.append(f"    {line.strip()}")
    return lines


def converted(lines: list[str], record: bool) -> list[str]:
    found: list[str] = []
    in_section = False
    for block in blocks(lines):
        first = block[0]
        if SECTION.match(first):
            in_section = True
        elif indent(first) == 0:
            in_section = False
        if first.lstrip().startswith(">>>"):
            found += [*block, ""]
        elif indent(first) and not in_section:
            found += ["::", "", *block, ""]
        elif (
            record
            and FIELD.match(first)
            and all(indent(line) or FIELD.match(line) for line in block)
        ):
            found += [*fields(block), ""]
        else:
            found += [*plain("\n".join(block)).split("\n"), ""]
    return found


def process(app, what, name, obj, options, lines):
    del app, name, options
    if what == "module":  # its page begins with it
        lines[:] = []
        return
    record = what == "class" and hasattr(obj, "_fields")
    lines[:] = converted(lines, record)


def skip(app, what, name, obj, skipped, options):
    """A record's fields are told in its docstring."""
    del app, what, options
    if type(obj).__name__ == "_tuplegetter" or name in ("__new__", "count", "index"):
        return True
    return skipped


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
