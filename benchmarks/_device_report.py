"""Tables from the JSON of `benchmarks.device`; nothing else is read."""

from benchmarks._contestants import OURS
from benchmarks._report import markdown

SMALL = 256  # hidden units up to which a goal is set
HEADS = {
    "agreement": "Agreement",
    "peers": "Beside others",
    "stretches": "Steps of a stretch, and of the body of a loop in it",
    "bodies": "Steps of the body of a loop",
    "sweep": "Many small models in one program",
    "kept": "What is kept for the way back",
    "offload": "States in the memory of the host",
    "bfloat16": "bfloat16",
    "memory": "Peak memory",
}
ABOUT = {
    "agreement": "Gradients of parameters and inputs: how far from those of a scan in exact "
    "products of float32, relative to the largest value of each array.",
    "memory": "XLA's temporary memory, and by how much the most that was in use of the "
    "device rose above what was before (`memory_stats`; where it says ≤, the most was from "
    "before). Each in a process of its own.",
}


def page(result: dict) -> str:
    """All there is, as Markdown."""
    parts = [_title(result), _goals(result["races"]), _summary(result["races"])]
    for kind, head in HEADS.items():
        records = [r for r in result["races"] if r["kind"] == kind]
        if not records:
            continue
        show = dict(agreement=_agreement, memory=_memory).get(kind, _each)
        parts += [f"## {head}", ABOUT.get(kind, ""), show(records), _reasons(records)]
    if result["left_out"]:
        parts += ["## No time was left for", "; ".join(result["left_out"]) + "."]
    return "\n\n".join(part for part in parts if part) + "\n"


def line(record: dict) -> str:
    """What became of a race, in a line."""
    found = [f"{name} {ms:.3g} ms" for name, ms in _times(record).items()]
    apart = [n for n, row in record["rows"].items() if row.get("agrees") is False]
    parts = [
        ", ".join(found) or f"{len(record['rows'])} ways",
        f"APART: {', '.join(apart)}" if apart else "",
        f"failed: {', '.join(record['failed'])}" if record["failed"] else "",
        record["cut"] or "",
    ]
    told = "; ".join(part for part in parts if part)
    return f"[{record['seconds']:.0f} s] {record['name']}: {told}"


def faster(record: dict, way: str, of: str = "min") -> float | None:
    """How many times as fast as the reference."""
    times = _times(record, of)
    if way not in times or record["reference"] not in times:
        return None
    return times[record["reference"]] / times[way]


def temp_ratio(record: dict, way: str) -> float | None:
    """Its temporary memory over that of the reference."""
    used = [
        record["rows"].get(n, {}).get("temp_bytes") for n in (way, record["reference"])
    ]
    return used[0] / used[1] if all(used) else None


def _title(result: dict) -> str:
    versions = ", ".join(f"{n} {v}" for n, v in result["versions"].items())
    dry = "**A dry run: small shapes on the CPU; no time in it means anything.**\n\n"
    return (
        f"# {result['device']}\n\n"
        + (dry if result["dry_run"] else "")
        + f"{result['runtime']}; {versions}; commit {result['commit'] or 'not known'}.\n\n"
        "Times are of one gradient of parameters and inputs, each library with the precision "
        "of products that is its default: the least, in brackets the median."
    )


def _goals(records: list) -> str:
    peers = [r for r in records if r["kind"] == "peers"]
    small = {r["name"]: faster(r, OURS) for r in peers if r["H"] <= SMALL}
    memory = {r["name"]: temp_ratio(r, OURS) for r in peers}
    rows = []
    for what, goal, found, worst in (
        (f"times as fast as `lax.scan`, H ≤ {SMALL}", "≥ 3", small, min),
        ("temporary memory over that of `lax.scan`", "< 1", memory, max),
    ):
        known = {name: value for name, value in found.items() if value is not None}
        if known:
            name = worst(known, key=lambda n: known[n])
            rows.append([what, goal, f"{known[name]:.2f}, {name}"])
    return markdown(rows, ["", "goal", "the worst"]) if rows else ""


def _summary(records: list) -> str:
    """Times as fast as the scan, a row a shape."""
    peers = [r for r in records if r["kind"] == "peers" and _times(r)]
    ways = list(
        dict.fromkeys(n for r in peers for n in _times(r) if n != r["reference"])
    )
    rows = [
        [r["name"], *(_pair(faster(r, w), faster(r, w, "median")) for w in ways)]
        for r in peers
    ]
    return markdown(rows, ["times as fast as `lax.scan`", *ways]) if rows else ""


def _agreement(records: list) -> str:
    ways = list(
        dict.fromkeys(n for r in records for n in r["rows"] if n != r["reference"])
    )

    def shown(row: dict | None) -> str:
        if row is None or "agrees" not in row:
            return ""
        apart = "NaN" if row["difference"] is None else f"{row['difference']:.1e}"
        return apart if row["agrees"] else f"**{apart}**"

    rows = [[r["name"], *(shown(r["rows"].get(w)) for w in ways)] for r in records]
    return markdown(rows, ["", *ways])


def _each(records: list) -> str:
    return "\n\n".join(_one(record) for record in records)


def _one(record: dict) -> str:
    """A race, a row a way."""
    rows = []
    for name, row in record["rows"].items():
        ms = row.get("gradient_ms")
        apart = row.get("difference")
        shown = "" if apart is None else f"{apart:.1e}"
        rows.append([
            name,
            "" if ms is None else f"{ms['min']:.3f} ({ms['median']:.3f})",
            _pair(faster(record, name), faster(record, name, "median")),
            _megabytes(row["temp_bytes"]) + (
                f" + {_megabytes(row['host_bytes'])} of the host" if "host_bytes" in row else ""
            ),
            "" if row["compile_s"] is None else f"{row['compile_s']:.1f}",
            f"{row['first_call_s']:.2f}",
            f"**{shown or 'NaN'}**" if row.get("agrees") is False else shown,
        ])  # fmt: skip
    head = [
        record["name"], "ms", "times as fast", "temp, MB", "compile, s", "first call, s", "apart",
    ]  # fmt: skip
    return markdown(rows, head)


def _memory(records: list) -> str:
    rows = []
    for record in records:
        for name, row in record["rows"].items():
            shape = record["name"].removeprefix("memory, ").removesuffix(f", {name}")
            rows.append(
                [shape, name, _megabytes(row["temp_bytes"]), _rise(row["memory"])]
            )
    return markdown(rows, ["", "", "temp, MB", "peak, MB"])


def _rise(memory: dict) -> str:
    if "by_library" in memory:
        return _megabytes(memory["by_library"]) + " in all"
    before, after = memory["before"], memory["after"]
    if not before or not after:
        return "not told"
    most = after["peak_bytes_in_use"]
    earlier = "≤ " if most == before["peak_bytes_in_use"] else ""
    return earlier + _megabytes(most - before["bytes_in_use"])


def _reasons(records: list) -> str:
    lines = []
    for record in records:
        for kind, to in (("failed", "failed"), ("declined", "takes no part")):
            lines += [
                f"- {record['name']}: {name} {to}: {why}"
                for name, why in record[kind].items()
            ]
        if record["cut"]:
            lines.append(f"- {record['name']}: {record['cut']}")
    return "\n".join(lines)


def _times(record: dict, of: str = "min") -> dict[str, float]:
    rows = record["rows"].items()
    return {name: row["gradient_ms"][of] for name, row in rows if "gradient_ms" in row}


def _pair(least: float | None, median: float | None) -> str:
    return "" if least is None or median is None else f"{least:.2f} ({median:.2f})"


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f}"
