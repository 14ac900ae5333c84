"""A model whose outputs are the losses of its steps, sections too."""

import jax

from bptt_jax._factory import factory
from bptt_jax.layers._judged import losses_of
from bptt_jax.layers._lift import check_objective, model_of
from bptt_jax.layers._sections import sections
from bptt_jax.layers._with_loss import over_examples, with_loss
from bptt_jax.types import Cell, Layer, Objective, Sections, Whole


@factory
def loss_of(model: Layer | Cell | Sections, objective: Objective) -> Layer | Sections:
    """`with_loss` of a model: of sections that of the last part, with the same parameters."""
    model = model_of(model)
    if isinstance(model, Layer):
        return with_loss(model, objective)
    check_objective(objective)
    *before, last = model.parts
    if isinstance(last, Whole):
        return sections(*before, _judged(last, objective))
    return sections(*before, with_loss(last, objective))


def _judged(whole: Whole, objective: Objective) -> Whole:
    def apply(params, ys, side):
        ys, side = whole.apply(params, ys, side)
        return jax.tree.map(over_examples, losses_of(objective, ys, side)), side

    inner = whole.over
    over = None if inner is None else lambda f: _judged(inner(f), objective)
    return whole._replace(apply=apply, over=over)
