"""What a run's folder says of its model and its task, so that both are there again."""

import json
import pathlib
from typing import Any

import jax

from bptt_jax import recipes, tasks
from bptt_jax.types import Encoding, Layer, Scale, Sections, Stream, Task, Text

KEYS = ("model", "about")
"""Of `run.json`. Older ones lack them."""


def about(task: Task, model: Layer | Sections) -> dict[str, Any]:
    """For `run.json`: how the model is made, and what the task says of inputs and outputs."""
    return dict(model=_recipe(model), about=_of_task(task))


def described(task: Task, model: Layer | Sections) -> dict[str, Any]:
    """A record that `model_of` and `task_of` need no more than, as JSON has it."""
    found = about(task, model) | dict(made=dict(task=task.record))
    return json.loads(json.dumps(found, default=_as_json))


def _as_json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def model_of(saved: dict[str, Any], where: Any) -> Layer | Sections:
    """The model that a record names.

    Raises:
      ValueError: it names none, or none that this version can make.
    """
    ways = "hand the model in: load(…, model=)"
    found = saved.get("model")
    if found is None:
        raise ValueError(f"{where} does not say how its model is made; {ways}")
    if "own" in found:
        raise ValueError(f"{where} does not have the model: {found['own']}; {ways}")
    try:
        return recipes.read(found)
    except ValueError as error:
        raise ValueError(f"{where}: model: {error}; {ways}") from None


def task_of(saved: dict[str, Any], where: Any, tokenizer: Any = None) -> Task | None:
    """The task that a record describes; with data where they can be made here.

    None: the record describes none, an older version's.

    Raises:
      ValueError: what it says is damaged.
    """
    said = saved.get("about")
    if said is None:
        return None
    try:
        task = _described(said, saved["made"]["task"])
        recipe, by_tokenizer = said["recipe"], "tokenizer" in (said["text"] or ())
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where} is damaged: about: {error!r}") from None
    if by_tokenizer:
        return task._replace(text=_by_tokenizer(said, where, tokenizer))
    made = _again(recipe)
    same = made is not None and _record(made) == _record(task)
    return made if same and isinstance(made, Task) else task


def _described(said: dict[str, Any], record: dict[str, Any]) -> Task:
    objective = said["objective"]
    objective = _unknown if "own" in objective else recipes.read(objective)
    encoding = said["encoding"]
    sizes = jax.tree.leaves((said["n_in"], said["n_out"]))
    if not sizes or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise ValueError("n_in and n_out are sizes")
    encoding = None if encoding is None else _encoding(encoding)
    if encoding and encoding.classes and len(encoding.classes) != said["n_out"]:
        raise ValueError("as many classes as outputs")
    nothing = Stream(_no_data, _no_data, None)
    return Task(
        said["n_in"],
        said["n_out"],
        objective,
        nothing,
        nothing,
        tokens=_tokens(said),
        stateful=bool(said["stateful"]),
        text=_text(said["text"]),
        record={name: record[name] for name in said["record"]},
        encoding=encoding,
    )


def _tokens(said: dict[str, Any]) -> bool | tuple[str, ...]:
    several = isinstance(said["n_in"], dict)
    return tuple(map(str, said["tokens"])) if several else bool(said["tokens"])


def has_data(task: Task) -> bool:
    """Whether the data of a task that was described can be read here."""
    return task.train.read is not _no_data


def _recipe(what: Any) -> dict[str, Any]:
    try:
        return recipes.write(what)
    except ValueError as error:
        return dict(own=str(error))


def _of_task(task: Task) -> dict[str, Any]:
    return dict(
        recipe=_recipe(task),
        objective=_recipe(task.objective),
        n_in=task.n_in,
        n_out=task.n_out,
        tokens=task.tokens,
        stateful=task.stateful,
        text=_of_text(task.text),
        record=list(task.record),
        encoding=None if task.encoding is None else _written(task.encoding),
    )


