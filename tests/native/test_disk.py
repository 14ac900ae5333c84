"""Kernels on disk: read where they are ours and whole, made again elsewhere."""

import os
import subprocess
import sys

import pytest

from bptt_jax.native import _disk

NAME, CODE = "bptt_jax_00", b"\x7fELF code of a kernel"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _disk.write(NAME, CODE)
    return tmp_path / "bptt_jax" / "native"


def test_what_is_written_is_read(cache):
    assert _disk.read(NAME) == CODE
    assert _disk.read("bptt_jax_01") is None
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [p.stat().st_mode & 0o077 for p in cache.iterdir()] == [0]


def damage(cache):
    path = cache / f"{NAME}.o"
    code = bytearray(path.read_bytes())
    code[-1] ^= 1
    path.write_bytes(code)


def shorten(cache):
    path = cache / f"{NAME}.o"
    path.write_bytes(path.read_bytes()[:40])


def rename(cache):
    (cache / f"{NAME}.o").rename(cache / "other.o")
    (cache / "other.o").replace(cache / f"{NAME}1.o")


def age(cache):
    path = cache / f"{NAME}.o"
    path.write_bytes(b"bptt_jax native 0\n" + path.read_bytes()[len(_disk.MAGIC) :])


def open_file(cache):
    (cache / f"{NAME}.o").chmod(0o622)


def open_folder(cache):
    cache.chmod(0o777)


def link(cache):
    path = cache / f"{NAME}.o"
    path.rename(cache.parent / "elsewhere.o")
    path.symlink_to(cache.parent / "elsewhere.o")


@pytest.mark.parametrize("change", [damage, shorten, age, open_file, open_folder, link])
def test_what_cannot_be_trusted_is_not_run(cache, change):
    change(cache)
    assert _disk.read(NAME) is None
    if change is not open_folder:
        _disk.write(NAME, CODE)
        assert _disk.read(NAME) == CODE


def test_a_kernel_of_another_name_is_none(cache):
    rename(cache)
    assert _disk.read(f"{NAME}1") is None


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="needs another user"
)
def test_what_another_user_owns_is_not_run(cache):
    os.chown(cache / f"{NAME}.o", 12345, 12345)
    assert _disk.read(NAME) is None


def test_without_a_folder_nothing_is_kept(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    _disk.write(NAME, CODE)
    assert _disk.read(NAME) is None


PROGRAM = """
import jax, jax.numpy as jnp
from bptt_jax import cells, layers, loops, unrolls
from bptt_jax.native import _compiled
made = []
compile = _compiled.object_code
_compiled.object_code = lambda *args: made.append(1) or compile(*args)
layer = layers.recurrent(cells.elman(2, 3), loop=loops.native)
params = layer.init(jax.random.key(0))
run = jax.jit(lambda p: unrolls.bptt(layer, p, layer.init_carry(p, (2,)), jnp.ones((3, 2, 2))))
print(len(made), run(params)[1].sum(), len(made))
"""


def test_another_process_compiles_nothing(tmp_path):
    env = os.environ | dict(XDG_CACHE_HOME=str(tmp_path), JAX_PLATFORMS="cpu")
    run = lambda: subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    first, second = run(), run()
    assert (first[0], first[2], second[0], second[2]) == (
        "0",
        "2",
        "0",
        "0",
    )  # a kernel, and what all call
    assert first[1] == second[1]
