"""What is measured: one recurrent network of one shape, with its weights and inputs."""

import math
from typing import NamedTuple

import numpy as np

from bptt_jax import Cell, cells

GATES = dict(elman=1, lstm=4, gru=3)
SHAPES = (
    (1, 1000, 64, 64),
    (16, 50, 2, 16),
    (32, 128, 64, 128),
    (128, 784, 1, 128),
    (256, 128, 64, 64),
    (64, 256, 128, 256),
    (32, 96, 512, 512),
    (64, 64, 1024, 1024),
)
QUICK = ((16, 50, 2, 16), (32, 128, 64, 128))


class Case(NamedTuple):
    """B examples of T steps, I inputs, H hidden units, `depth` layers of one cell."""

    cell: str
    B: int
    T: int
    I: int
    H: int
    depth: int = 1

    @property
    def name(self) -> str:
        layers = "" if self.depth == 1 else f" x {self.depth}"
        return f"{self.cell}{layers} ({self.B}, {self.T}, {self.I}, {self.H})"

    @property
    def sizes(self) -> list[int]:
        """The features that go into each layer."""
        return [self.I] + [self.H] * (self.depth - 1)

    @property
    def unit(self) -> int:
        """Bytes of T·B·H floats."""
        return 4 * self.T * self.B * self.H

    def cell_of(self, n_in: int) -> Cell:
        """Of a layer with so many inputs."""
        make = dict(elman=cells.elman, lstm=cells.lstm, gru=cells.gru)[self.cell]
        return make(n_in, self.H)

    @property
    def cells(self) -> list[Cell]:
        """Of each layer."""
        return [self.cell_of(n) for n in self.sizes]

    def products(self) -> int:
        """Floating-point operations of the forward's matrix products."""
        wide = GATES[self.cell] * self.H
        return sum(2 * self.T * self.B * (n + self.H) * wide for n in self.sizes)


def all_cases(shapes=SHAPES) -> list[Case]:
    single = [Case(cell, *shape) for shape in shapes for cell in GATES]
    deep = [Case("lstm", *s, 2) for s in (SHAPES[2], SHAPES[5]) if s in shapes]
    return single + deep


def weights(case: Case) -> list[dict[str, np.ndarray]]:
    """Of each layer, in the project's layout: `w_x [I, kH]`, `w_h [H, kH]`, `b [kH]`.

    The GRU's second bias is zero, since one of the peers has none.
    """
    rng, layers = np.random.default_rng(0), []
    wide = GATES[case.cell] * case.H
    for n in case.sizes:
        layer = dict(
            w_x=rng.normal(size=(n, wide)) / math.sqrt(n),
            w_h=0.9 * rng.normal(size=(case.H, wide)) / math.sqrt(case.H),
            b=0.1 * rng.normal(size=wide),
        )
        if case.cell == "gru":
            layer["b_n"] = np.zeros(case.H)
        layers.append({name: a.astype(np.float32) for name, a in layer.items()})
    return layers


def inputs(case: Case) -> np.ndarray:
    """`[T, B, I]`."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(case.T, case.B, case.I)).astype(np.float32)
