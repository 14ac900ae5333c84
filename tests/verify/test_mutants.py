"""A wrong backward is found: each mutant is refused, for its own error and no other."""

import collections
import re

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from bptt_jax import layers, verify
from bptt_jax.types import Cell
from support import tiers
from verify.mutants import MUTANTS, ORIGINALS, Mutant, narrow


@pytest.fixture(autouse=True, scope="module")
def quick_programs(tmp_path_factory):
    """Compiled in half the time; what mutants of one original share, once."""
    options = dict(
        jax_disable_most_optimizations=True,
        jax_compilation_cache_dir=str(tmp_path_factory.mktemp("programs")),
        jax_persistent_cache_min_compile_time_secs=0.0,
    )
    before = {name: jax.config.values[name] for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


RESULTS = ("ys", "final_carry")
MEMBERS = verify.CELLS | verify.LAYERS


def short(leaf: str) -> str:
    """`w_h` for `params['w_h']`; no spaces."""
    name = re.fullmatch(r"params\['(\w+)'\]", leaf)
    return name[1] if name else leaf.replace(" ", "_")


def wrong_leaves(report: verify.Report) -> set[str]:
    """Those where the hand-derived arm is wrong (not `jax.grad` alone)."""
    return {short(row.leaf) for row in report.wrong if row.wrong != "jax.grad"}


def gradients(rows) -> set[str]:
    leaves = {short(row.leaf) for row in rows}
    return {leaf for leaf in leaves if not leaf.startswith(RESULTS)}


def expected(mutant: Mutant, report: verify.Report) -> set[str]:
    return set(mutant.leaves) or gradients(report.rows)


def late():
    """Names of the mutants after the first of their original."""
    seen = collections.Counter()
    for mutant in MUTANTS:
        seen[mutant.original] += 1
        if seen[mutant.original] > 1:
            yield mutant.name


def named(mutants, slow: set[str]):
    def marks(mutant):
        return pytest.mark.slow if mutant.name in slow else ()

    return [pytest.param(m, id=m.name, marks=marks(m)) for m in mutants]


def passes(name, **options):
    report = verify.check_member(name, ORIGINALS[name], **options)
    assert wrong_leaves(report) == set()
    assert all(row.largest > 0 for row in report.rows)


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_original_passes(name):
    """By one comparison; what of its leaves is right in two, mutants below show."""
    passes(name, quick=True)


@pytest.mark.parametrize("name", [tiers.tier(name, False) for name in ORIGINALS])
def test_the_original_passes_in_full(name):
    passes(name)


@pytest.mark.parametrize("mutant", named(MUTANTS, slow=set(late())))
def test_a_mutant_is_refused(mutant):
    with pytest.raises(verify.GradientError) as caught:
        verify.check_member(mutant.name, mutant.member)
    report, worst = caught.value.report, caught.value.row
    assert wrong_leaves(report) == expected(mutant, report)
    assert short(worst.leaf) in expected(mutant, report)
    assert str(caught.value).startswith(f"{worst.leaf} is wrong by ")


@pytest.mark.slow
@pytest.mark.parametrize("mutant", named([m for m in MUTANTS if m.unseen], slow=set()))
def test_it_takes_its_case_to_find_it(mutant):
    report = verify.check_member(mutant.name, mutant.member, **mutant.unseen)
    assert wrong_leaves(report) == set()


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        *[tiers.tier(name, False, (name, False)) for name in MEMBERS],
        *[
            tiers.slow((name, True), False)
            for name in MEMBERS
            if name not in tiers.SOME
        ],
    ],
)
def test_each_leaf_of_each_member_is_compared(name, quick):
    """All gradients a millionth too large: all are named."""

    def wrong():
        layer = MEMBERS[name].make()
        layer = layers.recurrent(layer) if isinstance(layer, Cell) else layer

        def bwd(*arguments):
            return jax.tree.map(lambda d: d * (1 + 1e-6), layer.bwd(*arguments))

        return layer._replace(bwd=bwd)

    with pytest.raises(verify.GradientError) as caught:
        verify.check_member(
            name, narrow(MEMBERS[name]._replace(make=wrong)), quick=quick
        )
    rows = [row for row in caught.value.report.rows if row.largest > 0]
    assert wrong_leaves(caught.value.report) == gradients(rows) != set()


def test_there_are_many_mutants():
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names) >= 45
    assert {mutant.original for mutant in MUTANTS} == set(ORIGINALS)
