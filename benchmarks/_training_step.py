"""A whole training step of the README's character model: gradient, clip, Adam.

82 symbols, an embedding of 64, an LSTM of 256, readout, cross-entropy, B = 64, T = 256;
here, here under `remat` and step by step, and the same model in flax.linen, all on optax.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks import _clock
from benchmarks._agree import TOLERANCE
from benchmarks._contestants import OURS, REMAT
from bptt_jax import Side, cells, layers, loops, models, objectives, unrolls
from bptt_jax.interop.flax import to_params

SYMBOLS, EMBEDDING, H, B, T = 82, 64, 256, 64, 256
FLAX = "flax.linen and optax"
STEP_BY_STEP = f"{OURS} step_by_step"
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


def _model():
    cell = cells.lstm(EMBEDDING, H)
    return models.symbols(SYMBOLS, EMBEDDING, (cell,), SYMBOLS, H)


def _ours(wrap: Callable) -> Callable:
    layer = wrap(layers.with_loss(_model(), objectives.softmax_cross_entropy))

    def loss(params, tokens, targets):
        carry, side = layer.init_carry(params, (B,)), Side(targets=targets)
        return unrolls.bptt(layer, params, carry, tokens, side)[1].sum() / (B * T)

    return loss


class Character(nn.Module):
    """The same in flax, as its documentation writes it."""

    @nn.compact
    def __call__(self, tokens):
        xs = nn.Embed(SYMBOLS, EMBEDDING)(tokens)
        hs = nn.RNN(nn.OptimizedLSTMCell(H), time_major=True)(xs)
        return nn.Dense(SYMBOLS)(hs)


def _in_flax(params):
    embedding, lstm, readout = params
    return {
        "params": {
            "Embed_0": embedding,
            "OptimizedLSTMCell_0": to_params(lstm)["cell"],
            "Dense_0": readout,
        }
    }


def _flax_loss(params, tokens, targets):
    logits = Character().apply(params, tokens)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses.mean()


def contestants() -> dict[str, tuple[Callable, object]]:
    """`{name: (loss, parameters)}`, all from the same weights."""
    params = _model().init(jax.random.key(0))
    step_by_step = functools.partial(layers.with_options, loop=loops.step_by_step)
    return {
        OURS: (_ours(lambda layer: layer), params),
        REMAT: (_ours(layers.remat), params),
        STEP_BY_STEP: (_ours(step_by_step), params),
        FLAX: (_flax_loss, jax.tree.map(jnp.asarray, _in_flax(params))),
    }


class _Steps:
    """One step after another, the state's buffers handed on."""

    def __init__(self, loss, params, tokens, targets):
        def step(params, opt_state, tokens, targets):
            value, grads = jax.value_and_grad(loss)(params, tokens, targets)
            updates, opt_state = OPTIMIZER.update(grads, opt_state)
            return optax.apply_updates(params, updates), opt_state, value

        self.batch = tokens, targets
        self.params = jax.tree.map(jnp.copy, params)
        self.opt_state = OPTIMIZER.init(params)
        jitted = jax.jit(step, donate_argnums=(0, 1))
        self.step = jitted.lower(self.params, self.opt_state, *self.batch).compile()

    def __call__(self) -> float:
        self.params, self.opt_state, value = self.step(
            self.params, self.opt_state, *self.batch
        )
        return float(jax.block_until_ready((self.params, value))[1])


def measure(seconds: float) -> dict:
    """Times, temp bytes and the first losses of each; they must agree."""
    rng = np.random.default_rng(2)
    tokens, targets = jnp.asarray(rng.integers(0, SYMBOLS, (2, T, B)))
    steps = {
        name: _Steps(loss, params, tokens, targets)
        for name, (loss, params) in contestants().items()
    }
    losses = {name: [step() for _ in range(4)] for name, step in steps.items()}
    for name, found in losses.items():
        np.testing.assert_allclose(found, losses[FLAX], rtol=TOLERANCE, err_msg=name)
    times = _clock.interleaved(dict(steps), seconds)
    return {
        name: dict(
            step_ms=_clock.summary(times[name]),
            temp_bytes=step.step.memory_analysis().temp_size_in_bytes,
            losses=losses[name],
        )
        for name, step in steps.items()
    }


def ratios(rows: dict) -> dict[str, dict[str, float]]:
    """Time of flax over ours, and our memory over that of flax."""
    base = rows[FLAX]
    return {
        name: dict(
            faster=round(base["step_ms"]["min"] / rows[name]["step_ms"]["min"], 3),
            faster_median=round(
                base["step_ms"]["median"] / rows[name]["step_ms"]["median"], 3
            ),
            memory=round(rows[name]["temp_bytes"] / base["temp_bytes"], 3),
        )
        for name in rows
        if name != FLAX
    }
