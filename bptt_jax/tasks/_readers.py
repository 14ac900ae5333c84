"""Readers of somebody's batches, opened again and again, and the way back to a place.

A reader goes forward alone. So the batches of a `Stream` are read by one that is kept open
where reads follow each other; any other place is reached from the beginning, or from the
reader's own state, where it has one.
"""

import base64
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from bptt_jax.types import PyTree, StreamPlace

PAIRS = (("get_state", "set_state"), ("state_dict", "load_state_dict"))
_NOTED = 8
"""Reads whose beginnings are remembered: the loop is ahead of a checkpoint by one or two."""


class Place(NamedTuple):
    """Where a reader is before a batch.

    since: batches since it was opened.
    state: its own, as JSON has it; None: it has none, or nothing was read yet.
    """

    since: int
    state: Any = None


def first_of(make: Callable[[], Any]) -> Any:
    """The first batch of a reader, as it is."""
    reader = Reader(make, lambda batch, number: ())
    reader._open()
    batch = reader._next()
    reader._close()
    return batch


class Reader:
    """Batches of `make()`, again from its beginning where it ends (`Stream.read`).

    Args:
      make: opens a reader, an iterable of batches.
      item: (batch, its number) -> what a batch is made of; raises where it is none.
    """

    def __init__(self, make: Callable[[], Any], item: Callable[[Any, int], PyTree]):
        self.make, self.item = make, item
        self.lock = threading.RLock()  # the next is read while the device works
        self.batches: Iterator | None = None
        self.holder: tuple | None = None
        self.at = self.since = 0
        self.first: PyTree | None = None
        self.other_beginning = False
        self.noted: dict[int, Place] = {}
        self.restored: tuple[int, Place] | None = None

    def __call__(self, first: int, n: int) -> PyTree:
        first, n = int(first), int(n)
        with self.lock:
            if (first, n) == (0, 1) and self.first is not None:
                found = [self.first]  # of shapes and records, while it is elsewhere
            else:
                self._go_to(first)
                self._note()
                found = [self.item(self._next(), self.at - 1) for _ in range(n)]
                self._note()
        return jax.tree.map(lambda *a: np.stack(a), *found)

    def count(self, at_most: int) -> int:
        """How many batches there are, each of which is looked at; it ends where they do."""
        with self.lock:
            self._open()
            for n in range(at_most):
                try:
                    batch = next(self._batches())
                except StopIteration:
                    break
                self._seen(self.item(batch, n), n)
            else:
                n = at_most
            self._close()
        if not n:
            raise ValueError(self._nothing())
        return n

    # Where it is

    def save(self, position: int) -> dict[str, Any]:
        """A `StreamSave`. A place that was noted is there while more is being read."""
        place = self.noted.get(position)
        if place is None:
            with self.lock:
                if position not in self.noted:
                    self._go_to(position)
                    self._note()
                place = self.noted[position]
        return place._asdict()

    def restore(
        self, position: int, saved: dict[str, Any] | None, say: Callable[[str], Any]
    ) -> None:
        """A `StreamRestore`."""
        with self.lock:
            self._close()
            place = None if saved is None else Place(**saved)
            self.restored = None if place is None else (position, place)
            self.noted = {} if place is None else {position: place}
        again = position if place is None else place.since if place.state is None else 0
        if again:
            say(
                f"the reader of the batches has no state of its own: {again:,} batches are "
                "read again to get to where training goes on"
            )

    def _note(self) -> None:
        self.noted.pop(self.at, None)
        self.noted[self.at] = Place(self.since, self._state())
        for old in [*self.noted][:-_NOTED]:
            del self.noted[old]

    def _state(self) -> Any:
        if self.holder is None or not self.since:
            return None
        of, (get, _) = self.holder
        try:
            return packed(getattr(of, get)())
        except TypeError:
            return None

    # Going on

    def _go_to(self, position: int) -> None:
        if self.restored is not None and self.restored[0] == position:
            place, self.restored = self.restored[1], None
            self._open(place.state)
            self.at, self.since = position, place.since
            if place.state is None:
                self.since = 0
                for _ in range(place.since):
                    self._next(counted=False)
        elif self.batches is None or position < self.at:
            self._open()
            self.at = 0
        while self.at < position:
            self._next()

    def _next(self, counted: bool = True) -> Any:
        try:
            batch = next(self._batches())
        except StopIteration:
            if not self.since:
                raise ValueError(self._nothing()) from None
            self._open()
            return self._next(counted)
        self.since, self.at = self.since + 1, self.at + counted
        if self.since == 1:
            self._seen(self.item(batch, self.at - 1), self.at - 1)
        return batch

    def _batches(self) -> Iterator:
        assert self.batches is not None
        return self.batches

    def _seen(self, item: PyTree, position: int) -> None:
        """The first batch of a reader that was opened; of all it should be the same."""
        if position == 0 and self.first is None:
            self.first = item
        elif self.since == 1 and not self.other_beginning and self.first is not None:
            pairs = zip(jax.tree.leaves(self.first), jax.tree.leaves(item), strict=True)
            if any(a.tobytes() != b.tobytes() for a, b in pairs):  # NaN is itself
                self.other_beginning = True
                warnings.warn(
                    "make(): what it opens begins with another batch each time; a training "
                    "that is stopped will not go on bit for bit (is its order seeded?)",
                    stacklevel=2,
                )

    def _open(self, state: Any = None) -> None:
        self._close()
        opened = self.make()
        if not hasattr(opened, "__iter__") and not hasattr(opened, "__next__"):
            raise TypeError(
                "make: expected a function that opens an iterable of batches, got one that "
                f"gives {type(opened).__name__}"
            )
        given = None if state is None else unpacked(state)
        if given is not None and (pair := _pair(opened)):
            getattr(opened, pair[1])(given)  # Hugging Face's: before it is begun
        batches = iter(opened) if hasattr(opened, "__iter__") else opened
        inner = _pair(batches)
        if given is not None and inner and not _pair(opened):
            getattr(batches, inner[1])(given)
        of = opened if _pair(opened) else batches
        self.holder = (of, pair) if (pair := _pair(of)) else None
        self.batches, self.since = batches, 0

    def _close(self) -> None:
        close = getattr(self.batches, "close", None)
        if callable(close):
            close()  # of a generator
        self.batches = self.holder = None
        self.since = 0

    def _nothing(self) -> str:
        again = (
            "" if self.first is None else ", though it did before; expected a new one"
        )
        return f"make(): the reader that it opened yields no batch{again}"

    def place(self) -> StreamPlace:
        return StreamPlace(self.save, self.restore)


