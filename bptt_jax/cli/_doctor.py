"""`bptt-jax doctor`: one paste for a bug report, with nothing private in it."""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from bptt_jax import __version__, _files, cells, layers, loops, native, unrolls, verify
from bptt_jax._processes import cores, memory
from bptt_jax.cli._parse import parse
from bptt_jax.loops import first_of_shapes
from bptt_jax.types import Cell, Side

PACKAGES = (
    "jax", "jaxlib", "numpy", "optax", "flax", "chex", "orbax-checkpoint", "llvmlite",
    "pyarrow", "matplotlib", "safetensors", "torch", "keras", "equinox", "dm-haiku", "grain",
    "onnx", "onnxruntime", "distributed",
)  # fmt: skip
SAID = ("JAX_", "XLA_", "BPTT_JAX_", "CUDA_VISIBLE_", "OMP_NUM_", "MALLOC_")
"""How the variables begin that change what is computed, or how fast."""
ADDRESSES = "ADDRESS", "COORDINATOR", "HOSTNAMES"
"""How those end that name machines."""
T, B, N = 64, 16, 64
"""Steps, examples and units of what is asked and timed here."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Tell all about this installation that a bug report needs, and nothing private."""

    seconds: float = 10.0
    """How long a gradient is timed beside that of `scan`; 0: not at all."""


def command(argv: list[str]) -> int:
    s = parse(Doctor, argv, "bptt-jax doctor")
    if not 0 <= s.seconds < float("inf"):
        raise ValueError(f"--seconds: expected 0 or more, got {s.seconds}")
    parts = dict(
        versions=_versions, devices=_devices, environment=_environment,
        folders=_folders, loops=_loops, compiler=_compiler,
    )  # fmt: skip
    if s.seconds:
        parts["speed"] = lambda: _speed(s.seconds)
    ends_well = True
    for name, part in parts.items():
        print(f"\n{name}")
        try:
            for line in part():
                print(f"  {line}", flush=True)
        except Exception as error:  # what is broken is what is asked here
            ends_well = False
            print(f"  FAILED: {_without_home(_in_a_line(error))}", flush=True)
    return 0 if ends_well else 1


def _versions() -> Iterator[str]:
    yield f"bptt_jax {__version__}, Python {platform.python_version()}, {_system()}"
    found = {name: _version(name) for name in PACKAGES}
    yield ", ".join(f"{name} {version}" for name, version in found.items() if version)
    if lacking := [name for name, version in found.items() if not version]:
        yield f"not installed: {', '.join(lacking)}"


def _system() -> str:
    libc = " ".join(platform.libc_ver()).strip()
    return f"{platform.system()} {platform.machine()}{libc and f' ({libc})'}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[str]:
    for kind in sorted({d.device_kind for d in jax.devices()}):
        each = [d for d in jax.devices() if d.device_kind == kind]
        yield f"{len(each)} × {kind} ({each[0].platform}){_memory_of(each[0])}"
    if jax.default_backend() != "cpu":
        yield f"and {len(jax.devices('cpu'))} × cpu"
    yield f"{cores()} cores for this process, {_processor()}, {memory() / 2**30:.1f} GiB of memory"
    yield f"processes: {jax.process_count()}"


def _memory_of(device: Any) -> str:
    found = device.memory_stats() or {}
    limit = found.get("bytes_limit")
    return f", {limit / 2**30:.1f} GiB for JAX" if limit else ""


def _processor() -> str:
    try:
        found = native.this_machine()
    except ImportError:
        return "no llvmlite to describe them"
    return f"{found.name}, vectors of {found.bits} bits"


def _environment() -> Iterator[str]:
    found = {name: os.environ[name] for name in sorted(os.environ)}
    said = {name: value for name, value in found.items() if name.startswith(SAID)}
    for name, value in said.items():
        where = name.endswith(ADDRESSES)
        yield f"{name}={'(an address)' if where else _without_home(value)}"
    if not said:
        yield f"no variable that begins with {', '.join(SAID)}"
    yield f"jax_enable_x64: {_setting('enable_x64')}"


