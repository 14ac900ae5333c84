"""What a combinator is given: a layer, or a cell in its place."""

from collections.abc import Callable
from typing import Any

from bptt_jax.layers._recurrent import recurrent
from bptt_jax.types import Cell, Layer, Sections, Whole


def lift(layer: Layer | Cell, name: str = "layer", hint: str = "") -> Layer:
    """A cell as the layer that runs it; a layer as it is.

    Args:
      layer: what a user gave.
      name: the argument's, for the error.
      hint: what the error says besides.

    Raises:
      TypeError: it is neither; the message names the argument and what came.

    >>> from bptt_jax import cells, layers
    >>> layers.lift(cells.gru(3, 8)) is layers.recurrent(cells.gru(3, 8))
    True
    """
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, Cell):
        return recurrent(layer)
    if callable(layer) and not hint:
        hint = (
            "; call it if it makes a cell or a layer; models.bidirectional is an unroll of "
            "the whole sequence, and wholes.bidirectional stands in models.sections"
        )
    if isinstance(layer, Sections):
        hint = (
            ", which need the whole sequence; unrolls.bptt, both_modes, checkpointed and "
            "scan run them, and estimators.exact"
        )
    if isinstance(layer, Whole):
        hint = ", which stands between layers: models.sections(layer, whole, layer)"
    raise TypeError(f"{name}: expected a Cell or a Layer, got {_told(layer)}{hint}")


def model_of(model: Any, name: str = "model") -> Layer | Sections:
    """A model of sections as it is, and anything else as `lift` has it."""
    return model if isinstance(model, Sections) else lift(model, name)


def refuse_sections(name: str, model: Any, why: str) -> None:
    """Raises a TypeError by the name of who asks where a model needs the whole sequence.

    Args:
      name: of the function that cannot run it.
      why: what that does, "it hands the state on".
    """
    if isinstance(model, Sections):
        raise TypeError(
            f"{name}: {why}, and models.sections needs the whole sequence; expected a Cell "
            "or a Layer"
        )


def check_objective(objective: Any) -> None:
    """Refuses what is no function of outputs and targets."""
    if not callable(objective):
        raise TypeError(
            "objective: expected a function (ys, targets) -> losses [K, ...], as in "
            f"bptt_jax.objectives, got {_told(objective)}"
        )


def _told(given: Any) -> str:
    if isinstance(given, Sections):
        return "sections"
    if isinstance(given, Callable) and hasattr(given, "__name__"):
        return f"the function {given.__name__}"
    return f"a {type(given).__name__}"
