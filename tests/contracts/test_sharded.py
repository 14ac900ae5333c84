"""A gradient whose examples are spread over devices, under plain `jit`.

Nothing but sums may be exchanged in a loop: one all-reduce of the weights' gradients a
stretch (XLA:CPU leaves it in the loop over stretches; XLA for GPU and TPU takes it out),
and one of the losses. Each device does its share of the work, and no more.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from bptt_jax import Side, _shardings, cells, layers, unrolls
from bptt_jax.cells._products import outer_sum
from support.members import COMPLEX, LAYERS
from support.sharded import MEMBERS, MUTANT, THROUGH, Spread, run
from support.tiers import SOME
from support.wholes import WHOLES

KINDS = ("Auto", "Explicit")
FEW = [
    Spread("gru", axes="Auto"),
    Spread("elman", axes="Explicit"),
    Spread("lstm", axes="Explicit", side="both"),
    Spread("masked model, its loss", axes="Auto", side="both"),
    Spread("gru", "checkpointed", "Explicit"),
    Spread("lstm", "both_modes", "Auto", (2, 32), axis=1),
    Spread("gru", "pullback", "Explicit"),
    Spread("flax.linen.RNN", axes="Auto"),
    Spread("ends", axes="Auto", side="mask"),
]
SPREAD_ALIKE = {
    "with_options", "residual, parts by names", "inputs, summed", "with_loss, weighted",
    "recurrent, coefficients kept", "recurrent, nothing kept",
}  # fmt: skip
"""Layers whose axes are those of another of the table."""
ALL = [
    Spread(name, axes="Explicit")
    for name in MEMBERS
    if name in {*SOME, *COMPLEX, *LAYERS, "masked model, its loss"} - SPREAD_ALIKE
]
ALL += [
    Spread("masked model, its loss", unroll, "Explicit", (2, 32), 1, "both")
    for unroll in THROUGH
]
ALL += [
    Spread("lstm", unroll, "Auto", (32, 2), 0, "both")
    for unroll in ("bptt", "checkpointed", "scan")
]
ALL += [Spread("recurrent, some gates kept", axes="Explicit", side="both")]
ALL += [Spread("flax.linen.RNN", axes="Explicit")]
ALL += [Spread(name, axes="Auto", side="mask") for name in WHOLES]
ALL += [Spread("attention", axes="Explicit", side="mask")]  # gathers between loops
WHOLE = {
    unroll: [
        Spread("lstm", unroll, "Auto", (32, 2), 0, "both"),
        *(
            Spread(name, unroll, kind, side=side)
            for name in MEMBERS
            for kind in KINDS
            for side in ("plain", "both")
        ),
    ]
    for unroll in THROUGH
}
WHOLE["whole sequences"] = [
    Spread(name, axes="Explicit", side="mask") for name in WHOLES
]
GROUPS = [(4, FEW, "few"), (4, ALL, "all"), (2, FEW, "all")]
GROUPS += [(n, some, f"whole, {name}") for n in (4, 2) for name, some in WHOLE.items()]
UNITS = [
    Spread(name, units=2)
    for name in ("elman", "lstm, gate axis", "gru, gate axis", "lstm")
]


def tier(name: str) -> tuple:
    if name.startswith("whole"):  # some hundred programs each
        return pytest.mark.release, pytest.mark.timeout(3600)
    return {"few": (), "all": (pytest.mark.slow,)}[name]


def wrong(case: Spread, result: dict, devices: int) -> list[str]:
    """What is not as it should be."""
    if "raised" in result:
        return [result["raised"]]
    found = []
    if not result["error"] < 1e-10:
        found.append(f"values are off by {result['error']:.1e}")
    if not result["largest"] > 1e-3:
        found.append("a gradient that vanishes shows nothing")
    loops = collections.Counter()
    for kind, inside, shapes in result["exchanges"]:
        if kind != "all-reduce" and inside:
            found.append(f"{kind} of {shapes} in a loop")
        if kind != "all-reduce" and case.member in WHOLES and case.axes == "Auto":
            found.append(f"{kind} of {shapes}")  # what is between loops gathers nothing
        if kind == "all-reduce" and len(inside) > (2 if case.unroll == "scan" else 1):
            found.append(f"all-reduce of {shapes} in a loop over steps")
        loops[tuple(inside)] += bool(inside)
        if loops[tuple(inside)] > (2 if "complex" in case.member else 1):
            found.append(f"one all-reduce more in a loop, of {shapes}")  # one a dtype
    if result["work"] * devices > result["work_of_one"]:
        share = result["work"] / result["work_of_one"]
        found.append(f"a device does {share:.2f} of the work, for 1/{devices}")
    everywhere = 4 * result["params"] + 6 * 1024  # weights, their gradients; keys
    if result["memory"] > result["memory_of_one"] / devices + everywhere:
        found.append(f"memory {result['memory']} of {result['memory_of_one']}")
    return found


@functools.cache
def in_one_process() -> dict:
    """What the fast tier measures, on four devices."""
    cases = [*FEW, Spread(MUTANT), *UNITS]
    return dict(zip(map(str, cases), run(4, cases), strict=True))


def measured(devices: int, cases: list[Spread]) -> list[dict]:
    shared = devices == 4 and {*map(str, cases)} <= {*map(str, [*FEW, *UNITS])}
    return [in_one_process()[str(c)] for c in cases] if shared else run(devices, cases)


@pytest.mark.parametrize(
    ("devices", "cases"),
    [pytest.param(n, c, marks=tier(t), id=f"{n}, {t}") for n, c, t in GROUPS],
)
def test_only_sums_are_exchanged_and_each_device_does_its_share(devices, cases):
    results = measured(devices, cases)
    problems = {
        case: found
        for case, result in zip(cases, results, strict=True)
        if (found := wrong(case, result, devices))
    }
    assert not problems


def test_a_gradient_that_gathers_the_batch_is_found():
    case = Spread(MUTANT)
    found = wrong(case, in_one_process()[str(case)], 4)
    assert any("all-gather" in text for text in found)
    assert any("of the work" in text for text in found)


def test_units_over_devices_exchange_one_state_a_step():
    """Forward the state is gathered, backward its cotangent is summed: [B, H] each."""
    *apart, side_by_side = measured(4, UNITS)
    for case, result in zip(UNITS, apart, strict=False):
        name = case.member
        assert result["error"] < 1e-10, name
        in_steps = [
            (kind, shapes) for kind, loops, shapes in result["exchanges"] if loops[1:]
        ]
        assert sorted(in_steps) == [
            ("all-gather", [[16, 4]]),
            ("all-reduce", [[16, 4]]),
        ]
        kinds = {kind for kind, loops, _ in result["exchanges"] if loops}
        assert kinds == {"all-gather", "all-reduce"}, name
    moved = [e for e in side_by_side["exchanges"] if e[0] == "collective-permute"]
    assert moved  # whole gates on a device: what the axis of gates is for


# What the types say, for which one device is enough


def spread(a, *spec):
    axes = ("data", "model")
    mesh = jax.make_mesh((1, 1), axes, axis_types=(AxisType.Explicit,) * 2)
    return jax.device_put(a, NamedSharding(mesh, PartitionSpec(*spec)))


def spec_of(a) -> tuple:
    return tuple(jax.typeof(a).sharding.spec)


def test_units_that_meet_themselves_are_spread_once():
    hs = spread(jnp.ones((5, 2, 4)), None, "data", "model")
    assert spec_of(outer_sum(hs, hs)) == (None, "model")
    xs = spread(jnp.ones((5, 2, 3)), None, "data", None)
    assert spec_of(outer_sum(xs, hs)) == (None, "model")
    assert spec_of(outer_sum(hs, xs)) == ("model", None)


@pytest.mark.skipif(not _shardings.DRAWS_SPREAD, reason="this JAX draws whole arrays")
def test_noise_is_spread_as_what_it_is_for():
    hs, key = spread(jnp.ones((5, 2, 4)), None, "data", "model"), jax.random.key(0)
    assert spec_of(_shardings.bernoulli(key, 0.5, hs, 1)) == ("data", "model")


def test_rows_of_a_table_are_spread_as_their_symbols():
    layer = layers.embedding(7, 4)
    params, tokens = layer.init(jax.random.key(0)), jnp.ones((5, 2), int)
    for at, features in ((params, None), (jax.tree.map(by_unit, params), "model")):
        tokens = spread(tokens, None, "data")
        _, ys = unrolls.bptt(layer, at, layer.init_carry(at, (2,)), tokens)
        assert spec_of(ys) == (None, "data", features)


def by_unit(table):
    return spread(table, None, "model")


def test_gates_that_are_made_again_are_spread_as_they_were():
    """Among their equations are some of Auto axes: those of the state at a reset."""
    cell = cells.gru(3, 4, param_dtype=jnp.float64)
    layer = layers.recurrent(cell, save=layers.some_gates("r", "z"))
    mesh = spread(0.0).sharding.mesh
    params = layer.init(jax.random.key(0))
    xs, resets = np.ones((5, 2, 3)), np.arange(10).reshape(5, 2) % 3 == 0

    def loss(params, xs, resets):
        carry, side = layer.init_carry(params, (2,)), Side(resets=resets)
        return unrolls.bptt(layer, params, carry, xs, side)[1].sum()

    want = jax.grad(loss)(params, xs, resets)
    xs, resets = (spread(a, None, "data") for a in (xs, resets))
    with jax.set_mesh(mesh):
        found = jax.jit(jax.grad(loss))(params, xs, resets)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