def _of_text(text: Text | None) -> dict[str, Any] | None:
    """Of symbols that are characters or bytes; of a tokenizer that it is one."""
    if text is None:
        return None
    if text.symbols is None:
        return dict(tokenizer=text.written is not None)
    in_bytes = text.symbol == "byte"
    utf8 = in_bytes and text.per == "character"
    return dict(symbols=text.symbols, in_bytes=in_bytes, utf8=utf8)


def _by_tokenizer(said: dict[str, Any], where: Any, tokenizer: Any) -> Text | None:
    """By the one that is handed in, or that was kept beside the run."""
    if tokenizer is None and said["text"]["tokenizer"]:
        tokenizer = tasks.read_tokenizer(pathlib.Path(where).parent)
    if tokenizer is None:
        return None
    return tasks.by_tokenizer(tokenizer, n_symbols=said["n_in"])


def _text(said: dict[str, Any] | None) -> Text | None:
    if said is None or "tokenizer" in said:
        return None
    symbols = tuple(map(str, said["symbols"]))
    how = {name: bool(said[name]) for name in ("in_bytes", "utf8")}
    return Text.by_symbols(symbols, **how)


def _record(task: Task) -> str:
    return json.dumps(task.record, default=str, sort_keys=True)


def _again(recipe: dict[str, Any]) -> Any:
    """A task that is made of numbers alone, or of data that come with a package."""
    if "own" in recipe:
        return None
    try:
        return recipes.read(recipe)
    except (ValueError, ModuleNotFoundError, OSError):  # its package is not here
        return None


def _written(encoding: Encoding) -> dict[str, Any]:
    found = encoding._asdict()
    for name in ("inputs", "targets"):
        found[name] = _of_scale(found[name])
    if encoding.classes is not None:
        found["classes"] = [_label(one) for one in encoding.classes]
    if encoding.naive is not None:
        found["naive"] = [[name, list(a)] for name, a in encoding.naive.items()]
    return found


def _of_scale(scale: Any) -> dict[str, Any] | None:
    if isinstance(scale, dict):
        return dict(by_name={name: _of_scale(one) for name, one in scale.items()})
    return None if scale is None else scale._asdict()


def _scale(said: dict[str, Any] | None) -> Any:
    if said is not None and "by_name" in said:
        return {str(name): _scale(one) for name, one in said["by_name"].items()}
    return None if said is None else Scale(*_numbers(said))


def _encoding(said: dict[str, Any]) -> Encoding:
    scales = {name: _scale(said[name]) for name in ("inputs", "targets")}
    classes, shape = said["classes"], said["shape"]
    naive = said.get("naive")  # older versions' lack it
    return Encoding(
        **scales,
        classes=None if classes is None else tuple(map(_label_of, classes)),
        per_step=bool(said["per_step"]),
        shape=None if shape is None else tuple(map(int, shape)),
        naive=None if naive is None else dict(map(_naive, naive)),
    )


def _naive(of_series: list) -> tuple[str | int, tuple[float, ...]]:
    name, errors = of_series
    if not isinstance(name, str | int):
        raise ValueError(f"a series has a name, got a {type(name).__name__}")
    return name, tuple(map(float, errors))


def _numbers(scale: dict[str, Any]):
    for name in Scale._fields:
        yield tuple(float(a) for a in scale[name])


def _label(label: Any) -> Any:
    return dict(bytes=label.decode("latin-1")) if isinstance(label, bytes) else label


def _label_of(label: Any) -> Any:
    if isinstance(label, dict):
        return str(label["bytes"]).encode("latin-1")
    if not isinstance(label, str | int | float):
        raise ValueError(f"a class is a label, got a {type(label).__name__}")
    return label


def _no_data(*arguments):
    raise ValueError("the data of this run are not here; give the task: load(…, task=)")


def _unknown(ys, targets):
    raise ValueError(
        "the objective of this run is one's own and is not written down; give the task: "
        "load(…, task=)"
    )
