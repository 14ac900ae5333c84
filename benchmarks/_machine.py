"""What the figures were taken on, and whether it was quiet."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import time

QUIET = 0.05  # share of all cores that may be busy
PACKAGES = (
    "bptt-jax jax jaxlib jax-cuda13-plugin nvidia-cudnn-cu13 "
    "flax dm-haiku equinox keras torch optax numpy"
).split()


def describe(device: str) -> dict:
    return dict(
        device=_device(device),
        cpu=_cpu("model name"),
        cores=os.cpu_count(),
        vector_instructions=vector_instructions(),
        python=platform.python_version(),
        versions={p: v for p in PACKAGES if (v := _version(p))},
        commit=commit(),
        xla_flags=os.environ.get("XLA_FLAGS", ""),
    )


def vector_instructions() -> str:
    """AVX-512, AVX2, or unknown; `--xla_cpu_max_isa` is seen in `xla_flags`."""
    flags = _cpu("flags")
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "unknown"


def wait_until_quiet(patience: float) -> float:
    """Waits until the machine is idle, for `patience` seconds; the share that is busy."""
    until = time.monotonic() + patience
    while (busy := busy_share()) > QUIET and time.monotonic() < until:
        print(f"waiting for a quiet machine: {busy:.0%} of it is busy")
    return busy


def busy_share(seconds: float = 2.0) -> float:
    """The share of all cores that worked in the next seconds; 0 where it is not told."""
    stat = pathlib.Path("/proc/stat")
    if not stat.exists():
        return 0.0

    def ticks():
        numbers = [int(n) for n in stat.read_text().splitlines()[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    total, idle = ticks()
    time.sleep(seconds)
    total_2, idle_2 = ticks()
    return 1 - (idle_2 - idle) / max(1, total_2 - total)


def _cpu(field: str) -> str:
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.split(":", 1)[1].strip() for line in lines if line.startswith(field)]
    return found[0] if found else platform.processor()


def _device(device: str) -> str:
    import jax

    return "CPU" if device == "cpu" else jax.devices()[0].device_kind


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit(here: pathlib.Path = pathlib.Path(__file__).parent) -> str | None:
    """Of the checkout that a folder is in."""
    try:
        git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(
            git, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