def _setting(name: str) -> Any:
    """A setting of JAX, whose types do not know them."""
    return getattr(jax.config, f"jax_{name}")


def _folders() -> Iterator[str]:
    own = _files.cache_folder()
    yield f"of this library: {_of_folder(own)}"
    if own is not None:
        kernels = list((own / "native").glob("*.o"))
        size = sum(path.stat().st_size for path in kernels)
        yield f"kernels in it: {len(kernels)}, {size / 2**20:.1f} MiB"
    yield f"of JAX's compiled programs: {_of_folder(_setting('compilation_cache_dir'))}"


def _of_folder(path: pathlib.Path | str | None) -> str:
    if path is None:
        return "none"
    told = _without_home(str(path))
    if "://" in told:
        return told
    at = pathlib.Path(path)
    if not at.exists():
        return f"{told}, not there"
    return f"{told}, {'can' if os.access(at, os.W_OK) else 'CANNOT'} be written"


def _loops() -> Iterator[str]:
    """The loop of each cell, those of one answer in one line."""
    answers: dict[str, list[str]] = {}
    for name, member in verify.CELLS.items():
        if not member.alike:
            cell = member.make()
            assert isinstance(cell, Cell)
            answers.setdefault(_loop_of(cell), []).append(name)
    for answer, names in answers.items():
        yield f"{answer}: {'; '.join(names)}"


def _loop_of(cell: Cell) -> str:
    params = jax.eval_shape(cell.init, jax.random.key(0))
    carry = jax.eval_shape(lambda p: cell.init_carry(p, (B,)), params)
    xs = jax.ShapeDtypeStruct((T, B, 3), jax.tree.leaves(params)[0].dtype)
    at = cell, params, carry, xs, Side(keys=jax.eval_shape(_keys))
    (taken,) = layers.why(*at, loop=TOLD).values()
    (reason,) = layers.why(*at, loop=loops.native).values()
    return f"{taken} (not loops.native: {reason})" if reason else str(taken)


def _keys() -> Array:
    return jax.random.split(jax.random.key(0), T)


def _taken(cell, save, shapes, platform) -> str:
    del platform
    return first_of_shapes(None, cell, save, shapes).name


TOLD = loops.step_by_step._replace(name="bptt-jax doctor", supports=_taken)
"""A loop whose reason not to run is the name of the one that would."""


def _compiler() -> Iterator[str]:
    for finding in verify.canary():
        yield str(finding)
    yield "what these mean: docs/miscompilations.md; whether gradients are right: bptt-jax check"


def _speed(seconds: float) -> Iterator[str]:
    cell = cells.lstm(N, N)
    params = cell.init(jax.random.key(0))
    at = params, cell.init_carry(params, (B,)), jnp.ones((T, B, N))
    ours, plain = (_gradient(unroll, cell) for unroll in (unrolls.bptt, unrolls.scan))
    times = _in_turns([lambda: ours(*at), lambda: plain(*at)], seconds)
    ratios = [theirs / mine for mine, theirs in zip(*times, strict=True)]
    yield (
        f"gradient of an LSTM, {T} steps, {B} examples, {N} units: unrolls.bptt is "
        f"{statistics.median(ratios):.2f} times as fast as jax.grad of unrolls.scan "
        f"(median of {len(ratios)}; {min(ratios):.2f} to {max(ratios):.2f})"
    )
    yield f"best of each: {min(times[0]) * 1e3:.2f} ms and {min(times[1]) * 1e3:.2f} ms"


def _gradient(unroll: Callable, cell: Cell) -> Callable:
    def loss(params, carry, xs):
        return jnp.sum(unroll(cell, params, carry, xs)[1])

    return jax.jit(jax.grad(loss))


def _in_turns(calls: list[Callable], seconds: float) -> list[list[float]]:
    """Seconds of each, in turns, so that what else the machine does meets them alike."""
    for call in calls:
        jax.block_until_ready(call())
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 3:
        for call, found in zip(calls, times, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            found.append(time.perf_counter() - began)
    return times


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _without_home(text: str) -> str:
    """A home names its owner."""
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text
