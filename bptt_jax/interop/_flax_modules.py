"""What a module of `flax.linen` (bound) or `flax.nnx` computes, as recurrent cells.

Whatever would make its outputs other than those of a network of `weights` is refused by
name. The parameters of a cell and the functions in it are read as `interop.linen` and
`interop.nnx` read them.
"""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bptt_jax.interop import _flax

ROOMS = {"flax.linen.module": "linen", "flax.nnx.module": "nnx"}


def room_of(source: Any) -> str | None:
    """The half of flax that a module is of; None: it is none."""
    kinds = (kind.__module__ for kind in type(source).__mro__)
    return next((ROOMS[kind] for kind in kinds if kind in ROOMS), None)


def network_of(source: Any) -> tuple[list[list[dict]], list[list[Callable]]]:
    """Params and activations, in layers of directions.

    Raises:
      ValueError: an option that a network of ours does not have, a module that is not
        flax's own, or no variables.
    """
    room = room_of(source)
    if room == "linen" and source.scope is None:
        raise ValueError(
            "source: a module of flax.linen has no variables of its own; expected "
            "them, or module.bind(variables)"
        )
    found = _layers(source)
    if len({time_major for _, time_major in found} - {None}) > 1:
        raise ValueError("source: expected the same time_major in all layers")
    each = [[_cell(cell, room) for cell in cells] for cells, _ in found]
    return [[p for p, _ in of] for of in each], [[phi for _, phi in of] for of in each]


def _name(thing: Any) -> str:
    """The name of a class of flax itself, or of ours that stand for it."""
    kind = type(thing)
    known = ("flax.linen.", "flax.nnx.", "bptt_jax.interop.")
    own = kind.__module__.startswith(known)
    return kind.__name__ if own else f"{kind.__module__}.{kind.__name__}"


def _layers(module: Any) -> list[tuple[list[Any], bool | None]]:
    """The cells of each layer, and where its time is."""
    name = _name(module)
    if name == "Sequential":
        return [layer for inner in module.layers for layer in _layers(inner)]
    if name == "RNN":
        if module.reverse:
            raise ValueError("RNN: expected reverse=False, got True")
        return [([module.cell], module.time_major)]
    if name == "Bidirectional":
        merge, usual = module.merge_fn, type(module).merge_fn
        if merge is not usual:
            raise ValueError(
                "Bidirectional: expected the merge_fn that concatenates, got "
                f"{getattr(merge, '__name__', merge)}"
            )
        both = [module.forward_rnn, module.backward_rnn]
        for rnn in both:
            if _name(rnn) != "RNN":
                raise ValueError(f"Bidirectional: expected two RNN, got {_name(rnn)}")
        return [([rnn.cell for rnn in both], module.time_major)]
    if name.endswith("Cell") and "." not in name:
        return [([module], None)]
    raise ValueError(
        f"source: expected a cell, RNN, Bidirectional or Sequential of them, got {name}"
    )


def _cell(cell: Any, room: str | None) -> tuple[dict, Callable]:
    """The parameters of a cell as ours, and its activation."""
    name = _name(cell)
    of = importlib.import_module(f"bptt_jax.interop.{room}")
    theirs = of.params_of(cell)
    if theirs is None:
        raise ValueError(
            f"source: expected one of {', '.join(k.__name__ for k in of.CELLS)} with its "
            f"own parameters, got {name}"
        )
    _check(cell, name)
    dtype = jnp.result_type(*jax.tree.leaves(theirs))
    if cell.dtype is not None and cell.dtype != dtype:
        raise ValueError(
            f"{name}: expected a computation in {dtype}, the dtype of its parameters, "
            f"got dtype={jnp.dtype(cell.dtype)}"
        )
    known = of.known_cell(cell, theirs, dtype)
    if known is None:
        raise ValueError(f"{name}: expected {_wanted(cell)}, got {_functions(cell)}")
    return known.params, _flax.known_function(cell.activation_fn) or jnp.tanh


def _check(cell: Any, name: str) -> None:
    if not getattr(cell, "reset_gate", True):
        raise ValueError(f"{name}: expected reset_gate=True, got False")
    carry_init = getattr(cell, "carry_init", None)
    if carry_init not in (None, jax.nn.initializers.zeros):
        raise ValueError(
            f"{name}: expected the carry_init that makes zeros; here the carry is given"
        )


def _wanted(cell: Any) -> str:
    if not hasattr(cell, "gate_fn"):
        return "an activation_fn of tanh, relu and sigmoid"
    return "gate_fn sigmoid and activation_fn tanh"


def _functions(cell: Any) -> str:
    functions = (getattr(cell, f"{f}_fn", None) for f in ("gate", "activation"))
    return " and ".join(getattr(f, "__name__", str(f)) for f in functions if f)
