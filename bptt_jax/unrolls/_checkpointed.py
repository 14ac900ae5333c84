"""The exact gradient in bounded memory: what users call. The algorithm: `_revolve.py`."""

import functools

import jax

from bptt_jax import layers
from bptt_jax._factory import is_whole, plain
from bptt_jax.types import Cell, Layer, PyTree, Sections, Side
from bptt_jax.unrolls._bptt import bptt
from bptt_jax.unrolls._door import arrays, lift
from bptt_jax.unrolls._plan import plan
from bptt_jax.unrolls._revolve import revolve
from bptt_jax.unrolls._through import through


def checkpointed(
    layer: Layer | Cell | Sections,
    params: PyTree,
    carry: PyTree,
    xs: PyTree,
    side: Side = Side(),
    *,
    slots: int | None = None,
    memory: int | None = None,
    chunk: int | None = None,
    kept: int = 0,
    offload: bool = False,
    length: int | None = None,
    context: PyTree = (),
) -> tuple[PyTree, PyTree]:
    """Runs a layer through time; its gradient is exact, from at most `slots` states.

    The same values and the same gradient as `unrolls.bptt`, with less memory and more
    time: stretches run forward again, by the schedule that needs the fewest of such
    runs. With n = T/K stretches and m slots they are run (r + 1) n - C(m + r, r - 1) + 1
    times in all, r the least with C(m + r, m) >= n; the backward itself is as in `bptt`.

    Works under `jit`, `grad`, `vmap`, `shard_map`, inside an outer `scan`, and with
    `jax.hessian` (forward over reverse). Reverse over reverse (`jax.grad` of a gradient
    of it) raises a ValueError that says so, `jax.jvp` JAX's TypeError about custom_vjp:
    take `unrolls.both_modes` for either.

    Args:
      layer: a cell, a layer, or `models.sections`, of each layer of which the options are.
        Outputs of all steps weigh more than the states that are
        saved: fold the loss into the layer (`layers.with_loss`).
      params: its parameters.
      carry: the state before the first step, leaves `[..., H]`.
      xs: inputs, leaves `[T, ..., I]`; None: no inputs, with `length`.
      side: masks, resets, keys, targets; see `Side`.
      slots: states that are stored, m, the first one included; None: all where they
        weigh little beside one stretch, otherwise as many that no stretch runs more than
        three times (`≈ √(2n)`).
      memory: bytes of temporary memory for the gradient, in place of `slots` and `kept`:
        they and `chunk`, and whether gates are kept, are then those of `plan`. Under
        `vmap` it is that of one example.
      chunk: steps of a stretch, K; None: about √T.
      kept: stretches, the last ones, of which all that their backward needs is stored,
        as `bptt` does for all: they do not run again. Worth its memory once all states
        before the others have a slot.
      offload: whether the slots are in the memory of the host, where that is another than
        the device's (GPU, TPU).
      length: the number of steps, where `xs` is None.
      context: as of `bptt`.

    Returns:
      The state after the last step, and the outputs `[T, ..., O]`.

    Raises:
      ValueError, TypeError: an argument does not fit; the message names it.

    Cost: memory of m + 1 states, what is kept, and that of one stretch of `bptt`; time as
    above, of the n - `kept` stretches that run again.

    Griewank, Walther (2000), "Algorithm 799: revolve"; Gruslys, Munos, Danihelka,
    Lanctot, Graves (2016), "Memory-efficient backpropagation through time": HSM over
    stretches, and in place of MSM what decision 0007 says.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import Side, cells, layers, objectives, unrolls
    >>> layer = layers.with_loss(layers.recurrent(cells.lstm(1, 4)),
    ...                          objectives.squared_error)
    >>> params = layer.init(jax.random.key(0))
    >>> def loss(params, xs, targets):
    ...     carry, side = layer.init_carry(params, (2,)), Side(targets=targets)
    ...     return unrolls.checkpointed(layer, params, carry, xs, side, slots=3)[1].mean()
    >>> grads = jax.grad(loss)(params, jnp.ones((500, 2, 1)), jnp.ones((500, 2, 4)))
    """
    for name, value in dict(slots=slots, chunk=chunk).items():
        if value is not None and (not is_whole(value) or value < 1):
            raise ValueError(
                f"{name}: expected a number of at least 1, or None, got {value!r}"
            )
    if not is_whole(kept) or kept < 0:
        raise ValueError(f"kept: expected a number of stretches, got {kept!r}")
    slots, chunk, kept = plain((slots, chunk, kept))
    if offload:
        _check_host_memory()
    params = layers.with_context(params, context)
    if isinstance(layer, Sections):
        if memory is not None:
            raise ValueError(
                "memory: expected None with models.sections, whose layers are run one by one; "
                f"give slots, got {memory!r}"
            )
        options = dict(slots=slots, chunk=chunk, kept=kept, offload=offload)
        run = functools.partial(checkpointed, **options)
        return through(run, layer, params, carry, xs, side, length)[0]
    if memory is not None:
        if slots is not None or kept:
            raise ValueError(
                f"memory: expected None where slots or kept are given, got {memory!r}"
            )
        at = arrays(params, carry, xs, side, length)
        found = plan(layer, *at, memory=memory, chunk=chunk)
        chunk, slots, kept = found.chunk, found.slots, found.kept
        if found.save is not None:
            layer = layers.settled(lift(layer), found.save)
        if kept == found.stretches:
            return bptt(layer, params, carry, xs, side, length=length, chunk=chunk)
    return revolve(
        layer, params, carry, xs, side,
        length=length, chunk=chunk, slots=slots, kept=kept, offload=offload,
    )  # fmt: skip


def _check_host_memory() -> None:
    device = jax.devices()[0]
    kinds = [memory.kind for memory in device.addressable_memories()]
    if device.platform == "cpu" or "pinned_host" not in kinds:
        raise ValueError(
            "offload: expected a device with memory of its own beside the host's (its "
            f"kind pinned_host), got {device.platform} with {', '.join(kinds)}"
        )