def _pair(of: Any) -> tuple[str, str] | None:
    """The names by which it gives its state and takes it."""
    for get, set_ in PAIRS:
        if callable(getattr(of, get, None)) and callable(getattr(of, set_, None)):
            return get, set_
    return None


# A state as JSON has it


def packed(value: Any) -> Any:
    """Numbers, texts, bytes, arrays, tuples, lists and dicts of these; `unpacked` undoes it.

    Raises:
      TypeError: there is something else in it.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [packed(one) for one in value]
    if isinstance(value, tuple) and type(value) is tuple:
        return {"tuple": [packed(one) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[packed(k), packed(v)] for k, v in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        a = np.asarray(value)
        kind = "number" if isinstance(value, np.generic) else "array"
        return {kind: [a.dtype.str, list(a.shape), packed(a.tobytes())]}
    raise TypeError(f"a reader's state has a {type(value).__name__} in it")


def unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, of),) = value.items()
    if kind == "tuple":
        return tuple(map(unpacked, of))
    if kind == "dict":
        return {unpacked(k): unpacked(v) for k, v in of}
    if kind == "bytes":
        return base64.b64decode(of)
    dtype, shape, content = of
    a = np.frombuffer(unpacked(content), np.dtype(dtype)).reshape(shape).copy()
    return a if kind == "array" else a[()]
