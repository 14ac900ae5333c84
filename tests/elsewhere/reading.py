"""What a compiled program does, read from what its compiler writes."""

import collections
import dataclasses
import glob
import pathlib
import re

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
)
FREE = {
    "after-all", "async-done", "bitcast", "constant", "copy-done", "get-tuple-element",
    "opt-barrier", "parameter", "partition-id", "replica-id", "slice-done", "tuple",
}  # fmt: skip
WHILE = re.compile(r" while\(.*?condition=%?([\w.\-]+), body=%?([\w.\-]+)")


# A GPU's program: XLA's list of thunks


@dataclasses.dataclass
class Thunk:
    """What a GPU's program runs: a kernel, a copy, a product; or what holds such."""

    kind: str
    name: str  # of the instruction
    inside: list["Thunk"] = dataclasses.field(default_factory=list)
    trips: int = 1

    @property
    def is_loop(self) -> bool:
        return self.kind == "kWhile"

    @property
    def is_graph(self) -> bool:
        return self.kind == "kCommandBuffer"

    @property
    def is_group(self) -> bool:
        return self.kind in ("kSequential", "kConditional", "kAsyncStart")


def thunks(folder: str, hlo: str) -> list[Thunk]:
    """Of the files that `xla_dump_to` leaves."""
    found = {}
    for m in re.finditer(r"%?([\w.\-]+) = .* while\(.*", hlo):
        n = re.search(r'"known_trip_count":\{"n":"(\d+)"', m[0])
        if n is None:
            raise ValueError(f"a loop of unknown length: {m[1]}")
        found[m[1]] = int(n[1])
    # one list where no graph was formed, else one before and one after
    lists = glob.glob(f"{folder}/*.thunk_sequence*.txt")
    path = max(lists, key=lambda p: "after_thunk_passes" in p)
    names = _names(_only(f"{folder}/*.thunk_metadata.txt"))
    return _parsed(pathlib.Path(path).read_text(), names, found)


def _only(pattern: str) -> str:
    (path,) = glob.glob(pattern)
    return pathlib.Path(path).read_text()


def _names(metadata: str) -> dict[int, str]:
    """The instruction of each thunk."""
    names = {}
    for part in metadata.split("thunk_metadata {")[1:]:
        number = re.search(r"thunk_id: (\d+)", part)
        name = re.search(r'profile_annotation: "([^"]*)"', part)
        if number and name:
            names[int(number[1])] = name[1]
    return names


def _parsed(text: str, names: dict[int, str], trips: dict[str, int]) -> list[Thunk]:
    """The tree that indentation draws, of a loop

        010: kWhile
        condition:
            011: ...
          body:
            012: ...

    Conditions are left out: where the number of turns is known the host counts.
    """
    root = Thunk("kSequential", "")
    opened = [(-1, root)]  # indentation, what is below it
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.strip() == "condition:":
            opened.append((opened[-1][0] + 1, Thunk("", "")))
        elif line.strip() == "body:":
            while opened[-1][0] > indent - 2:
                opened.pop()
            assert opened[-1][1].is_loop, line
        elif m := re.match(r" *(\d+): (k\w+)", line):
            while opened[-1][0] >= indent:
                opened.pop()
            name = names.get(int(m[1]), "")
            thunk = Thunk(m[2], name, trips=trips.get(name, 1))
            opened[-1][1].inside.append(thunk)
            opened.append((indent, thunk))
    return root.inside


def operations(each: list[Thunk]) -> int:
    """What the device runs, loops multiplied out."""
    total = 0
    for t in each:
        if t.is_loop or t.is_graph or t.is_group:
            total += t.trips * operations(t.inside)
        elif t.kind != "kAsyncDone":
            total += 1
    return total


def host_launches(each: list[Thunk]) -> int:
    """What the host issues: a graph is one; a loop that is in no graph is driven by it."""
    total = 0
    for t in each:
        if t.is_loop or t.is_group:
            total += t.trips * host_launches(t.inside)
        elif t.kind != "kAsyncDone":
            total += 1
    return total


# Any program: HLO


def computations(hlo: str) -> dict[str, list[str]]:
    found, lines = {}, []
    for line in hlo.splitlines():
        m = re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if m:
            lines = found["ENTRY" if m[1] else m[2]] = []
        elif line.startswith("  "):
            lines.append(line.strip())
    return found


def operation(line: str) -> str:
    m = re.match(r"(?:ROOT )?%?[\w.\-]+ = (?:\(.*?\)|\S+) ([\w\-]+)\(", line)
    return m[1] if m else ""


def turns(of: dict[str, list[str]], line: str) -> int:
    """Of a loop: as it is noted, or (TPU) from the constant that it counts up to."""
    noted = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
    if noted:
        return int(noted[1])
    for name in WHILE.search(line).groups():
        for inner in of[name]:
            m = re.search(r" compare\(%?[\w.\-]+, %?([\w.\-]+)\), direction=LT", inner)
            if m is None:
                continue
            constant = rf"%?{re.escape(m[1])} = s32\[\]\S* constant\((\d+)\)"
            for other in of[name]:
                if c := re.match(constant, other):
                    return int(c[1])
    raise ValueError(f"a loop of unknown length: {line[:200]}")


def loops(hlo: str) -> list[str]:
    """ "32 of 51": turns, and the instructions of a turn that do something."""
    of, found = computations(hlo), []
    for lines in of.values():
        for line in lines:
            if m := WHILE.search(line):
                work = [n for n in map(operation, of[m[2]]) if n and n not in FREE]
                found.append(f"{turns(of, line)} of {len(work)}")
    return sorted(found)


def collectives(hlo: str) -> dict[str, int]:
    """How many exchanges of each kind are outside of loops, and in them."""
    of, found = computations(hlo), collections.Counter()

    def visit(name: str, where: str) -> None:
        for line in of.get(name, []):
            kind = operation(line).removesuffix("-start")
            if m := WHILE.search(line):
                visit(m[2], "in a loop")
            elif kind in COLLECTIVES:
                found[f"{kind} {where}"] += 1
            elif m := re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", line):
                visit(m[1], where)

    visit("ENTRY", "outside of loops")
    return dict(sorted(found.items()))
