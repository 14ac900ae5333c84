"""Annotated shapes and dtypes, which the package itself never looks at, held to what is called.

`jaxtyping` is for type checkers only in the package, so a module does not have its names; here
they are read beside the module's own. What an argument may be beside an array (a list of
numbers, in `plots`) is made an array first, where its annotation says `ArrayLike`.
"""

import contextlib
import functools
import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype

import bptt_jax

CHECKER = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, too
PACKAGE = pathlib.Path(bptt_jax.__file__).parent
SHAPE = re.compile(
    r"""(?<=, )(["'])[^"']*\1(?=\])"""
)  # the text of `Float[Array, "T B"]`


class Call(NamedTuple):
    arguments: dict[str, Any]
    result: Any


def modules() -> dict[str, Any]:
    """`diagnose._decay` -> the module; all whose annotations have shapes."""
    paths = [p for p in PACKAGE.rglob("*.py") if "from jaxtyping" in p.read_text()]
    names = [".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in paths]
    return {name: importlib.import_module(f"bptt_jax.{name}") for name in sorted(names)}


def shaped(annotation: Any) -> bool:
    return isinstance(annotation, str) and bool(SHAPE.search(annotation))


def annotated() -> dict[str, Callable]:
    """`diagnose._decay.window` -> the function; all of which an annotation has a shape."""
    return {
        f"{name}.{key}": value
        for name, module in modules().items()
        for key, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and any(map(shaped, getattr(value, "__annotations__", {}).values()))
    }


def hints(f: Callable, **others: str) -> dict[str, Any]:
    """Its annotations as types; `others` in the place of those of these names."""
    inner = inspect.unwrap(f)
    names = _Names({**inner.__globals__, "ArrayLike": Any})
    texts = {**inner.__annotations__, **others}
    return {name: eval(text, {}, names) for name, text in texts.items()}  # noqa: S307


class _Names(dict):
    def __missing__(self, name: str) -> Any:
        if hasattr(jaxtyping, name):
            return getattr(jaxtyping, name)
        raise KeyError(name)


def checked(f: Callable, types: dict[str, Any]) -> Callable:
    """f, which raises a `TypeCheckError` where arguments or results do not fit."""
    signature = inspect.signature(f)
    parameters = [
        p.replace(annotation=types.get(p.name, Any))
        for p in signature.parameters.values()
    ]

    def call(*args, **kwargs):
        return f(*args, **kwargs)

    call.__signature__ = signature.replace(
        parameters=parameters, return_annotation=types.get("return", Any)
    )
    call.__name__ = call.__qualname__ = f.__name__
    return jaxtyping.jaxtyped(call, typechecker=CHECKER)


def bound(f: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Arguments by name, array-likes as arrays."""
    found = dict(inspect.signature(f).bind(*args, **kwargs).arguments)
    texts = inspect.unwrap(f).__annotations__
    like = {name for name in found if "ArrayLike" in str(texts.get(name))}
    return {name: arrays(a) if name in like else a for name, a in found.items()}


def arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: arrays(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(arrays(each) for each in value)
    return np.asarray(value) if isinstance(value, list | jax.Array) else value


@contextlib.contextmanager
def everywhere() -> Iterator[dict[str, list[Call]]]:
    """Checks each annotated function, and gives the calls that there were, by name."""
    replaced, calls = [], {}
    for name, f in annotated().items():
        calls[name] = []
        watched = _recording(f, checked(f, hints(f)), calls[name])
        for module in [m for n, m in sys.modules.items() if n.startswith("bptt_jax")]:
            for key, value in list(vars(module).items()):
                if value is f:
                    replaced.append((module, key, f))
                    setattr(module, key, watched)
    try:
        yield calls
    finally:
        for module, key, f in replaced:
            setattr(module, key, f)


def _recording(f: Callable, inner: Callable, calls: list[Call]) -> Callable:
    @functools.wraps(f)
    def call(*args, **kwargs):
        arguments = bound(f, args, kwargs)
        result = inner(**arguments)
        calls.append(Call(arguments, result))
        return result

    return call


def fits(f: Callable, call: Call, **others: str) -> bool:
    """Whether a call that was, not made again, goes with annotations that were changed."""

    @functools.wraps(f)
    def again(*_, **__):
        return call.result

    try:
        checked(again, hints(f, **others))(**call.arguments)
    except jaxtyping.TypeCheckError:
        return False
    return True
