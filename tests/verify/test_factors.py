"""Factors that are none of the parameters' are refused by name, where they are summed."""

import jax
import jax.numpy as jnp
import pytest

from bptt_jax import cells, unrolls
from bptt_jax.types import Outer

CELL = cells.elman(3, 4)


def without_bias(of_params):
    return {name: of_params[name] for name in ("w_x", "w_h")}


@pytest.mark.parametrize(
    ("edit", "kind", "message"),
    [
        (
            lambda of: of | dict(b=of["b"].d),
            TypeError,
            r"Outer, Sum, .* for params\['b'\], got",
        ),
        (
            lambda of: of | dict(w_x=Outer(of["w_x"].d, of["w_x"].a)),
            ValueError,
            r"a gradient \[3, 4\] for params\['w_x'\], got \[4, 3\] from its Outer",
        ),
        (
            without_bias,
            ValueError,
            r"a tree like params, .*'b'.*, got PyTreeDef\({'w_h'",
        ),
    ],
    ids=["no factor", "turned", "one is missing"],
)
def test_a_wrong_factor_is_named(edit, kind, message):
    def factors(*arguments):
        of_params, d_xs = CELL.vjp.factors(*arguments)
        return edit(of_params), d_xs

    cell = CELL._replace(vjp=CELL.vjp._replace(factors=factors))
    params, xs = CELL.init(jax.random.key(0)), jnp.ones((5, 2, 3))

    def loss(params):
        return unrolls.bptt(cell, params, CELL.init_carry(params, (2,)), xs)[1].sum()

    with pytest.raises(kind, match=f"(?s)factors: expected .*{message}"):
        jax.grad(loss)(params)
