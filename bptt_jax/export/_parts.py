"""A model as what other libraries have, too: an embedding, cells in a row, a dense layer."""

import inspect
from typing import Any, NamedTuple

from bptt_jax import recipes
from bptt_jax.train import Run

DROPPED = ("layers.dropout", "layers.variational_dropout")
"""What does nothing but in training."""
AROUND = {
    "layers.remat": "layer",
    "layers.recurrent": "cell",
    "layers.settled": "layer",
    "layers.with_options": "layer",
}
"""What changes how a part is differentiated, and the argument that is the part."""


class Recurrent(NamedTuple):
    """name: "cells.lstm". options: of its factory, by their names, as a recipe has them."""

    name: str
    options: dict[str, Any]
    params: dict[str, Any]


class Parts(NamedTuple):
    """embedding, dense: parameters; None: there is none. recurrent: at least one."""

    embedding: dict[str, Any] | None
    recurrent: list[Recurrent]
    dense: dict[str, Any] | None


def parts_of(run: Run, library: str) -> Parts:
    """The parts of a run's model.

    Args:
      run: of `train.run` or `train.load`.
      library: for errors, "PyTorch".

    Raises:
      ValueError: it has others, or in another order; the message names the first.
    """
    whole = _flat(recipes.write(run.model)["recipe"], run.params, library)
    kinds = [name for name, _, _ in whole]
    cells = [i for i, name in enumerate(kinds) if name.startswith("cells.")]
    if not cells:
        raise ValueError("model: expected a recurrent part, it has none")
    first, last = cells[0], cells[-1]
    for i, (name, _, _) in enumerate(whole):
        fits = {"layers.embedding": i < first == 1, "layers.dense": i == last + 1}
        if i not in cells and not fits.get(name, False):
            raise ValueError(
                f"model: expected an embedding or none, cells, and a dense layer or none, as "
                f"{library} has them, got {name} in place {i}"
            )
    recurrent = [Recurrent(*whole[i]) for i in cells]
    embedding = whole[0][2] if first else None
    return Parts(embedding, recurrent, whole[-1][2] if last + 1 < len(whole) else None)


def _flat(recipe: Any, params: Any, library: str) -> list[tuple[str, dict, Any]]:
    """`(name, options, parameters)` of each part, in the order in which they are run."""
    name = recipe.get("call", "a record with another field")
    options = _by_name(name, recipe) if "call" in recipe else {}
    if name in DROPPED:
        return []
    if name in AROUND:
        return _flat(options[AROUND[name]], params, library)
    if name == "layers.made":
        return _flat(options["part"]["fields"]["cell"], params, library)
    if name == "layers.stack" and recipe.get("named"):
        names, inner = zip(*recipe["named"], strict=True)
        return _each(list(inner), [params[one] for one in names], library)
    if name == "layers.stack":
        inner = options["layers"]
        inner = inner[0] if len(inner) == 1 and isinstance(inner[0], list) else inner
        return _each(inner, params, library)
    if name in ("models.features", "models.symbols"):
        return _each(_of_model(name, options), params, library)
    if name.startswith("cells.") or name in ("layers.dense", "layers.embedding"):
        return [(name, options, params)]
    raise ValueError(f"model: {name} is none of {library}'s")


def _each(parts: list, params: Any, library: str) -> list:
    pairs = zip(parts, params, strict=True)
    return [part for one, p in pairs for part in _flat(one, p, library)]


def _of_model(name: str, options: dict[str, Any]) -> list:
    """What `models.features` and `models.symbols` stack."""
    cells = options["cells"]
    cells = cells if isinstance(cells, list) else [cells]
    between = [dict(call="layers.dropout")] if options.get("dropout") else []
    found = [part for cell in cells for part in (cell, *between)]
    first = [dict(call="layers.embedding")] if name == "models.symbols" else []
    return [*first, *found, dict(call="layers.dense")]


def _by_name(name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names."""
    given = recipe.get("args", []), recipe.get("options", {})
    signature = inspect.signature(recipes.factory(name))
    found = signature.bind_partial(*given[0], **given[1]).arguments
    return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}
