"""How the programs of a test are compiled: quickly in the fast tier, or as it is marked."""

import os
import subprocess
import sys

import jax
import pytest

from support import compiled
from support.compiled import HLO_AS_USERS, as_users, hlo_as_users

OPTIONS = """
from jax._src import compiler
from support import compiled
made = compiler.get_compile_options(num_replicas=1, num_partitions=1)
"""


def options() -> dict:
    names: dict = {}
    exec(OPTIONS, names)  # noqa: S102
    return dict(names["made"].env_option_overrides)


@pytest.mark.parametrize(
    "how",
    [
        "quick",
        pytest.param(HLO_AS_USERS, marks=hlo_as_users),
        pytest.param(compiled.AS_USERS, marks=as_users),
    ],
)
def test_as_the_test_is_marked(how, request):
    asked = os.environ.get(compiled.VARIABLE) == compiled.AS_USERS
    assert compiled.how(request.node) == (compiled.AS_USERS if asked else how)
    assert options() == compiled.OPTIONS[compiled.how(request.node)]


@pytest.mark.slow
def test_the_slow_tier_is_as_users_compile():
    assert options() == {}


@pytest.mark.slow
@compiled.always_quick
def test_some_of_it_is_always_quick():
    asked = os.environ.get(compiled.VARIABLE) == compiled.AS_USERS
    assert options() == ({} if asked else compiled.QUICK)


def test_a_process_of_a_test_compiles_in_the_same_way(request):
    code = OPTIONS + "print(sorted(made.env_option_overrides))"
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, **compiled.environment(), "PYTHONPATH": path}
    said = subprocess.check_output(
        [sys.executable, "-c", code], env=environment, text=True
    )
    want = compiled.OPTIONS[compiled.how(request.node)]
    assert said.strip() == str(sorted(want.items()))


def test_what_a_program_asks_for_itself_stays():
    program = jax.jit(lambda x: 2 * x).lower(1.0)
    made = program.compile(compiler_options={"xla_backend_optimization_level": 2})
    assert made(3.0) == 6.0
