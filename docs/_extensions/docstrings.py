"""Makes reStructuredText of our docstrings, which are written to be read as they are.

- `x` is code;
- what is indented after an empty line, and is no section, is shown as it stands;
- the fields of a record (`name: text`) are a list of definitions;
- *word* is emphasised; any other *, | and a last _ mean themselves;
- a default value that nobody can type is shown by a public name, or as "...".
"""

import ast
import inspect
import re

import bptt_jax

SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Example|Examples):\s*$")
FIELD = re.compile(r"([a-z_][\w, ]*): (?=\S)")
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
EMPHASIS = re.compile(r"(?<![\w*)\]])\\\*(\w(?:[^*]*\w)?)\\\*(?![\w(*])")


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
        parts[i] = EMPHASIS.sub(r"*\1*", parts[i])
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
        if first == "Returns:":  # napoleon takes what is before a colon for a type
            text = plain("\n".join(line.strip() for line in block[1:])).split("\n")
            found += [f":returns: {text[0]}", *(f"    {line}" for line in text[1:]), ""]
        elif first.lstrip().startswith(">>>"):
            found += [*block, ""]
        elif indent(first) and not in_section:
            shown = (line.replace("`", "") for line in block)
            found += [".. code-block:: text", "", *shown, ""]
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


# what is private here, by the public name of the same
INITIALISERS = {
    "_embedding_init": "jax.nn.initializers.normal(1.0)",
    "_init.lecun_normal": "jax.nn.initializers.lecun_normal()",
    "_init.orthogonal": "jax.nn.initializers.orthogonal()",
    "_init.zeros": "jax.nn.initializers.zeros",
    "_lecun_normal": "jax.nn.initializers.lecun_normal()",
    "_zeros": "jax.nn.initializers.zeros",
    "unit_uniform": "jax.nn.initializers.uniform(1.0)",
}


class Source:
    """Stands in a signature for the value that it says."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def public_name(value) -> str | None:
    """By which name a reader has this function: `unrolls.bptt`."""
    for name in bptt_jax.__all__:
        room = getattr(bptt_jax, name)
        for inner in getattr(room, "__all__", ()):
            if callable(value) and getattr(room, inner) is value:
                return f"{name}.{inner}"
    return None


def is_expression(text: str) -> bool:
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    return True


def shown(default) -> Source:
    """A default value as one would type it; "..." where one cannot."""
    text = repr(default)  # its source, where autodoc has read that
    while text.endswith(")") and not is_expression(text):
        text = text[:-1]  # autodoc counts bytes: a λ in the line moves the end
    known = INITIALISERS.get(text) or public_name(default)
    hidden = re.search(r"[<\n]|(?<!\w)_[a-z]|^Unsaid", text)
    return Source(known or ("..." if hidden else text))


def process_signature(app, what, name, obj, options, signature, returned):
    del app, name, options, returned
    if what not in ("function", "class") or signature is None:
        return None
    contract = getattr(obj, "_is_protocol", False)  # of a function: how that is called
    found = inspect.signature(obj.__call__ if contract else obj)
    parameters = list(found.parameters.values())[1 if contract else 0 :]
    if signature == "(*args, **kwargs)":  # a metaclass takes them all
        parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    empty = inspect.Parameter.empty
    parameters = [
        p.replace(
            annotation=empty,
            default=empty if p.default is empty else shown(p.default),
        )
        for p in parameters
    ]
    return str(inspect.Signature(parameters)), None


def skip(app, what, name, obj, skipped, options):
    """A record's fields are told in its docstring."""
    del app, what, options
    if type(obj).__name__ == "_tuplegetter" or name in ("__new__", "count", "index"):
        return True
    return skipped


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
