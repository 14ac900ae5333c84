"""Stretches of a cell as kernels are given them: program, arguments, and what is right."""

import functools

import jax
import numpy as np

from bptt_jax import cells, layers, loops
from bptt_jax.loops import _native
from bptt_jax.native import Counts, Kinds, NativeStep, flat
from support import frames
from support.gradients import error

CELLS = {
    "lstm": cells.lstm,
    "gru": cells.gru,
    "gru, reset before": functools.partial(cells.gru, reset_after=False),
    "elman": cells.elman,
    "relu": functools.partial(cells.elman, activation=jax.nn.relu),
}


class Made:
    """A stretch of a cell each way: program, kernel, arguments, and what it should give."""

    def __init__(
        self,
        cell,
        batch: tuple[int, ...],
        T: int,
        reverse: bool,
        dtype=np.float32,
        scale: float = 1.0,
    ):
        rng = np.random.default_rng(5)
        draw = lambda a: rng.normal(size=a.shape).astype(dtype)
        params = jax.eval_shape(cell.init, jax.random.key(0))
        params = jax.tree.map(lambda a: draw(a) * dtype(scale), params)
        carry = jax.tree.map(
            draw, jax.eval_shape(lambda p: cell.init_carry(p, batch), params)
        )
        inputs = rng.normal(size=(T, *batch, 3)).astype(dtype)
        plain = loops.step_by_step
        forward = lambda p, c, xs: plain.forward(cell, p, c, xs, all_of, T)
        lags, xs, step = (), inputs, _native._step(cell, all_of)
        after, ys, nexts = wanted = jax.jit(forward)(params, carry, inputs)
        wanted = after, (ys, nexts), ()
        if reverse:
            step = _native._step_back(cell, layers.STATES)
            d_carry, d_ys = jax.tree.map(draw, (after, ys))
            xs = jax.tree.map(np.asarray, (nexts, inputs, (), d_ys))
            back = jax.jit(functools.partial(plain.backward, cell, layers.STATES))
            d_params, d_before, d_inputs = back(
                params, inputs, carry, nexts, (), d_carry, d_ys
            )
            wanted = d_before, d_inputs, d_params
            lags, carry = carry, d_carry
        at = jax.tree.map(lambda a: a[0], xs)
        program = jax.make_jaxpr(step)(params, carry, lags, at)
        p, c, l, x = (jax.tree.leaves(tree) for tree in (params, carry, lags, xs))
        self.sums = len(jax.tree.leaves(wanted[2]))
        counts = Counts(len(p), len(c), len(l), self.sums)
        self.step = NativeStep(flat(program), Kinds(counts, len(batch), reverse))
        self.params = p
        self.arguments = [np.asarray(a) for a in (*self.step.extras(p), *c, *x, *l)]
        self.wanted = [np.asarray(a) for a in jax.tree.leaves(wanted)]
        self.rows, self.steps = int(np.prod(batch)), T
        self.text = self.step.text([False] * len(self.arguments))

    @property
    def results(self) -> list:
        """Arrays like those that the kernel writes."""
        along = self.wanted[: len(self.wanted) - self.sums]
        return [*along, *[np.zeros(self.step.n_sums, along[0].dtype)] * bool(self.sums)]

    def run(self, text=None, pool=None, runtime=None, arguments=None, beside=False):
        """What the kernel gives, with its sums as gradients, and whether all guards are whole."""
        found, whole = frames.call(
            frames.entry(text or self.text, runtime),
            arguments or self.arguments,
            self.results,
            rows=self.rows,
            steps=self.steps,
            pool=pool,
            beside=beside,
        )
        if self.sums:
            *found, last = found
            found += map(np.asarray, self.step.of_sums(self.params, last, self.steps))
        return found, whole

    def is_right(self, found, within: float = 1e-5) -> bool:
        pairs = zip(found, self.wanted, strict=True)
        return all(error(a, b) < within for a, b in pairs)


def all_of(params, carry, u, gates, after):
    del params, carry, u, gates
    return after


@functools.cache
def made(name: str, batch, T: int, reverse: bool, hidden: int = 21) -> Made:
    return Made(CELLS[name](3, hidden), batch, T, reverse)
