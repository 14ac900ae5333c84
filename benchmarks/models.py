"""Models that see a whole sequence, beside what users would take instead.

python -m benchmarks.models            # writes benchmarks/results/models.json
python -m benchmarks.models --quick    # small ones, writes nothing

Both directions of an LSTM over sequences of different lengths: `wholes.bidirectional`, two
`lax.scan`s, flax's `Bidirectional`, PyTorch's `nn.LSTM` over packed sequences. A decoder that
attends to a memory at each of its steps: `context=`, a `lax.scan` that closes over the memory,
flax's `nn.scan` that is handed it, a loop over steps in PyTorch. The gradient of all weights, of
the inputs and of the memory, of half the sum of squares of the outputs that are real. All agree to
1e-4 before they are timed, in turns in one process; XLA's temporary memory.
"""

import argparse
import gc
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import _clock, _machine
from benchmarks._agree import TOLERANCE
from benchmarks._contestants._contract import compiled
from benchmarks._contestants._scan import lstm
from bptt_jax import InContext, Side, cells, models, unrolls, wholes
from bptt_jax.interop.flax import to_params
from bptt_jax.interop.torch import to_state_dict

RESULTS = pathlib.Path(__file__).parent / "results" / "models.json"
SHAPES = ((32, 128, 64, 128), (64, 256, 128, 256))
QUICK = ((4, 12, 3, 8),)
OURS = "bptt_jax"


class Made(NamedTuple):
    """A gradient that is ready to run.

    gradient: `() -> gradients`, which have come when it returns.
    comparable: `gradients -> those of the data, and the sum of squares of those of all
        weights`, which no layout of weights changes.
    """

    gradient: Callable
    comparable: Callable
    compile_s: float | None = None
    temp_bytes: int | None = None


def by_jax(loss: Callable, params, data) -> Made:
    """Of `loss(params, data)`, with respect to both."""
    program, seconds = compiled(jax.grad(loss, (0, 1)), params, data)

    def comparable(found):
        d_params, d_data = jax.tree.map(np.asarray, found)
        return [*jax.tree.leaves(d_data), _squares(jax.tree.leaves(d_params))]

    return Made(
        lambda: jax.block_until_ready(program(params, data)),
        comparable,
        seconds,
        program.memory_analysis().temp_size_in_bytes,
    )


def by_torch(loss: Callable, weights: list, data: list) -> Made:
    """Of `loss()`, with respect to tensors."""

    def gradient():
        for tensor in (*weights, *data):
            tensor.grad = None
        loss().backward()
        return [a.grad for a in weights], [a.grad for a in data]

    def comparable(found):
        d_weights, d_data = found
        squares = _squares([a.numpy() for a in d_weights])
        return [*(a.numpy() for a in d_data), squares]

    return Made(gradient, comparable)


def _squares(grads: list) -> np.ndarray:
    return np.asarray(sum(np.square(a, dtype=np.float64).sum() for a in grads))


# Both directions.


