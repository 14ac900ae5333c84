"""Reads XLA's text of a compiled program: which products are computed where."""

import itertools
import re
from typing import NamedTuple

_NAME = r"%?([\w.\-]+)"
_HEAD = re.compile(rf"^(?:ENTRY )?{_NAME} \(.*\{{$")
_INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?{_NAME} = (.*)$")
_CALLED = re.compile(rf"(?:calls|to_apply|body|condition|\w+_computation)={_NAME}")
_CALLED_MANY = re.compile(r"\w+_computations=\{([^}]*)\}")
PRODUCTS = {"dot", "convolution", "custom-call"}
"""A library's matrix product is a custom call; one in a fusion is a dot inside it."""


class Instruction(NamedTuple):
    name: str
    op: str
    shapes: list[tuple[int, ...]]  # of its results
    called: list[str]
    body: str | None
    operands: list[str]
    text: str  # what is behind its type


Module = dict[str, list[Instruction]]


def parse(text: str) -> Module:
    """The instructions of each computation."""
    module, current = {}, None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = module.setdefault(head[1], [])
        elif current is not None and (found := _INSTRUCTION.match(line)):
            current.append(_instruction(found[1], found[2]))
    return module


def _instruction(name: str, text: str) -> Instruction:
    kind, rest = _split_type(text)
    many = itertools.chain(*(m.split(",") for m in _CALLED_MANY.findall(rest)))
    called = _CALLED.findall(rest) + [name.strip(" %") for name in many]
    body = re.search(rf"body={_NAME}", rest)
    shapes = [
        tuple(int(n) for n in dims.split(",") if n)
        for dims in re.findall(r"\w+\[([\d,]*)\]", kind)
    ]
    op, arguments = rest.split("(", 1)
    operands = re.findall(r"%([\w.\-]+)", arguments.split(")")[0])
    return Instruction(name, op, shapes, called, body and body[1], operands, rest)


def _split_type(text: str) -> tuple[str, str]:
    """The type of the results, and what comes after it."""
    if not text.startswith("("):
        return tuple(text.split(" ", 1))
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: i + 1], text[i + 2 :]
    raise ValueError(f"a type without an end: {text}")


def reachable(module: Module, start: str) -> set[str]:
    """The computation itself and all that it calls, at any depth."""
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [c for i in module[name] for c in i.called]
    return seen


def inside(module: Module, start: str) -> list[Instruction]:
    return [i for name in reachable(module, start) for i in module[name]]


def innermost_loops(module: Module) -> list[str]:
    """Bodies of the loops that hold no other loop: those over single steps."""
    bodies = {i.body for found in module.values() for i in found if i.op == "while"}
    return [
        body for body in bodies if all(i.op != "while" for i in inside(module, body))
    ]


def products(instructions) -> list[tuple[int, ...]]:
    """The shapes of the matrix products among the instructions."""
    return [shape for i in instructions if i.op in PRODUCTS for shape in i.shapes]


FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast"}
SAME = {"bitcast", "reshape", "convert", "copy", "add", "multiply"}


def kernels(module: Module, body: str) -> list[Instruction]:
    """What a loop's body starts once a step, without what counts the steps."""
    return [i for i in module[body] if i.op not in FREE and any(map(len, i.shapes))]


def cut_from_what_is_read(module: Module, body: str) -> list[Instruction]:
    """Slices, within one kernel, of what that kernel reads of one step's row.

    XLA:CPU's code for them is slow (`benchmarks/levers.py`).
    """
    found = []
    for called in {c for i in kernels(module, body) for c in i.called}:
        read: set[str] = set()
        for i in module[called]:
            if i.op == "dynamic-slice" or (i.op in SAME and read & set(i.operands)):
                read.add(i.name)
            elif i.op == "slice" and read & set(i.operands):
                found.append(i)
    return found
