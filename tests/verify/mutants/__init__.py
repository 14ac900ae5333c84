"""Wrong backwards, written by hand: what `verify.check` must find."""

from verify.mutants import (  # noqa: F401
    _cells,
    _combinators,
    _kept,
    _layers,
    _lstms,
    _unrolls,
)
from verify.mutants._originals import ORIGINALS, narrow
from verify.mutants._table import MUTANTS, Mutant

__all__ = ["MUTANTS", "ORIGINALS", "Mutant", "narrow"]
