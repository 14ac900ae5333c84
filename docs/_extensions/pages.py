"""Writes the pages whose text is elsewhere: rooms, experiments, benchmarks, notebooks.

They lie in folders which git ignores. A page is written only where it changes.
"""

import ast
import inspect
import itertools
import os
import pathlib
import re
import shutil
import types

from docstrings import converted, plain

import bptt_jax
from bptt_jax.progress import Progress
from bptt_jax.types import Loop, Save

VALUES = Save, Loop, Progress, types.MappingProxyType
"""Of a room: what is said of them stands in a string below."""

DOCS = pathlib.Path(__file__).parent.parent
ROOT = DOCS.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def rooms() -> dict[str, object]:
    found = {name: getattr(bptt_jax, name) for name in ["types", *bptt_jax.__all__]}
    return {name: room for name, room in found.items() if inspect.ismodule(room)}


def public(room) -> list[str]:
    """What a room's door lets out; of a room in one file, what is defined there."""
    if hasattr(room, "__all__"):
        return list(room.__all__)
    return [
        name
        for name, value in vars(room).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == room.__name__
    ]


def api(name: str, room) -> str:
    text = inspect.cleandoc(room.__doc__ or "").split("\n")
    about = "\n".join(converted(text, record=False))
    tables = [n for n in public(room) if isinstance(getattr(room, n), dict)]
    modules = [n for n in public(room) if inspect.ismodule(getattr(room, n))]
    values = [n for n in public(room) if isinstance(getattr(room, n), VALUES)]
    borrowed = [n for n in public(room) if owner(getattr(room, n), name) != name]
    names = sorted(set(public(room)) - {*tables, *modules, *values}, key=str.lower)
    listed = "".join(f"   {name}\n" for name in names)
    summary = f".. autosummary::\n   :nosignatures:\n\n{listed}" if names else ""
    each = "".join(module(f"bptt_jax.{name}.{n}") for n in modules)

    def table(name: str) -> str:
        entries = ", ".join(f"``{key}``" for key in getattr(room, name))
        return f".. py:data:: {name}\n\n   By name: {entries}.\n\n"

    def value(name: str) -> str:
        lines = converted(said(room, name).split("\n"), record=False)
        text = "\n".join(f"   {line}" for line in lines)
        return f".. py:data:: {name}\n\n{text}\n\n"

    return f"""# {name}

```{{eval-rst}}
.. currentmodule:: bptt_jax.{name}

{about}

{"".join(in_brief(f"bptt_jax.{name}", getattr(room, n)) for n in modules)}
{summary}
{"".join(map(table, tables))}
{"".join(map(value, values))}
.. automodule:: bptt_jax.{name}
   :exclude-members: {", ".join([*tables, *modules, *values, *borrowed])}
```

{each}"""


def owner(value, room: str) -> str:
    """The room on whose page a name is described: where it is made, if that is a door of it."""
    if not inspect.isclass(value):
        return room
    other = value.__module__.removeprefix("bptt_jax.").partition(".")[0]
    lets_out = other in rooms() and value.__name__ in public(rooms()[other])
    return other if lets_out else room


def said(room, name: str) -> str:
    """The text below the line that makes a value of a room."""
    for path in sorted(pathlib.Path(room.__file__).parent.glob("*.py")):
        body = ast.parse(path.read_text()).body
        for line, after in itertools.pairwise(body):
            match line:
                case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
                    made = ast.unparse(target)
                case _:
                    continue
            if made == name:
                return inspect.cleandoc(ast.literal_eval(after.value))
    raise LookupError(f"{name}: no text below the line that makes it")


def in_brief(room: str, module) -> str:
    name = module.__name__
    first = plain(" ".join((module.__doc__ or "").partition("\n\n")[0].split()))
    return f"- :py:mod:`{name.removeprefix(room + '.')} <{name}>`: {first}\n"


def module(name: str) -> str:
    """A module within a room; attributes are in the docstring of their class."""
    return f"""## {name.rpartition(".")[2]}

```{{eval-rst}}
.. automodule:: {name}
   :exclude-members: through
```

"""


def linked(text: str, source: pathlib.Path, page: pathlib.Path) -> str:
    """The text of `source` as it stands in `page`: links lead to pages, not to files."""

    def link(match: re.Match) -> str:
        mark, text, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        path = (source.parent / target.split("#")[0]).resolve()
        if not path.exists():
            raise FileNotFoundError(f"{source}: {target}")
        if not mark:
            path = SITE.get(path, path / "index.md" if path.is_dir() else path)
            if DOCS not in path.parents:  # no page: name it
                return f"{text} (`{path.relative_to(ROOT)}`)"
        return f"{mark}[{text}]({os.path.relpath(path, page.parent)})"

    return LINK.sub(link, text)


def generated() -> dict[pathlib.Path, str]:
    made = {DOCS / "api" / f"{n}.md": api(n, room) for n, room in rooms().items()}
    for source, page in SITE.items():
        if source.suffix == ".md" and page not in made:
            made[page] = linked(source.read_text(), source, page)
        elif source.suffix == ".ipynb":
            made[page] = source.read_text()
    return made


def site() -> dict[pathlib.Path, pathlib.Path]:
    """File of the repository -> its page."""
    found = {ROOT / "benchmarks" / "README.md": DOCS / "benchmarks" / "index.md"}
    for source in sorted((ROOT / "experiments").glob("*/README.md")):
        found[source] = DOCS / "experiments" / f"{source.parent.name}.md"
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        found[source] = DOCS / "notebooks" / source.name
    return found


SITE = site()


def write(app) -> None:
    del app
    made = generated()
    for folder in {path.parent for path in made}:
        folder.mkdir(exist_ok=True)
        for old in set(folder.iterdir()) - set(made):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for path, text in made.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def relink(app, docname, text) -> None:
    path = pathlib.Path(app.env.doc2path(docname))
    if path.suffix == ".md" and path not in SITE.values():
        text[0] = linked(text[0], path, path)


def setup(app):
    app.connect("builder-inited", write)
    app.connect("source-read", relink)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
