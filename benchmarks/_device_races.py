"""What `benchmarks.device` runs, in an order by worth: what tells most comes first."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import _contestants, _lowering
from benchmarks._agree import TOLERANCE
from benchmarks._cases import Case
from benchmarks._contestants import OURS, REMAT, Declined, Program, _bptt_jax
from benchmarks._lowering import ONE_GRAPH, PLAIN, ROLLED
from benchmarks._network import network
from benchmarks._race import Race, Way
from bptt_jax import Side, cells, layers, loops, unrolls, verify

SHAPES = (  # B, T, I, H, the most telling ones first
    (64, 256, 128, 256),
    (1, 1024, 64, 64),
    (256, 128, 64, 64),
    (32, 128, 64, 128),
    (16, 512, 128, 128),
    (128, 512, 1, 128),
    (32, 256, 512, 512),
    (64, 128, 1024, 1024),
)
STANDARD, ONE_SEQUENCE = SHAPES[:2]
DRY = ((2, 24, 3, 8), (1, 32, 3, 4))
SCAN, SCAN_GRAPH, LINEN = "lax.scan", "lax.scan, one graph", "flax.linen.RNN"
ROLLED_NAME, GRAPH_NAME = f"{OURS}, rolled", f"{OURS}, one graph"
TORCH, CUDNN = "torch (cuDNN)", "jax.experimental.rnn (cuDNN)"
FILES = {
    SCAN: ("_scan", "scan"),
    SCAN_GRAPH: ("_scan", "one_graph"),
    OURS: ("_bptt_jax", "bptt"),
    ROLLED_NAME: ("_bptt_jax", "rolled"),
    GRAPH_NAME: ("_bptt_jax", "one_graph"),
    REMAT: ("_bptt_jax", "remat"),
    LINEN: ("_linen", "linen"),
    TORCH: ("_torch", "torch_gpu"),
    CUDNN: ("_cudnn", "cudnn"),
}
# Products of float32 are rounded to TF32 by each library's default, 2⁻¹¹ each, through all of
# time: gates in another order are apart by about 1.
BY_DEFAULT = 5e-2
LOW = 3e-2  # of bfloat16, or twice what a scan in it is apart


def races(dry: bool = False) -> list[Race]:
    """All, the most telling ones first; `dry`: small, few, and hardly timed."""
    standard, one, *others = DRY if dry else SHAPES
    members = {n: m for n, m in verify.CELLS.items() if not m.alike and not m.part_of}
    rest = [name for name in members if name not in ("lstm", "gru")]
    found = [
        agreement("lstm"),
        agreement("gru"),
        peers(Case("lstm", *standard), SCAN_GRAPH),
        peers(Case("lstm", *one), SCAN_GRAPH),
        peers(Case("gru", *standard)),
        stretches(Case("lstm", *standard)),
        many(4 if dry else 512, *((2, 16, 2, 4) if dry else (8, 100, 2, 32))),
        *memory(Case("lstm", *standard), [OURS, SCAN, LINEN]),
        *(peers(Case("lstm", *shape)) for shape in others[:2]),
        offloaded(*((2, 32, 3, 8) if dry else (16, 4096, 16, 256))),
        low_precision(Case("lstm", *standard)),
        kept(Case("lstm", *standard)),
        *(peers(Case("lstm", *shape)) for shape in others[2:]),
        bodies(Case("lstm", *one)),
        peers(Case("gru", *one)),
        peers(Case("elman", *standard)),
        *memory(Case("lstm", *standard), [REMAT, TORCH]),
        kept(Case("gru", *standard)),
        *(peers(Case("gru", *shape)) for shape in others),
        *(agreement(name) for name in (["indrnn"] if dry else rest)),
    ]
    return [hardly_timed(race) for race in found] if dry else found


def hardly_timed(race: Race) -> Race:
    return race._replace(seconds=min(race.seconds, 0.01), rounds=(1, 1))


def peers(case: Case, *more: str) -> Race:
    """This project in three ways, a scan and libraries, as each is by default."""
    names = [SCAN, OURS, ROLLED_NAME, GRAPH_NAME, *more, LINEN, TORCH, CUDNN]
    ways = {
        name: Way(functools.partial(_peer, name, case), BY_DEFAULT) for name in names
    }
    return Race(case.name, "peers", ways, SCAN, about=case._asdict())


def _peer(name: str, case: Case) -> Program:
    return _contestants.contestant(*FILES[name]).build(case, 1)


def memory(case: Case, names: list[str]) -> list[Race]:
    """The most that a process took, each way in one of its own."""
    return [
        Race(
            f"memory, {case.name}, {name}",
            "memory",
            {name: Way(functools.partial(_peer, name, case), None)},
            name,
            seconds=0.0,
            alone=True,
            about=case._asdict(),
        )
        for name in names
    ]


def _variants(kind: str, case: Case, made: dict[str, dict]) -> Race:
    """This project alone, with other choices; the first one is as it is by default."""
    ways = {
        name: Way(
            functools.partial(_bptt_jax.made(name, **options).build, case, 1),
            BY_DEFAULT,
        )
        for name, options in made.items()
    }
    return Race(
        f"{kind}, {case.name}", kind, ways, next(iter(ways)), about=case._asdict()
    )


def stretches(case: Case) -> Race:
    """Steps of a stretch, and of the body of a loop in it."""
    made: dict[str, dict] = {"by default": {}}
    for chunk, longest in ((16, 16), (32, 16), (32, 32), (64, 16)):
        lowering = _lowering.of_bodies(longest)
        made[f"{chunk}, bodies of {longest}"] = dict(chunk=chunk, lowering=lowering)
    made["32, one graph"] = dict(chunk=32, lowering=ONE_GRAPH)
    return _variants("stretches", case, made)


def bodies(case: Case) -> Race:
    """Steps of the body of a loop, where a stretch is long."""
    made: dict[str, dict] = {"by default": {}}
    for longest in (1, 4, 8, 32):
        made[f"{longest}"] = dict(lowering=_lowering.of_bodies(longest))
    return _variants("bodies", case, made)


def kept(case: Case) -> Race:
    """What is kept for the way back (decision 0016)."""
    saves = layers.STATES, layers.GATES, layers.COEFFICIENTS
    made = {"by default": {}} | {f"{save}": dict(save=save) for save in saves}
    return _variants("kept", case, made)


# Of this project alone, by its own unrolls


AGREEMENT_T, AGREEMENT_B, AGREEMENT_H = 100, 8, 32


def agreement(name: str) -> Race:
    """A cell by each loop, in float32 and bfloat16, to a scan in exact products of float32.

    Stretches are of 16 steps: bodies of 16, and a first one of 4.
    """
    cell = functools.partial(verify.CELLS[name].make, AGREEMENT_H)
    bptt = functools.partial(unrolls.bptt, chunk=16)
    sizes = AGREEMENT_T, AGREEMENT_B

    def way(unroll, make=cell, tolerance=TOLERANCE, rival=None, **options):
        build = lambda: network(
            make(), unroll, 3, sizes, precision="highest", **options
        )
        return Way(build, tolerance, rival)

    scan, ways = "scan, float32", {}
    for dtype, tolerance in ((jnp.float32, TOLERANCE), (jnp.bfloat16, LOW)):
        kind = jnp.dtype(dtype).name
        by_scan = f"scan, {kind}"
        ways[by_scan] = way(unrolls.scan, dtype=dtype, tolerance=0.5)
        for loop, lowering in dict(
            rolled=ROLLED, unrolled=PLAIN, one_graph=ONE_GRAPH
        ).items():
            ways[f"{loop.replace('_', ' ')}, {kind}"] = way(
                bptt, dtype=dtype, lowering=lowering, tolerance=tolerance, rival=by_scan
            )
    native = functools.partial(_by_loop, cell, loops.native)
    ways["native, float32"] = way(bptt, native)
    return Race(f"agreement, {name}", "agreement", ways, scan, seconds=0.0)


def _by_loop(make: Callable, loop):
    """The layer by a loop, or a `Declined` with the loop's reason."""
    layer = layers.recurrent(make(), loop=loop)
    at = jax.eval_shape(
        lambda: (
            params := layer.init(jax.random.key(0)),
            layer.init_carry(params, (AGREEMENT_B,)),
            jnp.zeros((AGREEMENT_T, AGREEMENT_B, 3)),
        )
    )
    for why in layers.why(layer, *at, loop=loop).values():
        if why is not None:
            raise Declined(why)
    return layer


