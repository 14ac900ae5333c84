"""One case: all contestants built, compared, and measured in turns."""

import gc

from benchmarks import _clock, _floor
from benchmarks._agree import TOLERANCE, difference
from benchmarks._cases import Case
from benchmarks._contestants import (
    OURS,
    REMAT,
    Contestant,
    Declined,
    Program,
    contestants,
)


def entrants(device: str, only: list[str] | None) -> tuple[list[Contestant], dict]:
    found, missing = contestants(device)
    if only:
        unknown = set(only) - {c.name for c in found}
        if unknown:
            names = ", ".join(repr(c.name) for c in found)
            raise SystemExit(f"--only: expected some of {names}, got {sorted(unknown)}")
        found = [c for c in found if c.name in only]
    return found, missing


def case(case: Case, all_contestants: list[Contestant], seconds: float) -> dict:
    """The record of a case: figures by name, and why some take no part in it."""
    programs, declined = {}, {}
    for contestant in all_contestants:
        try:
            # In a short run once is enough.
            programs[contestant.name] = contestant.build(case, 1 if seconds < 10 else 2)
        except Declined as reason:
            declined[contestant.name] = str(reason)
    rows = _agreement(programs)
    for name in [
        name for name in programs if not rows[name]["difference"] <= TOLERANCE
    ]:
        apart = rows.pop(name)["difference"]
        declined[name] = f"its outputs or gradients are apart by {apart}"
        del programs[name]
    for name, program in programs.items():
        rows[name] |= dict(compile_s=program.compile_s, temp_bytes=program.temp_bytes)
    gradients = {n: p.gradient for n, p in programs.items()}
    gradients[_floor.PRODUCT] = _floor.product()
    gradients[_floor.START] = _floor.start(case)
    times = _clock.interleaved(gradients, seconds)
    product = _clock.summary(times.pop(_floor.PRODUCT))
    start = _clock.summary(times.pop(_floor.START))
    for name, t in times.items():
        rows[name]["gradient_ms"] = _clock.summary(t)
    forward = {n: p.forward for n, p in programs.items()}
    for name, t in _clock.interleaved(forward, seconds / 3).items():
        rows[name]["forward_ms"] = _clock.summary(t)
    programs.clear()
    gc.collect()
    return dict(
        case._asdict(),
        name=case.name,
        unit_bytes=case.unit,
        product_ms=product,
        start_ms=start,
        floor_ms=round(_floor.floor(case, product["min"]), 4),
        declined=declined,
        rows=rows,
    )


def _agreement(programs: dict[str, Program]) -> dict[str, dict]:
    """How far each is from the first peer; this project must agree with it."""
    answers = {name: program.answers() for name, program in programs.items()}
    peers = [name for name in answers if name not in (OURS, REMAT)]
    reference = answers[(peers or list(answers))[0]]
    rows = {}
    for name, answer in answers.items():
        rows[name] = dict(difference=float(f"{difference(answer, reference):.2g}"))
        if name in (OURS, REMAT) and not rows[name]["difference"] <= TOLERANCE:
            raise AssertionError(f"{name} is apart from {peers[0]}: {rows[name]}")
    return rows