def lengths_of(B: int, T: int) -> np.ndarray:
    """From a half of the steps to all of them; the longest comes first."""
    return np.linspace(T, (T + 1) // 2, B).astype(np.int32)


def both_directions(B: int, T: int, I: int, H: int) -> dict[str, Callable[[], Made]]:
    xs = np.random.default_rng(1).normal(size=(T, B, I)).astype(np.float32)
    lengths, cell = lengths_of(B, T), cells.lstm(I, H)
    model = models.sections(wholes.bidirectional(cell))
    (pair,) = params = model.init(jax.random.key(0))
    mask = jnp.asarray(np.arange(T)[:, None] < lengths)

    def loss_of(apply):
        def loss(params, xs):
            return 0.5 * (jnp.where(mask[..., None], apply(params, xs), 0) ** 2).sum()

        return loss

    def ours():
        def apply(params, xs):
            carry = model.init_carry(params, (B,))
            return unrolls.bptt(model, params, carry, xs, Side(mask=mask))[1]

        return by_jax(loss_of(apply), params, xs)

    def scan():
        zeros = jnp.zeros((B, H))

        def one(p, xs, real, reverse):
            def step(carry, at):
                x, real = at
                new, h = lstm(p, carry, x)
                kept = jax.tree.map(
                    lambda a, b: jnp.where(real[:, None], a, b), new, carry
                )
                return kept, h

            return lax.scan(step, (zeros, zeros), (xs, real), reverse=reverse)[1]

        def apply(params, xs):
            ends = zip(params, (False, True), strict=True)
            return jnp.concatenate([one(p, xs, mask, end) for p, end in ends], -1)

        return by_jax(loss_of(apply), pair, xs)

    def linen():
        names = ("forward_rnn", "backward_rnn")
        module = nn.Bidirectional(
            *(nn.RNN(nn.OptimizedLSTMCell(H), name=name) for name in names),
            time_major=True,
        )
        theirs = {n: to_params(p, cells=cell) for n, p in zip(names, pair, strict=True)}
        variables = {"params": jax.tree.map(jnp.asarray, theirs)}
        seq_lengths = jnp.asarray(lengths)

        def apply(variables, xs):
            return module.apply(variables, xs, seq_lengths=seq_lengths)

        return by_jax(loss_of(apply), variables, xs)

    def torch_packed():
        import torch
        from torch.nn.utils.rnn import pack_padded_sequence

        torch.set_num_threads(os.cpu_count() or 1)
        module = torch.nn.LSTM(I, H, bidirectional=True)
        ends = zip(("", "_reverse"), pair, strict=True)
        state = {
            f"{name}{end}": torch.tensor(np.asarray(a))
            for end, p in ends
            for name, a in to_state_dict(p, cells=cell).items()
        }
        module.load_state_dict(state)
        data = torch.tensor(xs, requires_grad=True)
        sizes = torch.tensor(lengths, dtype=torch.int64)

        def loss():
            ys = module(pack_padded_sequence(data, sizes))[0].data
            return 0.5 * (ys * ys).sum()

        # It has two biases where the others have one; the second takes no part.
        for name, p in module.named_parameters():
            p.requires_grad_(not name.startswith("bias_hh"))
        weights = [p for p in module.parameters() if p.requires_grad]
        return by_torch(loss, weights, [data])

    return {
        OURS: ours,
        "lax.scan": scan,
        "flax.linen": linen,
        "torch": torch_packed,
    }


# A memory that is the same at all steps.


def decoder_weights(I: int, H: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = dict(w_x=(I, H), w_h=(H, H), query=(H, H), w_r=(H, H))
    return {
        n: (rng.normal(size=s) / math.sqrt(2 * s[0])).astype(np.float32)
        for n, s in sizes.items()
    }


def attending(w, h, x, memory):
    """One step: `[B, H], [B, I], [B, S, H] -> [B, H]`."""
    scores = jnp.einsum("bsh,bh->bs", memory, h @ w["query"])
    weights = jax.nn.softmax(scores / math.sqrt(h.shape[-1]))
    read = jnp.einsum("bs,bsh->bh", weights, memory)
    return jnp.tanh(x @ w["w_x"] + h @ w["w_h"] + read @ w["w_r"])


class Attending(nn.Module):
    """The same as a module of flax."""

    I: int
    H: int

    @nn.compact
    def __call__(self, h, x, memory):
        sizes = {n: a.shape for n, a in decoder_weights(self.I, self.H).items()}
        normal = nn.initializers.lecun_normal()
        w = {n: self.param(n, normal, size) for n, size in sizes.items()}
        h = attending(w, h, x, memory)
        return h, h


def with_context(B: int, T: int, I: int, H: int) -> dict[str, Callable[[], Made]]:
    """As many steps are remembered as are taken."""
    rng = np.random.default_rng(1)
    xs = rng.normal(size=(T, B, I)).astype(np.float32)
    memory = rng.normal(size=(B, T, H)).astype(np.float32)
    w = decoder_weights(I, H)

    def loss_of(apply):
        def loss(w, data):
            return 0.5 * (apply(w, *data) ** 2).sum()

        return loss

    def ours():
        def step(params, h, x):
            own, memory = params
            h = attending(own, h, x, memory)
            return h, h

        cell = cells.from_step(
            step,
            lambda key: InContext(w),
            lambda params, batch: jnp.zeros((*batch, H)),
        )

        def apply(w, xs, memory):
            carry = cell.init_carry(InContext(w), (B,))
            found = unrolls.bptt(cell, InContext(w), carry, xs, context=memory)
            return found[1]

        return by_jax(loss_of(apply), w, (xs, memory))

    def scan():
        def apply(w, xs, memory):
            def step(h, x):
                h = attending(w, h, x, memory)
                return h, h

            return lax.scan(step, jnp.zeros((B, H)), xs)[1]

        return by_jax(loss_of(apply), w, (xs, memory))

    def linen():
        over_time = nn.scan(
            Attending,
            variable_broadcast="params",
            split_rngs=dict(params=False),
            in_axes=(0, nn.broadcast),
        )
        module = over_time(I, H)

        def apply(w, xs, memory):
            return module.apply({"params": w}, jnp.zeros((B, H)), xs, memory)[1]

        return by_jax(loss_of(apply), w, (xs, memory))

    def torch_steps():
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        own = {n: torch.tensor(a, requires_grad=True) for n, a in w.items()}
        data = [torch.tensor(a, requires_grad=True) for a in (xs, memory)]

        def loss():
            xs, memory = data
            h, total = torch.zeros(B, H), torch.zeros(())
            for x in xs:
                scores = torch.einsum("bsh,bh->bs", memory, h @ own["query"])
                read = torch.softmax(scores / math.sqrt(H), -1)
                read = torch.einsum("bs,bsh->bh", read, memory)
                h = torch.tanh(x @ own["w_x"] + h @ own["w_h"] + read @ own["w_r"])
                total = total + 0.5 * (h * h).sum()
            return total

        return by_torch(loss, list(own.values()), data)

    return {
        OURS: ours,
        "lax.scan": scan,
        "flax.linen": linen,
        "torch": torch_steps,
    }


MODELS = {
    "both directions of an LSTM": both_directions,
    "a decoder that attends": with_context,
}


def apart(answer: list, reference: list) -> float:
    """The largest difference of any array, relative to the largest value in it."""
    pairs = zip(answer, reference, strict=True)
    return float(np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in pairs]))


