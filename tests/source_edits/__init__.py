"""Faults of the package's source that the fast tier has to find: `tests/source_mutants.py`."""

from source_edits import (
    _analysis,
    _cells,
    _layers,
    _shared,
    _sweep,
    _train,
    _unrolls,
    _wholes,
)
from source_edits._edit import Edit

EDITS: tuple[Edit, ...] = (
    *_unrolls.EDITS,
    *_layers.EDITS,
    *_cells.EDITS,
    *_shared.EDITS,
    *_train.EDITS,
    *_sweep.EDITS,
    *_analysis.EDITS,
    *_wholes.EDITS,
)

__all__ = ["EDITS", "Edit"]
