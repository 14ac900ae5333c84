"""`unrolls.plan`: what it predicts is what XLA takes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, cells, layers, objectives, unrolls
from bptt_jax._jax import enable_x64
from support import xla
from support.compiled import hlo_as_users
from support.step_by_step import step_by_step  # noqa: F401

pytestmark = hlo_as_users

S = jax.ShapeDtypeStruct


@pytest.fixture(autouse=True, scope="module")
def float32():
    with enable_x64(False):
        yield


def setting(make, B, T, I, H, folded):
    """Layer, params, carry, xs, side, as shapes."""
    layer, side = layers.recurrent(make(I, H)), Side()
    if folded:
        layer = layers.with_loss(layer, objectives.squared_error)
        side = Side(targets=S((T, B, H), jnp.float32))
    params = jax.eval_shape(layer.init, jax.random.key(0))
    carry = jax.eval_shape(lambda p: layer.init_carry(p, (B,)), params)
    return layer, params, carry, S((T, B, I), jnp.float32), side


def temp(layer, params, carry, xs, side, unroll) -> int:
    def loss(params, carry, xs, side):
        return sum((a * a).sum() for a in jax.tree.leaves(
            unroll(layer, params, carry, xs, side)))  # fmt: skip

    program = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    program = program.lower(params, carry, xs, side).compile()
    return program.memory_analysis().temp_size_in_bytes


SHAPES = [
    (cells.elman, 1, 3000, 16, 16, False),
    (cells.lstm, 32, 500, 16, 64, True),
    (cells.gru, 8, 777, 16, 64, True),
    (cells.lstm, 8, 777, 4, 128, False),
    (cells.lstm, 1, 10_000, 16, 128, True),
    (cells.gru, 32, 1000, 64, 32, False),
]


FAST = {(0, 1.05), (0, 50), (3, 8)}


def _tier(i, j, tightness) -> list:
    """Every shape and tightness is in the slow tier, in turns; all pairs in release."""
    if (i, tightness) in FAST:
        return []
    return [pytest.mark.release if (i + j) % 2 else pytest.mark.slow]


@pytest.mark.parametrize(
    ("shape", "tightness"),
    [
        pytest.param(shape, tightness, marks=_tier(i, j, tightness))
        for i, shape in enumerate(SHAPES)
        for j, tightness in enumerate((1.05, 1.5, 8, 50))
    ],
)
def test_predicted_bytes_are_those_of_xla(shape, tightness):
    at = setting(*shape)
    memory = int(tightness * least(at))
    found = unrolls.plan(*at, memory=memory)
    assert found.bytes <= memory
    taken = temp(*at, functools.partial(unrolls.checkpointed, memory=memory))
    _, B, T, _, H, _ = shape
    copies = xla.COPIES * 4 * T * B * H
    assert found.bytes <= 1.15 * taken
    assert 0.85 * taken <= found.bytes + copies
    assert taken <= 1.02 * memory + 10_000 + copies


def least(at) -> int:
    with pytest.raises(ValueError, match="memory: expected at least") as error:
        unrolls.plan(*at, memory=1)
    return int(re.search(r"at least (\d+) bytes", str(error.value))[1])


def test_the_least_budget_works_and_one_byte_less_does_not():
    at = setting(*SHAPES[1])
    memory = least(at)
    assert unrolls.plan(*at, memory=memory).slots == 1
    with pytest.raises(ValueError, match=f"at least {memory} bytes, got {memory - 1}"):
        unrolls.plan(*at, memory=memory - 1)


def test_more_memory_is_less_to_run_again():
    at = setting(*SHAPES[1])
    tight, some, more = (
        unrolls.plan(*at, memory=int(f * least(at))) for f in (1, 8, 50)
    )
    assert tight.recomputation > 10
    assert 2 < some.recomputation < 4
    assert some.kept == 0
    assert 0 < more.kept < more.stretches
    assert more.slots + more.kept == more.stretches
    assert 1 < more.recomputation < 2


def test_bptt_itself_runs_where_it_fits():
    at = setting(*SHAPES[1])
    found = unrolls.plan(*at, memory=200 * least(at))
    assert (found.kept, found.recomputation) == (found.stretches, 1)
    taken = temp(*at, functools.partial(unrolls.bptt, chunk=found.chunk))
    assert found.bytes == pytest.approx(taken, rel=1e-3)


def test_arrays_and_shapes_give_one_plan_and_it_prints_as_a_table():
    layer, *shapes = setting(cells.elman, 2, 100, 3, 8, False)
    arrays = _zeros(shapes)
    found = unrolls.plan(layer, *arrays, memory=10**6)
    assert found == unrolls.plan(layer, *shapes, memory=10**6)
    lines = str(found).splitlines()
    assert len(lines) == 8
    assert len({len(line) for line in lines}) == 1
    assert f"{found.slots}" in lines[2]


def test_states_alone_are_kept_where_there_is_no_room_for_gates():
    """And the plan says so; what it predicts is what XLA takes."""
    layer, *shapes = setting(cells.lstm, 8, 400, 64, 128, True)
    whole = functools.partial(unrolls.bptt, chunk=20)
    lean = layers.with_options(layer, save=layers.STATES)
    room = temp(lean, *shapes, whole)
    assert room < 0.7 * temp(layer, *shapes, whole)
    room = int(1.01 * room)
    found = unrolls.plan(layer, *shapes, memory=room, chunk=20)
    assert (found.save, found.kept) == (layers.STATES, found.stretches)
    by_memory = functools.partial(unrolls.checkpointed, memory=room, chunk=20)
    assert temp(layer, *shapes, by_memory) <= room
    assert found.bytes == pytest.approx(room, rel=0.02)
    assert unrolls.plan(layer, *shapes, memory=2 * room).save is None
    assert unrolls.plan(lean, *shapes, memory=room).save is None  # it says so itself


def test_checkpointed_takes_a_number_of_bytes():
    layer, *shapes = setting(cells.elman, 4, 200, 3, 16, False)
    memory = int(1.1 * least((layer, *shapes)))
    plan = unrolls.plan(layer, *shapes, memory=memory)
    by_memory = functools.partial(unrolls.checkpointed, memory=memory)
    by_plan = functools.partial(
        unrolls.checkpointed, chunk=plan.chunk, slots=plan.slots, kept=plan.kept
    )
    assert temp(layer, *shapes, by_memory) == temp(layer, *shapes, by_plan)
    with pytest.raises(ValueError, match="memory: expected at least"):
        unrolls.checkpointed(layer, *_zeros(shapes), memory=1)
    for stored in (dict(slots=2), dict(kept=1)):
        with pytest.raises(ValueError, match="memory: expected None where slots"):
            unrolls.checkpointed(layer, *_zeros(shapes), memory=memory, **stored)


def _zeros(shapes):
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)


def test_no_inputs():
    def free(w, h, x):
        h = jnp.tanh(w * h)
        return h, h

    cell = cells.from_step(
        free, lambda key: jnp.ones(8), lambda w, b: jnp.ones((*b, 8))
    )
    params = cell.init(jax.random.key(0))
    at = cell, params, cell.init_carry(params, (3,)), None
    found = unrolls.plan(*at, memory=10**6, length=200)
    assert found.chunk * found.stretches == 200
    with pytest.raises(ValueError, match="xs: got None, so length="):
        unrolls.plan(*at, memory=10**6)


@pytest.mark.parametrize("memory", [0, 1.5e6, "1GB"])
def test_a_senseless_number_of_bytes_is_named(memory):
    at = setting(cells.elman, 2, 10, 3, 4, False)
    with pytest.raises(ValueError, match="memory: expected a number of bytes, got"):
        unrolls.plan(*at, memory=memory)


def test_a_senseless_chunk_is_named():
    at = setting(cells.elman, 2, 10, 3, 4, False)
    with pytest.raises(ValueError, match="chunk: expected a number of steps"):
        unrolls.plan(*at, memory=10**6, chunk=0)
