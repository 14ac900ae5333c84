"""Which stages are of several steps at once, and where each result is stored."""

import itertools

from bptt_jax.native._stages import GIVEN, Buffer, Draft, Loop, Product

DEAR = frozenset("tanh logistic exp exp2 log log1p expm1 erf cbrt".split())


def phases(draft: Draft, stores: list) -> tuple[tuple[list, list, list], set[Buffer]]:
    """`Plan.early`, `steps` and `late`, and `Plan.several`.

    Args:
      stores: what else is stored, `(n, buffer, offset, node)`.
    """
    _finish(draft, stores)
    split = _split(draft)
    draft.stages = list(itertools.chain(*split))
    _spill(draft)
    left = iter(draft.stages)
    early, steps, late = (list(itertools.islice(left, len(phase))) for phase in split)
    return (early, steps, late), _between(draft, (early, steps, late))


def _finish(draft: Draft, stores: list) -> None:
    """Each result where it can first be, beside what it has in common with others."""
    left = []
    for n, *store in stores:
        reads = draft.read_by(store[2])
        written: set = {"x", "lag", "shared", "param", "carry"}
        of_carry: set = {"carry"}
        for stage, waits in _in_turn(draft):
            there = all({b, b.kind} & written for b in reads)
            same = waits == any({b, b.kind} & of_carry for b in reads)
            if isinstance(stage, Loop) and stage.n == n and there and same:
                stage.stores.append(tuple(store))
                break
            made = {b for *_, b in draft.parts(stage)}
            written |= made
            of_carry |= made if waits else set()
        else:
            left.append((n, *store))
    draft.loops(left)


def _split(draft: Draft) -> tuple[list, list, list]:
    """`Plan.early`, `steps` and `late`.

    A stage is early if it needs no carry. Of the others one is late, or of a loop some of
    what it stores, if neither the next carry needs it nor it the carry, and if it cannot
    be done beside what is needed without something that is late.
    """
    early, others = [], []
    for stage, waits in _in_turn(draft):
        if waits:
            others.append(list(draft.parts(stage)))
        else:
            if isinstance(stage, Product) and stage.x.kind in GIVEN:
                x = draft.copied(stage.x, stage.offset, stage.A)
                stage = stage._replace(x=x, offset=0)  # rows of several steps
            early.append(stage)
    early = [*draft.front, *early]
    every = [part for parts in others for part in parts]
    late = [p for p in every if p[2].kind != "next" and not _touches_carry(p[1])]
    while True:
        needed = {b for p in every if p not in late for b in p[1]}
        wanted = [p for p in late if p[2] in needed]
        if not wanted:
            break
        late = [p for p in late if p not in wanted]
    for part in list(late):
        made_late = {written for *_, written in late}
        if isinstance(part[0], Loop) and not part[1] & made_late:
            late.remove(part)
    split = lambda which: [
        stage for parts in others if (stage := _joined([p for p in parts if which(p)]))
    ]  # fmt: skip
    return early, split(lambda p: p not in late), split(lambda p: p in late)


def _in_turn(draft: Draft):
    """`(stage, whether it needs the carry)`."""
    of_carry = {"carry", "next"}
    for stage in draft.stages:
        parts = list(draft.parts(stage))
        touched = {b for _, reads, written in parts for b in (*reads, written)}
        waits = any({b, b.kind} & of_carry for b in touched)
        if waits:
            of_carry |= {written for *_, written in parts}
        yield stage, waits


def _spill(draft: Draft) -> None:
    """What is dear and wanted by two loops is kept by the first of them."""
    seen: dict[int, int] = {}
    for number, stage in enumerate(draft.stages):
        if not isinstance(stage, Loop):
            continue
        reached = draft.reached([node for *_, node in stage.stores])
        for node in sorted(reached):
            if draft.nodes[node].name in DEAR:
                first = seen.setdefault(node, number)
                earlier = draft.stages[first]
                if first != number and earlier.n == stage.n:
                    buffer = draft.temporary(stage.n, draft.nodes[node].dtype)
                    earlier.stores.append((buffer, 0, node))
                    load = draft.node("load", buffer.dtype, (buffer, 0))
                    stage = draft.replaced(stage, node, load)
        draft.stages[number] = stage


def _between(draft: Draft, phases) -> set[Buffer]:
    """What is not of one step alone is there for several."""
    touched: dict[Buffer, set] = {}
    for number, phase in enumerate(phases):
        for _, reads, written in itertools.chain(*map(draft.parts, phase)):
            for buffer in (*reads, written):
                touched.setdefault(buffer, set()).add(number)
    return {
        buffer for buffer, numbers in touched.items()
        if buffer.kind == "scratch" and numbers != {1}
    }  # fmt: skip


def _touches_carry(buffers: set) -> bool:
    return any(b.kind in ("carry", "next") for b in buffers)


def _joined(parts: list):
    """The stage that some parts of one are; None: none are."""
    if not parts or not isinstance(parts[0][0], Loop):
        return parts[0][0] if parts else None
    return Loop(parts[0][0].n, [store for part, *_ in parts for store in part.stores])