def measured(name: str, shape: tuple, seconds: float) -> dict:
    made = {way: build() for way, build in MODELS[name](*shape).items()}
    answers = {way: one.comparable(one.gradient()) for way, one in made.items()}
    rows = {}
    for way, one in made.items():
        difference = apart(answers[way], answers["lax.scan"])
        if not difference <= TOLERANCE:
            raise AssertionError(f"{name} {shape}: {way} is apart by {difference}")
        rows[way] = dict(
            difference=float(f"{difference:.2g}"),
            compile_s=one.compile_s,
            temp_bytes=one.temp_bytes,
        )
    times = _clock.interleaved({n: one.gradient for n, one in made.items()}, seconds)
    for way, each in times.items():
        rows[way]["gradient_ms"] = _clock.summary(each)
    made.clear()
    gc.collect()
    return dict(model=name, shape=shape, rows=rows)


def ratios(record: dict) -> dict[str, dict]:
    """Of each way how many times slower, and how many times larger, it is than ours."""
    ours = record["rows"][OURS]
    found = {}
    for way, row in record["rows"].items():
        of = found[way] = {
            key: row["gradient_ms"][key] / ours["gradient_ms"][key]
            for key in ("min", "median")
        }
        if row["temp_bytes"]:
            of["memory"] = row["temp_bytes"] / ours["temp_bytes"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models")
    parser.add_argument("--quick", action="store_true", help="small ones")
    parser.add_argument("--seconds", type=float, help="of timing for each")
    parser.add_argument(
        "--patience", type=float, default=120.0, help="for a quiet machine"
    )
    args = parser.parse_args()
    shapes = QUICK if args.quick else SHAPES
    seconds = args.seconds or (0.1 if args.quick else 15.0)
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is measured
    busy = _machine.wait_until_quiet(0.0 if args.quick else args.patience)
    records = []
    for name in MODELS:
        for shape in shapes:
            records.append(measured(name, shape, seconds))
            each = {
                way: {k: round(v, 2) for k, v in of.items()}
                for way, of in ratios(records[-1]).items()
            }
            print(f"{name} {shape}: {each}", flush=True)
    if not args.quick:
        what = dict(busy_before=round(busy, 3), cases=records)
        RESULTS.write_text(json.dumps(_machine.describe("cpu") | what, indent=1) + "\n")


if __name__ == "__main__":
    main()
