"""`unrolls.checkpointed`: the schedule is the optimal one, and no more is stored."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, loops, unrolls
from bptt_jax._jax import enable_x64
from bptt_jax.layers import recurrent
from bptt_jax.types import Cell, Side
from bptt_jax.unrolls import _schedule as schedule
from bptt_jax.unrolls._revolve import default_slots, revolve
from support import tiers
from support.compiled import hlo_as_users
from support.gradients import (
    QUICK,
    Case,
    arguments_of,
    gradients,
    of_unrolls,
    quick_jit,
    worst,
)
from support.members import CELLS, LAYERS, Member
from support.reference import AS_REFERENCE, reference_jit

# The schedule by itself


@functools.cache
def least(t: int, m: int) -> int:
    """Evaluations by dynamic programming (Gruslys et al. 2016, HSM)."""
    if m == 1:
        return t * (t + 1) // 2
    if m >= t:
        return 2 * t - 1
    return min(y + least(t - y, m - 1) + least(y, m) for y in range(1, t))


SIZES = [(t, m) for t in range(1, 65) for m in range(1, 13)]


def test_the_closed_form_is_that_of_dynamic_programming():
    assert all(schedule.evaluations(t, m) == least(t, m) for t, m in SIZES)


@pytest.mark.parametrize(
    ("t", "m", "evaluations"),
    [(10, 3, 25), (10, 20, 19), (100, 5, 416), (100, 64, 234), (1000, 1, 500500)],
)
def test_known_numbers(t, m, evaluations):
    assert schedule.evaluations(t, m) == evaluations


@pytest.mark.parametrize("m", range(2, 13))
def test_splits_give_the_least(m, monkeypatch):
    """Pulled back as they say, no number of steps takes more than the closed form."""
    monkeypatch.setattr(schedule, "jnp", np)  # thousands of them, one by one
    table = schedule.table(64, m)

    @functools.cache
    def taken(t, s):
        if t == 1 or s == 1:
            return t * (t + 1) // 2
        y = int(schedule.split(table, t, s))
        assert 1 <= y < t
        return y + taken(t - y, s - 1) + taken(y, s)

    assert all(taken(t, m) == least(t, m) for t in range(1, 65))


def test_the_table_is_small():
    """It is a constant of the program."""
    assert schedule.table(10**6, 1).size == 4
    assert schedule.table(10**6, 10).size < 500
    assert schedule.table(10**6, 2).size < 5000
    assert schedule.table(10**4, 10**4).size < 3 * 10**4 + 3


# What runs


class Count:
    def __init__(self):
        self.of = dict(forward=0, linearize=0)

    def __call__(self, name, steps=1):
        def add(_):
            self.of[name] += steps

        return lambda a: jax.debug.callback(add, a)


def counting(count: Count) -> Cell:
    """h_t = tanh(w h_{t-1} + x_t), each unit by itself."""

    def forward(w, h, u):
        count("forward")(h.sum())
        h = jnp.tanh(w * h + u)
        return h, h

    def linearize(w, hs, us, nexts):
        count("linearize", hs.shape[0])(hs.sum())
        return 1 - nexts * nexts

    def backward(w, slope, d_h, d_y):
        d_a = (d_h + d_y) * slope
        return d_a * w, d_a

    def contract(w, xs, hs, slopes, d_as):
        return (hs * d_as).sum(0), d_as

    return cells.from_parts(
        lambda key: jnp.full(2, 0.9), lambda w, batch: jnp.zeros((*batch, 2)),
        project=lambda w, xs: xs, forward=forward, linearize=linearize,
        backward=backward, contract=contract, output=lambda h: h,
    )  # fmt: skip


def count_of(t: int, m: int, chunk: int, kept: int = 0) -> dict:
    count = Count()
    cell = counting(count)
    run = functools.partial(unrolls.checkpointed, slots=m, chunk=chunk, kept=kept)

    def loss(w, h, xs):
        return run(cell, w, h, xs)[0].sum()

    arguments = jnp.full(2, 0.9), jnp.zeros(2), jnp.ones((t, 2))
    jax.block_until_ready(quick_jit(jax.grad(loss))(*arguments))
    jax.effects_barrier()
    return count.of


SOME = [(1, 1), (2, 1), (2, 2), (7, 2), (10, 3), (37, 4), (64, 12)]
LARGE = [(100, 5), (323, 7), (1000, 50)]
LARGER = [(100, 10), (1000, 3)]


@pytest.mark.parametrize(
    ("t", "m"),
    [
        *SOME,
        *(pytest.param(*size, marks=pytest.mark.slow) for size in LARGE),
        *(
            pytest.param(*size, marks=pytest.mark.release)
            for size in (*LARGER, *SIZES)
            if size not in SOME
        ),
    ],
)
def test_steps_run_as_often_as_the_closed_form_says(t, m):
    """Once more than it: the forward pass also has to return the last output."""
    assert count_of(t, m, 1) == dict(forward=least(t, m) + 1, linearize=t)


@pytest.mark.parametrize(("t", "m"), [(5, 2), (8, 3)])
def test_stretches_run_as_often(t, m):
    found = count_of(4 * t, m, 4)
    assert found == dict(forward=4 * (least(t, m) + 1), linearize=4 * t)


def test_a_shorter_stretch_at_the_end_runs_once():
    found = count_of(4 * 5 + 3, 2, 4)
    assert found == dict(forward=4 * (least(5, 2) + 1) + 3, linearize=23)


@pytest.mark.parametrize(("t", "m", "kept"), [(8, 3, 2), (8, 7, 1), (5, 2, 9)])
def test_what_is_kept_does_not_run_again(t, m, kept):
    found, again = count_of(2 * t + 1, m, 2, kept), max(1, t - kept)
    runs = 2 * (least(again, m) + 1 + t - again) + 1
    assert found == dict(forward=runs, linearize=2 * t + 1)


def mixed(t: int, units: int, of_internal: int) -> np.ndarray:
    """Evaluations `[t + 1, units + 1]` by dynamic programming (Gruslys et al., MSM).

    A hidden state takes one unit, all that a step's backward needs `of_internal`.
    """
    least = np.full((t + 1, units + 1), np.inf)
    least[0] = 0
    for m in range(1, units + 1):
        for n in range(1, t + 1):
            ys, internal = np.arange(1, n + 1), np.inf
            hidden = ys[:-1] + least[ys[:-1], m] + least[n - ys[:-1], m - 1]
            if m > of_internal:
                after = least[n - ys, m - of_internal]
                internal = (ys + least[ys - 1, m] + after).min()
            elif m == of_internal:
                internal = n + least[n - 1, m]
            only_start = n * (n + 1) / 2
            least[n, m] = min(only_start, internal, hidden.min(initial=np.inf))
    return least


@pytest.mark.parametrize(
    ("alpha", "of", "t", "m"), [(1, "ISM", 10, 4), (20, "HSM", 10, 4)]
)
def test_mixed_states_are_between_the_two_others(alpha, of, t, m):
    known = {"ISM": 16, "HSM": 24}
    assert mixed(t, m, alpha)[t, m] == known[of]


@pytest.mark.parametrize(("of_internal", "limit"), [(2, 1.06), (4, 1.13)])
def test_stretches_do_as_well_as_mixed_states(of_internal, limit):
    """With bytes for a tenth of the steps or more; see decision 0007."""
    t = 120
    table = mixed(t, 2 * t, of_internal)
    for units in (12, 24, 60, 120, 180, 240):
        ours = by_stretches(t, units, of_internal)
        assert ours + 2 * t <= limit * (table[t, units] + 2 * t)


def by_stretches(t: int, units: int, of_internal: int) -> float:
    """The fewest steps run forward, of all stretches, slots and numbers of kept ones."""
    found = [math.inf]
    for K in (k for k in range(1, t + 1) if t % k == 0):
        n, beside = t // K, K * (of_internal - 1)  # beside the state before a stretch
        for kept in range(n):
            m = min(units - beside * max(1, kept), n) - kept
            if m >= 1 and (kept == 0 or m == n - kept):
                found.append(K * (schedule.evaluations(n - kept, m) + kept))
        if n * (beside + 1) <= units:
            found.append(t)
    return min(found)


# Gradients


@functools.cache
def elman(steps: int):
    member = CELLS["elman"]
    cell = member.make()
    return cell, arguments_of(member, cell, Case(steps, (2,), "both", ()))


@functools.cache
def by_scan(steps: int):
    return gradients(*elman(steps), unrolls.scan, compiler_options=QUICK)


STORED = (
    *(dict(slots=m) for m in (1, 2, 3, 50, None)),
    dict(slots=2, kept=1),
    dict(kept=2),
    dict(slots=1, kept=50),
)
LENGTHS = ((1, 1), (11, 1), (11, 3), (12, 3), (5, 9))


def _tier(i, j) -> list:
    """Each way of storing meets every length, the fast tier has each of both once."""
    turn = (i + j) % len(LENGTHS)
    if turn == 0:
        return []
    return [pytest.mark.slow if turn == 2 else pytest.mark.release]


@pytest.mark.parametrize(
    ("stored", "steps", "chunk"),
    [
        pytest.param(stored, *length, marks=_tier(i, j))
        for i, stored in enumerate(STORED)
        for j, length in enumerate(LENGTHS)
    ],
    ids=str,
)
def test_any_length_chunk_and_slots(stored, steps, chunk):
    run = functools.partial(unrolls.checkpointed, chunk=chunk, **stored)
    found = gradients(*elman(steps), run, compiler_options=QUICK)
    assert worst(found, by_scan(steps))[0] <= 1e-12


@pytest.mark.parametrize(
    "name",
    [*tiers.cells(()), *tiers.layers()],
)
def test_every_cell_and_layer(name):
    member = (CELLS | LAYERS)[name]
    layer = member.make()
    at = arguments_of(member, layer, Case(7, (2,), "both", ()))
    with loops.preferred(loops.step_by_step):  # kernels of each are in `test_gradients`
        assert off(layer, at, IN_TWO) <= 1e-10


IN_TWO = functools.partial(unrolls.checkpointed, chunk=2, slots=2)


def off(layer, at, unroll) -> float:
    """The largest error against the plain loop."""
    arms = unroll, unrolls.scan
    return worst(*of_unrolls(layer, at, *arms, compiler_options=AS_REFERENCE))[0]


def test_slots_on_the_host():
    """What runs where the device has a memory of its own: it changes no value."""
    member = CELLS["elman"]
    layer = recurrent(member.make())
    at = arguments_of(member, layer, Case(11, (2,), "both", ()))
    run = functools.partial(revolve, chunk=2, slots=2, kept=1, offload=True)
    assert off(layer, at, run) <= 1e-10


def test_a_loss_in_the_loop_and_integer_inputs():
    member = LAYERS["character model"]
    layer = member.make()
    at = arguments_of(member, layer, Case(7, (2,), "mask", ()))
    assert off(layer, at, IN_TWO) <= 1e-10


def test_no_inputs():
    cell = counting(Count())
    member = Member(lambda: cell, lambda key, T, batch: jnp.zeros((T, *batch, 2)))
    at = arguments_of(member, cell, Case(7, (), "plain", ()))
    assert off(cell, at, IN_TWO) <= 1e-12
    carry, _ = unrolls.checkpointed(
        cells.from_step(_free, lambda key: jnp.ones(2), lambda w, b: jnp.ones(2)),
        jnp.ones(2), jnp.ones(2), None, length=9, slots=2,
    )  # fmt: skip
    np.testing.assert_allclose(carry, _tanh_times(9), rtol=1e-12)


def _free(w, h, x):
    h = jnp.tanh(w * h)
    return h, h


def _tanh_times(n):
    h = np.ones(2)
    for _ in range(n):
        h = np.tanh(h)
    return h


# Memory and the size of the program


def compiled(steps: int, m: int, chunk=1, H=128, B=256):
    cell = cells.elman(2, H)
    params = jax.eval_shape(cell.init, jax.random.key(0))
    params, xs = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, jnp.float32),
        (params, jax.ShapeDtypeStruct((steps, B, 2), jnp.float32)),
    )

    def loss(params, xs):
        carry = cell.init_carry(params, (B,))
        run = functools.partial(unrolls.checkpointed, slots=m, chunk=chunk)
        return (run(cell, params, carry, xs)[0] ** 2).sum()

    return jax.jit(jax.grad(loss)).lower(params, xs).compile()


def carries(program, H=128, B=256) -> float:
    return program.memory_analysis().temp_size_in_bytes / (4 * B * H)


@pytest.fixture
def float32():
    with enable_x64(False):
        yield


@hlo_as_users
def test_no_more_is_stored_than_the_slots(float32):
    few, many = carries(compiled(1000, 10)), carries(compiled(1000, 50))
    assert few <= 10 + 12
    assert many - few <= 40.5  # the slots are there once


@hlo_as_users
def test_program_and_memory_do_not_grow_with_time(float32):
    short, long = compiled(8000, 10), compiled(64_000, 10)
    assert abs(carries(short) - carries(long)) < 0.5
    lines = [p.as_text().count("\n") for p in (short, long)]
    assert abs(lines[0] - lines[1]) <= 0.01 * lines[0]


def test_default_slots_let_no_stretch_run_more_than_three_times():
    for n in (1, 2, 7, 100, 1000):
        m = default_slots(n)
        assert schedule.evaluations(n, m) <= 3 * n
        assert m == n if n <= 4 else math.comb(m + 1, 2) < n
    assert default_slots(100, steps=25) == 100


# Transformations


def loss_of(unroll, **options):
    cell, at = elman(7)

    def loss(params, carry, xs):
        carry, ys = unroll(cell, params, carry, xs, at.side, **options)
        return jnp.sin(carry).sum() + (ys**2).sum()

    return loss, at[:3]


FORMS = {
    "not compiled": lambda f: jax.value_and_grad(f, (0, 1, 2)),
    "vmap over examples": lambda f: jax.vmap(
        jax.value_and_grad(lambda p, c, x: f(p, c, x)), (0, None, None)
    ),
    "hessian": lambda f: jax.hessian(f, 1),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
}


@pytest.mark.parametrize("form", FORMS)
def test_transformations(form):
    f, at = loss_of(unrolls.checkpointed, slots=2, chunk=2)
    plain, _ = loss_of(unrolls.scan)
    if form == "vmap over examples":
        at = (jax.tree.map(lambda a: np.stack([a, 0.5 * a]), at[0]), *at[1:])
    ours = FORMS[form](f)
    ours = ours if form == "not compiled" else quick_jit(ours)
    found, want = ours(*at), reference_jit(FORMS[form](plain))(*at)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_reverse_over_reverse_is_refused():
    f, at = loss_of(unrolls.checkpointed, slots=2, chunk=2)
    with pytest.raises(ValueError, match="no gradient in reverse mode.*both_modes"):
        jax.eval_shape(jax.grad(lambda p: jax.grad(f)(p, *at[1:])["w_h"].sum()), at[0])


# Errors


@pytest.mark.parametrize(
    "options",
    [
        dict(slots=0),
        dict(slots=2.0),
        dict(chunk=-1),
        dict(chunk="8"),
        dict(kept=-1),
        dict(kept=None),
        dict(offload=True),
    ],
    ids=str,
)
def test_senseless_options_are_named(options):
    cell, at = elman(7)
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: expected .* got"):
        unrolls.checkpointed(cell, *at[:3], Side(), **options)
