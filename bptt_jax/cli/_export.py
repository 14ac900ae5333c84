"""`bptt-jax export RUN OUT`: a trained network as a file that runs without this package."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Annotated

import tyro

from bptt_jax import export
from bptt_jax.cli._opened import opened
from bptt_jax.cli._parse import Folder, parse
from bptt_jax.interop import files

FORMATS: dict[str, Callable] = {
    ".onnx": export.onnx,
    ".safetensors": export.safetensors,
    ".stablehlo": export.stablehlo,
}


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the best parameters of a run for use without this package, scales and labels too."""

    run: Folder
    """A run's folder."""
    out: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A new file: .stablehlo, a program for JAX on any platform; .onnx; .safetensors, arrays."""


def command(argv: list[str]) -> int:
    s = parse(Export, argv, "bptt-jax export")
    write = FORMATS.get(s.out.suffix)
    if write is None:
        raise ValueError(
            f"{s.out}: expected a name that ends in {', '.join(FORMATS)}, got "
            f"{s.out.suffix or 'none of these'}"
        )
    files.check_new(s.out)
    run = opened(s.run)
    write(run, s.out)
    print(
        f"{s.out}: step {run.best.position:,} of {s.run}, {s.out.stat().st_size:,} bytes"
    )
    return 0
