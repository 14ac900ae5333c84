"""Models and batches to look at, and the same in plain loops that share no code with us."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bptt_jax import Batch, Side, cells, layers
from support.gradients import initial

T, B, I, H, O = 7, 2, 3, 4, 2


def plain(n_hidden: int = H):
    """A cell from a step, whose output is no part of its state."""

    def step(p, h, x):
        h = jnp.tanh(x @ p["w"] + h @ p["v"])
        return h, h * 2 + 1

    def init(key):
        w, v = jax.random.normal(key, (2, n_hidden, n_hidden), jnp.float64)
        return dict(w=w[:I], v=0.7 * v)

    def init_carry(p, batch_shape):
        return jnp.zeros((*batch_shape, n_hidden), p["w"].dtype)

    return cells.from_step(step, init, init_carry, output=None)


@functools.cache
def cell(name: str):
    make = dict(lstm=cells.lstm, gru=cells.gru, elman=cells.elman)
    if name == "from_step":
        return plain()
    return make[name](I, H, param_dtype=jnp.float64)


@functools.cache
def model(name: str = "lstm"):
    """A recurrent layer, a dense one, and a GRU with a residual connection."""
    above = cells.gru(H, H, param_dtype=jnp.float64)
    return layers.stack(
        layers.recurrent(cell(name)),
        layers.remat(layers.residual(layers.recurrent(above))),
        layers.dense(H, O, param_dtype=jnp.float64),
    )


def params_of(layer, seed=1):
    with jax.numpy_dtype_promotion("standard"):
        return initial(layer, (0, seed))


def batch(ragged: bool = False, steps: int = T, examples: int = B, seed=0) -> Batch:
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=(steps, examples, I))
    side = Side(targets=rng.normal(size=(steps, examples, O)))
    if ragged:
        mask, resets = np.ones((2, steps, examples), bool)
        mask[-2:, 0] = False
        resets = rng.random((steps, examples)) < 0.3
        xs[-2:, 0] = np.nan
        side = side._replace(mask=mask, resets=resets)
    return Batch(xs, side)


def zeros_after(name: str, params, batch: Batch):
    """Zeros to add to each state of `model(name)` after each step: `[T]` of carries."""
    examples = batch.inputs.shape[1]
    one = model(name).init_carry(params, (examples,))[:2]
    return [jax.tree.map(jnp.zeros_like, one) for _ in batch.inputs]


def losses_of_loop(name: str, params, batch: Batch, added) -> list[jax.Array]:
    """The losses of `model(name)`, a sum over the examples at each step, by a loop in
    Python, with zeros added to the states.
    """
    below, above = cell(name), cells.gru(H, H, param_dtype=jnp.float64)
    first, second = model(name).init_carry(params, (batch.inputs.shape[1],))[:2]
    losses = []
    for t, zeros in enumerate(added):
        real = jnp.ones(batch.inputs.shape[1], bool)
        real = real if batch.side.mask is None else batch.side.mask[t]
        x = jnp.where(real[:, None], batch.inputs[t], 0.0)
        first, y = _one(below, params[0], first, x, batch.side, t, real, zeros[0])
        second, z = _one(above, params[1], second, y, batch.side, t, real, zeros[1])
        clean = jnp.where(real[:, None], y, 0.0)  # of the residual connection
        out = (clean + z) @ params[2]["kernel"] + params[2]["bias"]
        each = ((out - batch.side.targets[t]) ** 2).sum(-1)
        losses.append(jnp.where(real, each, 0.0).sum())
    return losses


def real_steps(batch: Batch) -> float:
    shape = batch.inputs.shape[:2]
    return float(np.size(np.empty(shape)) if batch.side.mask is None
                 else np.asarray(batch.side.mask).sum())  # fmt: skip


def _one(cell, params, state, x, side, t, real, zeros):
    """A step, held where it is not real, begun anew where it is reset."""
    pick = lambda flag, a, b: jax.tree.map(
        lambda a, b: jnp.where(flag[:, None], a, b), a, b
    )
    if side.resets is not None:
        fresh = cell.init_carry(params, real.shape)
        state = pick(side.resets[t], fresh, state)
    after, y = cell.step(params, state, x)
    after = jax.tree.map(jnp.add, pick(real, after, state), zeros)
    y = cell.output(after) if cell.output else jnp.where(real[:, None], y, 0.0)
    return after, y
