"""Processes: killed at any moment and started again; two with one seed."""

import functools
import random
import signal
import time

import pytest

from support.training import start, trained

STEPS = 24


def finish(*arguments) -> list[str]:
    """The lines that a process of its own has said."""
    process = start("support.training", *arguments)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    return said.splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The outcome, here, of a run that nothing has stopped, by number of steps."""

    @functools.cache
    def outcome(steps):
        return trained(tmp_path_factory.mktemp("whole") / "run", 0, steps)

    return outcome


def kill(out, steps, lines: int, seconds: float) -> int:
    """Kills a run so long after it has told so many dispatches; how many it told."""
    process = start("support.training", out, 0, steps)
    told = 0
    for _ in range(lines):
        told += bool(process.stdout.readline())
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), errors
    return told


def killed_and_continued(out, steps, kills, whole, seed) -> None:
    """Between dispatches, before the first checkpoint, while one is written."""
    rng = random.Random(seed)
    told = []
    for i in range(kills):
        lines = 1 if i == 0 else rng.randint(1, max(2, steps // (2 * kills)))
        told.append(kill(out, steps, lines, rng.uniform(0, 0.1)))
    assert all(told)
    assert finish(out, 0, steps)[-1] == whole(steps)


@pytest.mark.parametrize("kills", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_killed(kills, whole, tmp_path):
    """First before there is a checkpoint."""
    killed_and_continued(tmp_path / "run", STEPS, kills, whole, seed=0)


@pytest.mark.release
def test_killed_twenty_five_times(whole, tmp_path):
    killed_and_continued(tmp_path / "run", 600, 25, whole, seed=1)


@pytest.mark.slow
def test_another_process_with_the_same_seed(whole, tmp_path):
    assert finish(tmp_path / "run", 0, STEPS)[-1] == whole(STEPS)


@pytest.mark.slow
def test_another_seed(whole, tmp_path):
    metrics, state = trained(tmp_path / "run", 1, STEPS).split()
    assert metrics not in whole(STEPS)
    assert state not in whole(STEPS)
