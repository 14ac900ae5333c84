"""Factories of static records: equal arguments give the same object.

Cells, layers and models are static arguments of compiled functions. Were a factory to
build a new closure at each call, everything above it would be traced again.

What a factory made remembers the factory and its arguments. By these it is compared,
hashed and shown, so that what is compiled for one object is found for another that is
made the same way; and pickled, since its functions are closures: where it is unpickled
the factory is called again, so in one process the same object comes back, and in another
each time the same one (decision 0017).
"""

import collections
import functools
import importlib
import inspect
import itertools
import operator
import threading
import types
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeGuard, TypeVar

import jax
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=type)

KEPT = 1024
"""Objects of one factory that are kept, those that were asked for last."""
MOST_SHOWN = 8
"""Parts of a tuple that are shown where what a factory made is."""
MOST_LETTERS = 60
"""Of a text."""


def record(kind: T) -> T:
    """A NamedTuple that is compared, shown and pickled by the factory that made it, else
    by its fields.
    """

    def reduce(self):
        if made := vars(self).get("made"):
            return _recipe(made)
        return type(self), tuple(map(_picklable, self))

    def replace(self, /, **changes):
        new = kind._replace(self, **changes)
        if "made" in vars(self):
            new.made = _Recipe(replaced, self, **changes)
        return new

    def equal(self, other):
        if self is other or type(self) is not type(other):
            return self is other
        return _compared(self) == _compared(other)

    def show(self):
        made = vars(self).get("made")
        return super(type(self), self).__repr__() if made is None else _shown(made)

    same = {name: getattr(kind, name) for name in ("__doc__", "__annotations__")}
    named = dict(__module__=kind.__module__, __qualname__=kind.__qualname__)
    own = dict(__reduce__=reduce, _replace=replace)
    own |= dict(__eq__=equal, __hash__=_hashed, __repr__=show)
    own["__ne__"] = lambda self, other: not equal(self, other)  # tuple has its own
    made = type(kind.__name__, (kind,), same | named | own)
    return made  # pyright: ignore[reportReturnType]


def _compared(self: Any) -> Any:
    """What stands for it where it is compared: its recipe, or what it holds."""
    made = vars(self).get("made")
    of = self.function if isinstance(self, Made) else tuple(self)
    return of if made is None or made.key is None else made.key


def _hashed(self: Any) -> int:
    made, before = vars(self).get("made"), vars(self).get("_hash", (None, None))
    if (
        before[1] is None or before[0] is not made
    ):  # who made it is said after it is made
        self._hash = made, hash(_compared(self))
    return self._hash[1]


def _shown(value: Any) -> str:
    """`cells.lstm(3, 8)`: how something was made, as it would be written."""
    if isinstance(value, functools.partial):
        if value.func is replaced:
            return f"{value.args[0]!r}._replace({_arguments((), value.keywords)})"
        room = getattr(value.func, "__module__", "").split(".")[1:2]
        name = ".".join([*room, getattr(value.func, "__qualname__", repr(value.func))])
        return f"{name}({_arguments(value.args, value.keywords)})"
    if isinstance(value, types.FunctionType | type):
        return value.__qualname__
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, str) and len(value) > MOST_LETTERS:
        return f"{value[:MOST_LETTERS]!r}… of {len(value):,} characters"
    if type(value) is tuple:
        first = [_shown(one) for one in value[:MOST_SHOWN]]
        more = [f"… {len(value)} in all"] if len(value) > MOST_SHOWN else []
        return f"({', '.join(first + more)}{',' if len(value) == 1 else ''})"
    return getattr(value, "__name__", None) or repr(value)


def _arguments(args: tuple, kwargs: dict) -> str:
    named = [f"{name}={_shown(value)}" for name, value in kwargs.items()]
    return ", ".join([*map(_shown, args), *named])


def replaced(of: Any, /, **changes) -> Any:
    """What stands in a recipe for the factory where `_replace` made a record."""
    return of._replace(**changes)


