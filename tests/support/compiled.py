"""How well programs are compiled: in the fast tier quickly, elsewhere as users compile them.

Most of what a test on an empty cache takes is XLA's compiler at work, and hardly a law depends
on how well it works: the numbers of a derivation, what is refused, what is written. Compiled
quickly the same programs take a third of the time. What is about the compiler's own work is
marked: `as_users`, or `hlo_as_users` where the program is looked at (operations, memory,
exchanges) and not what the processor makes of it. The slow and the release tier, but for the
folders `ALWAYS_QUICK`, and all of a run with `BPTT_JAX_COMPILED=as-users`, are
compiled as users compile; with `quick` in that variable all of these tiers is compiled as
the fast one is. Kernels of `loops.native` are compiled in the same way, but for the tests
that are about them (`tests/native`).

A program of its own is compiled as here, so that its run can be compared with one in this
process, where it runs as

    python -m support.compiled MODULE ARGUMENT …
"""

import contextlib
import os
import runpy
import sys
import types
from typing import Any

import jax
import pytest

from bptt_jax import native

if native.is_installed():  # it is not where programs for other devices are compiled
    from bptt_jax.native import _compiled as kernels
else:
    kernels = types.SimpleNamespace(LEVEL=2)
OF_USERS = kernels.LEVEL

MACHINE_CODE: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Compiler options that make no other program of XLA, only other machine code of it."""
QUICK = dict(MACHINE_CODE)
"""Those for programs whose laws do not depend on how well they are compiled."""
if jax.__version_info__ < (0, 11):  # JAX 0.12 has no such option any more
    QUICK["xla_cpu_use_fusion_emitters"] = False

_FLAGS = [f"--{name}={str(value).lower()}" for name, value in QUICK.items()]
FLAGS = {"XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip()}
"""The environment of a process that compiles quickly and imports nothing of the tests."""

VARIABLE = "BPTT_JAX_COMPILED"
AS_USERS, HLO_AS_USERS, QUICKLY = "as-users", "hlo-as-users", "quick"
OPTIONS = {AS_USERS: {}, HLO_AS_USERS: MACHINE_CODE, QUICKLY: QUICK}

as_users = pytest.mark.compiled(AS_USERS)
hlo_as_users = pytest.mark.compiled(HLO_AS_USERS)
always_quick = pytest.mark.compiled(QUICKLY)
"""In the slow tier, too."""
ALWAYS_QUICK = "cli", "export", "models", "research", "sweep", "tasks", "train"
"""Folders of tests about what runs, is told and is written: where they are not marked."""


class _Compiler:
    """JAX has options for one program, and none for all of them: they are put in here.

    Where a later JAX has no such place, programs are compiled as users compile them.
    """

    def __init__(self):
        self.be(os.environ.get(VARIABLE, AS_USERS))
        try:
            from jax._src import compiler

            self.options = compiler.get_compile_options
            compiler.get_compile_options = self._of
        except (ImportError, AttributeError):
            pass

    def be(self, how: str, of_kernels: bool = False) -> None:
        """of_kernels: for a test of kernels, which are as users have them."""
        level = 0 if how == QUICKLY and not of_kernels else OF_USERS
        self.how, kernels.LEVEL = how, level

    def _of(self, *args, env_options_overrides=None, **kwargs):
        own = env_options_overrides or {}  # those that a program itself asks for
        options = {**OPTIONS[self.how], **own} or None
        return self.options(*args, env_options_overrides=options, **kwargs)


_compiler = _Compiler()


@contextlib.contextmanager
def quickly():
    """For a test of any tier whose programs are many and run but a moment."""
    before, level = _compiler.how, kernels.LEVEL
    if before == QUICKLY:
        yield
        return
    _compiler.be(QUICKLY)
    jax.clear_caches()
    yield
    _compiler.how, kernels.LEVEL = before, level
    jax.clear_caches()


def how(item) -> str:
    """How the programs of a test are compiled, a key of `OPTIONS`."""
    tier = item.config.option.markexpr
    said = os.environ.get(VARIABLE)
    mark = item.get_closest_marker("compiled")
    fast = "not slow" in tier or tier == "smoke"
    fast = fast or (tier in ("slow", "release") and said == QUICKLY)
    asked = mark.args[0] if mark else QUICKLY
    always = asked == QUICKLY and (mark or item.path.parent.name in ALWAYS_QUICK)
    return asked if (fast or always) and said != AS_USERS else AS_USERS


def before(item) -> None:
    """Called before a test and its fixtures are set up."""
    before = _compiler.how, kernels.LEVEL
    _compiler.be(how(item), "native" in item.path.parts)
    if before != (_compiler.how, kernels.LEVEL):
        jax.clear_caches()  # what is there was compiled otherwise


def keep_also_small_ones() -> None:
    """Where compiled programs are kept on disk, also those that were compiled quickly."""
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)


def environment() -> dict[str, str]:
    """For a process of a test that imports this module: it compiles in the same way."""
    return {VARIABLE: _compiler.how}


if __name__ == "__main__":
    module, *sys.argv[1:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
