"""`bptt-jax convert`: weights of one library as those of another, file to file."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro

from bptt_jax import export
from bptt_jax.cli._opened import opened
from bptt_jax.cli._parse import parse
from bptt_jax.interop import cudnn, equinox, files, flax, haiku, keras, torch, weights
from bptt_jax.interop.weights import ELMAN, Network


@dataclasses.dataclass(frozen=True)
class Convert:
    """Write the weights of one library as those of another: safetensors to safetensors."""

    source: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A safetensors file, with the names of the library it is from; or a run's folder."""
    out: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A new safetensors file; nothing is overwritten."""
    to: str
    """torch, keras, flax, haiku, equinox or cudnn; of a run: torch."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """One of the same; not of a run."""
    prefix: str = ""
    """What comes before the names of the network in a larger model."""
    nonlinearity: str | None = None
    """Of a simple recurrent network, which no file holds: tanh (or, Haiku's, relu)."""
    reset_before: bool = False
    """A Keras GRU without biases resets before the product."""
    input_size: int | None = None
    """Of cudnn, where the file's metadata do not have it."""
    hidden_size: int | None = None
    """Of cudnn, likewise."""
    num_layers: int | None = None
    """Of cudnn, likewise."""
    bidirectional: bool | None = None
    """Of cudnn, likewise."""


class Library(NamedTuple):
    """load: `(path, settings) -> Network`. named: `(network) -> arrays by name`."""

    load: Callable[[pathlib.Path, Convert], Network]
    named: Callable[[Network], dict[str, Any]]
    nonlinearity: str = "tanh"
    only: bool = False
    """Whether it has no other."""


def _load_cudnn(path: pathlib.Path, s: Convert) -> Network:
    return cudnn.load_flat(path, **{n: getattr(s, n) for n in SIZES})


SIZES = ("input_size", "hidden_size", "num_layers", "bidirectional")
NONLINEARITIES = {"tanh": jnp.tanh, "relu": jax.nn.relu}
LIBRARIES = {
    "torch": Library(
        lambda path, s: torch.load_state_dict(path, prefix=s.prefix),
        torch.to_state_dict,
    ),
    "keras": Library(
        lambda path, s: keras.load_weights(
            path, prefix=s.prefix, reset_after=not s.reset_before
        ),
        keras.to_weights,
    ),
    "flax": Library(
        lambda path, s: flax.load_params(path, prefix=s.prefix),
        lambda net: files.flat(flax.to_params(net), "/"),
    ),
    "haiku": Library(
        lambda path, s: haiku.load_params(path, prefix=s.prefix),
        lambda net: files.flat(haiku.to_params(net), "/"),
        nonlinearity="relu",
        only=True,
    ),
    "equinox": Library(
        lambda path, s: equinox.load_cells(path, prefix=s.prefix),
        equinox.to_arrays,
    ),
    "cudnn": Library(_load_cudnn, lambda net: {cudnn.KEY: cudnn.to_flat(net)}),
}


def command(argv: list[str]) -> int:
    s = parse(Convert, argv, "bptt-jax convert")
    if s.source.is_dir() and (s.from_ is None or (s.source / "run.json").exists()):
        return _of_run(s)
    _check(s)
    files.check_new(s.out)
    net = LIBRARIES[_from(s)].load(s.source, s)
    whole = weights.parts(net)
    simple = any(part.kind is ELMAN for layer in whole for part in layer)
    nonlinearity = _nonlinearity(s) if simple else None
    if nonlinearity:
        net = weights.network(net.params, NONLINEARITIES[nonlinearity])
    named = LIBRARIES[s.to].named(net)
    sizes = cudnn.sizes_of(net) if s.to == "cudnn" else {}
    files.write(s.out, named, {name: str(n) for name, n in sizes.items()} or None)
    print(f"{s.out}: {_shown(whole, nonlinearity)}, as {s.to} has it")
    return 0


def _of_run(s: Convert) -> int:
    if s.to != "torch":
        raise ValueError(f"--to {s.to}: expected torch, where {s.source} is a run")
    if dataclasses.replace(s, to="") != Convert(s.source, s.out, ""):  # from_, too
        raise ValueError(f"{s.source} is a run; expected --to torch alone")
    files.check_new(s.out)
    run = opened(s.source)
    export.torch(run, s.out)
    print(f"{s.out}: step {run.best.position:,} of {s.source}, as torch has it")
    return 0


def _from(s: Convert) -> str:
    if s.from_ is None:
        raise ValueError(f"--from: expected one of {', '.join(LIBRARIES)}")
    return s.from_


def _check(s: Convert) -> None:
    for option, name in (("from", _from(s)), ("to", s.to)):
        if name not in LIBRARIES:
            raise ValueError(
                f"--{option} {name}: expected one of {', '.join(LIBRARIES)}"
            )
    if s.nonlinearity not in (None, *NONLINEARITIES):
        raise ValueError(f"--nonlinearity {s.nonlinearity}: expected tanh or relu")
    given = [n for n in SIZES if getattr(s, n) is not None]
    if given and s.from_ != "cudnn":
        option = given[0].replace("_", "-")
        raise ValueError(f"--{option} goes with --from cudnn, not with {s.from_}")
    if s.prefix and s.from_ == "cudnn":
        raise ValueError("--prefix: the vector of cudnn is one array, with no names")
    if s.reset_before and s.from_ != "keras":
        raise ValueError(f"--reset-before goes with --from keras, not with {s.from_}")


def _nonlinearity(s: Convert) -> str:
    """That of the network, which both libraries must have."""
    said = s.nonlinearity or LIBRARIES[_from(s)].nonlinearity
    for option, name in (("from", _from(s)), ("to", s.to)):
        library = LIBRARIES[name]
        if library.only and library.nonlinearity != said:
            raise ValueError(
                f"--{option} {name}: its simple recurrent network has "
                f"{library.nonlinearity}, this one {said}; see --nonlinearity"
            )
    return said


def _shown(whole: tuple, nonlinearity: str | None) -> str:
    layers = len(whole)
    kinds = dict.fromkeys(part.kind.name for layer in whole for part in layer)
    sizes = whole[0][0].sizes
    both = sum(len(layer) == 2 for layer in whole)
    of = f" in {both} of them" if 0 < both < layers else ""
    return ", ".join(
        [
            f"{layers} layer{'s' if layers > 1 else ''} of {' and '.join(kinds)}",
            f"{sizes.n_in} inputs, {sizes.n_hidden} hidden units",
            *([f"both directions{of}"] if both else []),
            *([nonlinearity] if nonlinearity else []),
            str(whole[0][0].params["w_x"].dtype),
        ]
    )
