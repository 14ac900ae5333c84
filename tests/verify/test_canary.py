"""The canary says what it found and what helps, and never raises."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from bptt_jax import verify
from bptt_jax.verify import Finding, _canary
from support.compiled import as_users

pytestmark = as_users


@pytest.fixture(scope="module")
def findings():
    return verify.canary()


def test_four_findings_each_with_its_name_and_remedy(findings):
    assert [f.name.split(",")[0] for f in findings] == ["A", "A", "B", "C"]
    assert len({f.name for f in findings}) == 4
    for finding in findings:
        assert finding.remedy.startswith("XLA_FLAGS=--xla_cpu_")
        assert finding.right == (finding.error < 1e-6)
        assert str(finding).startswith(f"{finding.name}: ")


def test_this_library_avoids_them_all(findings):
    """What it computes of the kind in its own way is right on this machine."""
    for finding in findings:
        assert finding.avoided, finding
        assert finding.ours < 1e-6
        assert "WRONG" not in str(finding)


def test_whose_fault_it_is_is_told_and_what_helps():
    flags = "XLA_FLAGS=--help"
    assert str(Finding("A", False, 0.5, flags, 0.0)) == (
        "A: the compiler is wrong (error 5.0e-01), this library avoids it (error "
        f"0.0e+00); for code of your own: {flags}"
    )
    assert str(Finding("A", False, 0.5, flags, 0.2)) == (
        f"A: WRONG in this library (error 2.0e-01); remedy: {flags}"
    )
    assert str(Finding("A", True, 0.0, "XLA_FLAGS=--help")) == (
        "A: right (error 0.0e+00)"
    )


@pytest.mark.parametrize("error", [1.0, float("inf"), float("nan")])
def test_a_wrong_result_is_found_and_nothing_raised(monkeypatch, error):
    theirs = ("_rows", "_broadcast", "_gru_gradient")
    ours = ("_our_rows", "_our_sum_over_nets", "_our_gru_gradient")
    for name in (*theirs, *ours):
        monkeypatch.setattr(_canary, name, lambda *_: error)
    for finding in verify.canary():
        assert not finding.right
        assert not finding.avoided
        assert f"remedy: {finding.remedy}" in str(finding)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_results_that_are_not_finite_are_infinitely_wrong(bad):
    assert _canary._relative(np.array([1.0, bad]), np.array([1.0, 2.0])) == float("inf")


def test_error_is_relative_to_the_largest():
    assert _canary._relative(np.array([1.0, 4.4]), np.array([1.0, 4.0])) == (
        pytest.approx(0.1)
    )


def test_precision_is_as_it_was(findings):
    del findings
    assert jax.numpy.ones(1, float).dtype == np.float32


@pytest.mark.slow
def test_remedies_help(findings):
    remedies = {f.remedy for f in findings if not f.right}
    if not remedies:
        pytest.skip("nothing is miscompiled here")
    flags = " ".join(remedy.removeprefix("XLA_FLAGS=") for remedy in remedies)
    script = "from bptt_jax import verify\nfor f in verify.canary(): print(f)"
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "XLA_FLAGS": flags},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert found.count(": right") == 4, found