def many(models: int, B: int, T: int, I: int, H: int) -> Race:
    """Small LSTMs in one program, as a sweep has them, and one of them beside."""
    cell = cells.lstm(I, H)

    def way(unroll, lowering=PLAIN, models=models, tolerance=BY_DEFAULT):
        build = lambda: network(
            cell, unroll, I, (T, B), lowering=lowering, models=models
        )
        return Way(build, tolerance)

    ways = {
        "scan": way(unrolls.scan),
        "bptt": way(unrolls.bptt),
        "bptt, rolled": way(unrolls.bptt, ROLLED),
        "bptt, one graph": way(unrolls.bptt, ONE_GRAPH),
        "bptt, one of them": way(unrolls.bptt, models=None, tolerance=None),
    }
    about = dict(models=models, B=B, T=T, I=I, H=H)
    return Race(
        f"{models} LSTMs ({B}, {T}, {I}, {H})", "sweep", ways, "scan", about=about
    )


def offloaded(B: int, T: int, I: int, H: int) -> Race:
    """States in the memory of the host; the loss is in the layer, so states weigh most."""
    layer = layers.with_loss(layers.recurrent(cells.lstm(I, H)), _squares)

    def way(unroll, **options):
        def run(layer, params, carry, xs):
            return unroll(layer, params, carry, xs, Side(), **options)

        return Way(lambda: network(layer, run, I, (T, B)), BY_DEFAULT)

    n = 32 if T > 1000 else 4
    ways = {
        "bptt": way(unrolls.bptt),
        "checkpointed": way(unrolls.checkpointed, slots=n),
        "checkpointed, offload": way(unrolls.checkpointed, slots=n, offload=True),
    }
    about = dict(B=B, T=T, I=I, H=H, slots=n)
    return Race(f"offload ({B}, {T}, {I}, {H})", "offload", ways, "bptt", about=about)


def _squares(ys, targets):
    del targets
    return (ys * ys).mean(-1)


def low_precision(case: Case) -> Race:
    """Times in bfloat16, beside those in float32."""
    cell = case.cell_of(case.I)

    def way(unroll, dtype, lowering=PLAIN, rival=None):
        build = lambda: network(
            cell, unroll, case.I, (case.T, case.B), dtype=dtype, lowering=lowering
        )
        return Way(build, LOW, rival)

    low, by_scan = jnp.bfloat16, "scan, bfloat16"
    ways = {
        "scan, float32": way(unrolls.scan, jnp.float32),
        "bptt, float32": way(unrolls.bptt, jnp.float32),
        by_scan: way(unrolls.scan, low),
        "bptt, bfloat16": way(unrolls.bptt, low, rival=by_scan),
        "bptt, bfloat16, rolled": way(unrolls.bptt, low, ROLLED, rival=by_scan),
        "bptt, bfloat16, one graph": way(unrolls.bptt, low, ONE_GRAPH, rival=by_scan),
    }
    return Race(
        f"bfloat16, {case.name}",
        "bfloat16",
        ways,
        "scan, float32",
        about=case._asdict(),
    )
