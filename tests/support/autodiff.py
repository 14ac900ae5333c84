"""`jax.grad` of the plain loop in float64, computed in a process of its own.

On x86 that process runs without AVX-512, for which jaxlib 0.10.2 compiles the gradient
of an ordinary GRU wrongly. The flag is one of the process, and would hide from the other
arm the code that users run.

    python autodiff.py OUT.npz     writes the gradients of all cases
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
FLAGS = "--xla_cpu_max_isa=AVX2"


def compute(folder: Path) -> dict[str, np.ndarray]:
    """The gradients of all of `support.grid.GRID`, by `key(…)`."""
    out = folder / "autodiff.npz"
    flags = FLAGS if platform.machine() in ("x86_64", "AMD64") else ""
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
    }
    subprocess.run(
        [sys.executable, "-m", "support.autodiff", out], env=environment, check=True
    )
    with np.load(out) as found:
        return dict(found)


def key(case: str, leaf: str) -> str:
    return f"{case} | {leaf}"


def main(out: str) -> None:
    import jax

    from bptt_jax._jax import enable_x64
    from support.gradients import QUICK, gradients
    from support.grid import GRID

    found = {}
    with enable_x64(True):
        for i, (name, entry) in enumerate(GRID.items()):
            layer, at = entry.build()
            by_jax = gradients(layer, at, entry.plain, compiler_options=QUICK)
            found |= {key(name, leaf): value for leaf, value in by_jax.items()}
            if i % 50 == 49:
                jax.clear_caches()
    np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1])