class Made:
    """A function that a factory made; compared, shown and pickled as its records are."""

    __hash__ = _hashed

    def __init__(self, function: Callable, made: functools.partial):
        functools.update_wrapper(self, function)
        self.function, self.made = function, made

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Made):
            return self is other
        return _compared(self) == _compared(other)

    def __repr__(self) -> str:
        return _shown(self.made)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def __reduce__(self):
        return _recipe(self.made)


def factory(build: Callable[P, R]) -> Callable[P, R]:
    """Caches `build` by its arguments, however they are spelled; a list is a tuple.

    Where it takes any names (`**parts`) their order counts. Equal `functools.partial`s are
    equal arguments, and NumPy's numbers are Python's.
    The last `KEPT` objects are kept; one that is no longer is built anew, and what uses
    the old one goes on.

    Raises:
      TypeError: an argument is not hashable (arrays are arguments of the functions of
        a record, never of its factory).
    """
    signature = inspect.signature(build)
    names = [n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD]
    kept: collections.OrderedDict = collections.OrderedDict()
    lock = threading.RLock()  # a factory may call itself

    @functools.wraps(build)
    def cached(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _given(signature, args, kwargs)
        bound = signature.bind(*given.args, **given.kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        for any_name in names:
            arguments |= arguments.pop(any_name)
        for name, value in arguments.items():
            try:
                hash(value)
            except TypeError:
                raise TypeError(
                    f"{build.__name__}: {name} must be hashable (a number, a function, "
                    f"a cell, …), got {type(value).__name__}; arrays belong in params"
                ) from None
        key = _key((build, bound.args, _options(cached, bound.kwargs)))
        with lock:
            if key in kept:
                kept.move_to_end(key)
            else:
                kept[key] = _remembering(build, cached, given, key)
            while len(kept) > KEPT:
                kept.popitem(last=False)
            return kept[key]

    vars(cached)[_IN_ORDER] = bool(names)
    return cached


_IN_ORDER = "takes_names_in_order"


def takes_names_in_order(build: Any) -> bool:
    """Whether a factory takes any names, and so what it makes depends on their order."""
    return getattr(build, _IN_ORDER, False)


def _options(function: Callable, options: dict) -> tuple:
    """Keywords, in an order that says what they mean."""
    each = options.items()
    return tuple(each if takes_names_in_order(function) else sorted(each))


def remembered(build: Callable[P, R]) -> Callable[P, R]:
    """`build` as it is, not cached; what it makes is pickled by its arguments."""
    signature = inspect.signature(build)

    @functools.wraps(build)
    def building(*args: P.args, **kwargs: P.kwargs) -> R:
        return _remembering(build, building, _given(signature, args, kwargs))

    return building


def _given(signature: inspect.Signature, args, kwargs) -> inspect.BoundArguments:
    """What a factory was called with; defaults, which may be closures, are not there."""
    bound = signature.bind(*args, **kwargs)
    bound.arguments.update({k: plain(v) for k, v in bound.arguments.items()})
    return bound


_recipes = itertools.count()


def _remembering(
    build: Callable, by: Callable, given: inspect.BoundArguments, key: Any = None
) -> Any:
    """What is built, which now knows how: by the outermost factory that was at it."""
    recipe, begun = _Recipe(by, *given.args, **given.kwargs), next(_recipes)
    recipe.key = recipe.key if key is None else key
    made = build(*given.args, **given.kwargs)
    if inspect.isfunction(made):
        return Made(made, recipe)
    if hasattr(made, "__dict__") and all(made is not a for a in given.args):
        former = vars(made).get("made")
        if former is None or former.number > begun:
            made.made = recipe
    return made


class _Recipe(functools.partial):
    """A factory with its arguments, a number that grows, and what it is compared by.

    key: None where an argument can be compared with nothing (an array).
    """

    number: int
    key: Any

    def __new__(cls, /, *args, **kwargs):
        self = super().__new__(cls, *args, **kwargs)
        self.number = next(_recipes)
        each = self.func, self.args, _options(self.func, kwargs)
        self.key = _hashable(_key(each))
        return self


def _hashable(key: Any) -> Any:
    try:
        hash(key)
    except TypeError:
        return None
    return key


def plain(value: Any) -> Any:
    """NumPy's numbers as Python's and lists as tuples, inside these too."""
    if type(value) in (tuple, list):
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.bool_ | np.number) else value


def _key(value: Any) -> Any:
    """Equal where the arguments are, types included."""
    if type(value) is tuple:
        return tuple(map(_key, value))
    if type(value) is functools.partial:
        each = value.func, value.args, _options(value.func, value.keywords)
        try:
            hash(key := (functools.partial, _key(each)))
            return key
        except TypeError:  # it holds an array: none but itself is equal
            pass
    return type(value), value


class _As(NamedTuple):
    """What is pickled as a call, and unpickled as what that gives."""

    function: Callable
    arguments: tuple

    def __reduce__(self):
        return self.function, self.arguments


def _picklable(value: Any) -> Any:
    """`value` with what pickle would refuse, though another process can find it.

    Jitted functions (`jnp.tanh`, `jax.nn.relu`) by their names, meshes by the numbers of
    their devices.
    """
    if isinstance(value, jax.sharding.Mesh):
        ids = [device.id for device in value.devices.flat]
        return _As(
            _mesh, (ids, value.devices.shape, value.axis_names, value.axis_types)
        )
    if type(value) is functools.partial:
        return _As(_partial, _picklable((value.func, value.args, value.keywords)))
    if isinstance(value, tuple) and "made" not in getattr(value, "__dict__", {}):
        each = map(_picklable, value)
        return type(value)(*each) if hasattr(value, "_fields") else tuple(each)
    if isinstance(value, dict):
        return {k: _picklable(v) for k, v in value.items()}
    at = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if isinstance(value, types.FunctionType) and _inside(value, _named(*at)):
        return _As(_named, at)  # what wraps it has its name
    if not callable(value) or isinstance(value, type | types.FunctionType | Made):
        return value
    return _As(_named, at) if _named(*at) is value else value


def _call(function: Callable, args: tuple, kwargs: dict) -> Any:
    return function(*args, **kwargs)


def _recipe(made: functools.partial) -> tuple:
    return _call, _picklable((made.func, made.args, made.keywords))


def _partial(function: Callable, args: tuple, kwargs: dict) -> functools.partial:
    return functools.partial(function, *args, **kwargs)


def _named(module: str | None, name: str) -> Any:
    """The object of that name; None where there is none."""
    try:
        return operator.attrgetter(name)(importlib.import_module(module or ""))
    except (ImportError, AttributeError, ValueError):
        return None


def _inside(value: Callable, outer: Any) -> bool:
    """Whether `outer` is another function, around this one (`functools.wraps`)."""
    while outer is not value and hasattr(outer, "__wrapped__"):
        outer = outer.__wrapped__
        if outer is value:
            return True
    return False


def _mesh(ids: list[int], shape: tuple, names: tuple, kinds: tuple):
    devices = {device.id: device for device in jax.devices()}
    each = np.array([devices[i] for i in ids]).reshape(shape)
    return jax.sharding.Mesh(each, names, axis_types=kinds)


def expect(kind: type, **given: object) -> None:
    """Refuses arguments that are no records of a kind, `expect(Cell, cell=cell)`."""
    for name, value in given.items():
        if not isinstance(value, kind):
            what = getattr(value, "__name__", type(value).__name__)
            raise TypeError(f"{name}: expected a record {kind.__name__}, got {what}")


def functions(**given: object) -> None:
    """Refuses arguments that are no functions, `functions(unroll=unroll)`."""
    for name, value in given.items():
        if not callable(value):
            raise TypeError(
                f"{name}: expected a function, got a {type(value).__name__}"
            )


def positive(**sizes: int) -> None:
    """Refuses sizes that are not whole numbers of at least one."""
    for name, size in sizes.items():
        if not is_whole(size) or size < 1:
            raise ValueError(
                f"{name} must be a whole number of at least 1, got {size!r}"
            )


def not_negative(**sizes: int) -> None:
    """Refuses sizes that are not whole numbers of at least zero."""
    for name, size in sizes.items():
        if not is_whole(size) or size < 0:
            raise ValueError(
                f"{name} must be a whole number of at least 0, got {size!r}"
            )


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number, Python's or NumPy's; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
