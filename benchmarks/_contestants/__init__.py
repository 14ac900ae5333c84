"""The libraries that are compared, each in a file of its own, in its documented form."""

import importlib

from benchmarks._contestants._contract import Contestant, Declined, Program

OURS, REMAT = "bptt_jax", "bptt_jax remat"

_EVERYWHERE = dict(
    _bptt_jax=("bptt", "remat"),
    _scan=("scan", "checkpointed"),
    _linen=("linen",),
    _nnx=("nnx_rnn",),
    _haiku=("haiku",),
    _equinox=("equinox",),
    _keras=("keras_jax",),
)
_OF_DEVICE = dict(
    cpu=dict(_torch=("torch_cpu",)),
    gpu=dict(_torch=("torch_gpu",), _cudnn=("cudnn",)),
)


def contestants(device: str) -> tuple[list[Contestant], dict[str, str]]:
    """Those that are installed here, and why others are not."""
    found, missing = [], {}
    for file, names in (_EVERYWHERE | _OF_DEVICE[device]).items():
        try:
            found += [contestant(file, name) for name in names]
        except ImportError as error:
            missing[file.removeprefix("_")] = str(error)
    return found, missing


def contestant(file: str, name: str) -> Contestant:
    """One of them; an ImportError where its library is not installed."""
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)


__all__ = [
    "OURS",
    "REMAT",
    "Contestant",
    "Declined",
    "Program",
    "contestant",
    "contestants",
]
