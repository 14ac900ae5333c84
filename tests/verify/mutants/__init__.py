"""Wrong backwards, written by hand: what `verify.check` must find."""

from verify.mutants import _cells, _combinators, _layers, _lstms, _unrolls  # noqa: F401
from verify.mutants._originals import ORIGINALS, narrow
from verify.mutants._table import MUTANTS, Mutant

__all__ = ["MUTANTS", "ORIGINALS", "Mutant", "narrow"]
