"""Writes the tables of the READMEs from the committed results.

python -m benchmarks.tables            # rewrites them
python -m benchmarks.tables --check    # fails where they differ
"""

import json
import pathlib
import re
import sys

from benchmarks import _report, _training_step
from benchmarks._contestants import OURS, REMAT

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = RESULTS / "peers-cpu.json"
ALSO = {
    "AVX2": RESULTS / "peers-cpu-avx2.json",
    "JAX 0.12": RESULTS / "peers-cpu-jax0.12.json",
}


def read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text())


def table(rows: dict[str, dict], cell=str) -> str:
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [cell(row[c]) if c in row else "" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory() -> str:
    result = read(RESULTS / "memory.json")
    return table(result["temp"]) + f"\n\nJAX {result['jax']}, CPU."


def peers() -> str:
    """Times faster than the fastest JAX peer: gradient (forward), a row a shape."""
    result = read(PEERS)
    rows: dict[str, dict] = {}
    for record in result["cases"]:
        best = f"{_report.speedup(record):.2f} ({_report.speedup(record, 'forward_ms'):.2f})"
        rows.setdefault(_shape(record), {})[record["cell"]] = best
    rows["geometric mean"] = _means(result)
    for name, path in ALSO.items():
        rows[f"geometric mean, {name}"] = _means(read(path))
    return table(rows) + "\n\n" + _about(result)


def _means(result: dict) -> dict[str, str]:
    means = {
        cell: _report.geometric_mean([_report.speedup(r) for r in of])
        for cell, of in _by_cell(result).items()
    }
    return {cell: f"{mean:.2f}" for cell, mean in means.items()}


def peers_memory() -> str:
    """Temp memory relative to flax.linen.RNN: as it is (under `remat`)."""
    rows: dict[str, dict] = {}
    for record in read(PEERS)["cases"]:
        of = [_report.temp_ratio(record, name) for name in (OURS, REMAT)]
        rows.setdefault(_shape(record), {})[record["cell"]] = "{:.2f} ({:.2f})".format(
            *of
        )
    return table(rows)


def training_step() -> str:
    rows = _training_step.ratios(read(PEERS)["training_step"])
    columns = dict(faster="times faster", memory="of its memory")
    return table({n: {columns[c]: row[c] for c in columns} for n, row in rows.items()})


def all_cases() -> str:
    result = read(PEERS)
    rows = _report.summary_rows(result)
    return _report.markdown(rows) + "\n\n" + _about(result)


def goals() -> str:
    """What is to be reached, and what was, in each run."""
    runs = {"": read(PEERS)} | {name: read(path) for name, path in ALSO.items()}
    rows: dict[str, dict] = {}
    for name, run in runs.items():
        column = name or f"{run['vector_instructions']}, JAX {run['versions']['jax']}"
        for what, goal, reached in _report.goals(run):
            rows.setdefault(what, dict(goal=goal))[column] = reached
    return table(rows) + "\n\n" + "\n".join(f"- {_about(run)}" for run in runs.values())


def profile() -> str:
    """A row a case: milliseconds of each part / its products alone / at full speed."""
    result = read(RESULTS / "profile.json")
    rows = {}
    for record in result["cases"]:
        parts = record["parts"]
        total = {of: sum(row[of] for row in parts.values()) for of in OF_PART}
        rows[record["name"]] = {
            "gradient": f"{record['gradient_ms']['min']:.0f}",
            "all parts": _slashed(total),
            **{name: _slashed(row) for name, row in parts.items()},
        }
    return table(rows)


OF_PART = ("ms", "products_ms", "ideal_ms")


def _slashed(row: dict) -> str:
    digits = 0 if row["ms"] >= 100 else 1
    return " / ".join(f"{row[of]:.{digits}f}" for of in OF_PART)


def levers() -> str:
    rows: dict[str, dict] = {}
    for file in ("levers.json", "levers-avx2.json"):
        result = read(RESULTS / file)
        for lever in LEVERS:
            for shape, found in result.get(lever, {}).items():
                ratio = "{min:.2f} ({median:.2f})".format(**found["times_slower"])
                row = rows.setdefault(f"{lever} {shape}", {})
                row[result["vector_instructions"]] = ratio
                if "memory" in found:
                    row["memory"] = f"{found['memory']:.2f}"
    return table(rows)


LEVERS = ("outer_sum", "by_gate", "columns", "stored_gates", "stored_gates_gru")


def _shape(record: dict) -> str:
    deep = "" if record["depth"] == 1 else f", {record['depth']} layers"
    return "({B}, {T}, {I}, {H})".format(**record) + deep


def _by_cell(result: dict) -> dict[str, list]:
    cells: dict[str, list] = {}
    for record in result["cases"]:
        cells.setdefault(record["cell"], []).append(record)
    return cells


def _about(result: dict) -> str:
    versions = result["versions"]
    return (
        f"{result['cores']} cores with {result['vector_instructions']}, float32, "
        f"JAX {versions['jax']}, flax {versions['flax']}"
        + (f", torch {versions['torch']}." if "torch" in versions else "; no torch.")
    )


def minutes(seconds: int | None) -> str:
    return "?" if seconds is None else f"{seconds / 60:.1f}"


def character() -> str:
    rows = {}
    for version, result in read(
        ROOT / "experiments" / "character_model" / "results.json"
    ).items():
        by_hand = [r for r in result["runs"] if r["unroll"] == "bptt"]
        rows[f"Python {version}'s library"] = {
            "5-gram": result["ngram"],
            "LSTM, a run each": ", ".join(f"{r['held_out']}" for r in by_hand),
            "minutes": ", ".join(minutes(r["seconds"]) for r in by_hand),
            "JAX": result["jax"],
            "CPU": result["vector_instructions"],
        }
    return table(rows)


def sweep() -> str:
    """Time of a sweep over that of its configurations one by one."""
    result = read(RESULTS / "sweep.json")
    rows = {
        f"H = {r['H']}, {r['configs']} configurations": {
            "command": f"{r['command_to_alone']:.2f}",
            "command, layout known": f"{r['command_again_to_alone']:.2f}",
            "one device, in a process": f"{r['process_to_alone']:.2f}",
            "command over PyTorch": f"{r['command_to_torch']:.2f}",
            "alone, s": f"{min(r['alone_seconds']):.3f}",
        }
        for r in result["cases"]
    }
    return table(rows) + "\n\n" + _about(result)


def commands() -> str:
    """Whole commands over those of a commit before kernels, minima (medians)."""
    result = read(RESULTS / "commands.json")
    rows = {}
    for name, case in result["cases"].items():
        ratios = case["here_to_other"]
        show = lambda r: f"{r['min']:.2f} ({r['median']:.2f})"
        steps = ratios.get("seconds_of_a_step")
        rows[OF_COMMANDS[name]] = {
            "whole": show(ratios["seconds"]),
            "a step": show(steps) if steps else "",
            "before": f"{min(a['seconds'] for a in case['other']):.0f} s",
            "rounds": len(case["other"]),
        }
    return table(rows) + "\n\n" + _about(result)


OF_COMMANDS = {
    "sweep16": "`bptt-jax sweep`, H = 16, 512 configurations",
    "sweep32": "`bptt-jax sweep`, H = 32, 256 configurations",
    "train": "`bptt-jax train`, 250 steps",
}


def diagnose() -> str:
    """What looking costs, over the gradient alone: time (medians), temporary memory."""
    result = read(RESULTS / "diagnose.json")
    rows = {}
    for r in result["cases"]:
        cells = rows.setdefault(f"{r['cell']} {tuple(r['shape'])}", {})
        for name, ratio in r["to_gradient"].items():
            time, median = ratio["time"]["min"], ratio["time"]["median"]
            cells[f"`{name}`: time"] = f"{time:.2f} ({median:.2f})"
            cells[f"`{name}`: memory"] = f"{ratio['memory']:.2f}"
    return table(rows) + "\n\n" + _about(result)


def drop_in() -> str:
    """flax's own over ours: times faster (medians), times less temporary memory."""
    result = read(RESULTS / "drop_in.json")
    rows: dict = {}
    for r in result["cases"]:
        shape = f"({r['B']}, {r['T']}, {r['I']}, {r['H']})"
        cells = rows.setdefault(f"{r['cell']} {shape}", {})
        library = r["library"]
        cells[f"{library}: faster"] = f"{r['faster']:.2f} ({r['faster_median']:.2f})"
        cells[f"{library}: leaner"] = f"{r['leaner']:.2f}"
    return table(rows) + "\n\n" + _about(result)


def models() -> str:
    """How many times slower than ours (medians), and how many times more memory."""
    result = read(RESULTS / "models.json")
    rows: dict = {}
    for record in result["cases"]:
        name = f"{record['model']} {tuple(record['shape'])}"
        cells = rows.setdefault(name, {})
        ours = record["rows"]["bptt_jax"]
        cells["bptt_jax, ms"] = f"{ours['gradient_ms']['min']:.0f}"
        for way, row in record["rows"].items():
            if row is ours:
                continue
            least, median = (
                row["gradient_ms"][of] / ours["gradient_ms"][of]
                for of in ("min", "median")
            )
            cells[f"{way}: time"] = f"{least:.2f} ({median:.2f})"
            if row["temp_bytes"]:
                cells[f"{way}: memory"] = (
                    f"{row['temp_bytes'] / ours['temp_bytes']:.2f}"
                )
    return table(rows) + "\n\n" + _about(result)


def steps() -> str:
    """Microseconds of one step, the least."""
    result = read(RESULTS / "steps.json")
    rows = {}
    for r in result["cases"]:
        name = f"{r['cell']}, B = {r['B']}, H = {r['H']}"
        rows[name] = {n: f"{t['min']:.0f}" for n, t in r["microseconds"].items()}
    return table(rows) + "\n\n" + _about(result)


def forward_mode() -> str:
    """Time over that of `unrolls.scan`, and temporary memory in units of T·B·H floats."""
    result = read(RESULTS / "forward_mode.json")
    rows: dict = {}
    for case in result["cases"]:
        T, B, H = (case[name] for name in "TBH")
        for operation, row in case["operations"].items():
            cells = rows.setdefault(f"{case['cell']}, {operation}", {})
            for unroll in ("scan", "bptt", "both_modes"):
                found, units = row.get(unroll), 4 * T * B * H
                cells[f"{unroll}: memory"] = (
                    f"{found['temp_bytes'] / units:.1f}" if found else ""
                )
                if unroll != "scan":
                    cells[f"{unroll}: time"] = (
                        f"{found['to_scan']['min']:.2f}" if found else ""
                    )
    return table(rows) + "\n\n" + _about(result)


def processes() -> str:
    """The same sweep in several processes of one machine."""
    result = read(RESULTS / "processes.json")
    rows = {
        f"{n}": {
            "command, s": r["seconds"],
            "with one step, s": r["of_one_step"],
            "a gather, ms": r["gather_ms"],
        }
        for n, r in result["processes"].items()
    }
    about = f"{result['configs']} configurations of {result['steps']} steps"
    return table(rows) + f"\n\n{about}; " + _about(result)


def workers() -> str:
    """What the client of a sweep over workers takes, by quarters of its groups."""
    result = read(RESULTS / "workers.json")
    names = ("first quarter", "second", "third", "last")
    rows = {
        "a group, ms": dict(zip(names, result["milliseconds"], strict=True)),
        "most memory, MB": dict(zip(names, result["megabytes"], strict=True)),
    }
    about = (
        f"{result['groups']:,} groups of one configuration with {result['evaluations']} "
        f"evaluations each, {result['workers']} workers that compute nothing; the table in "
        f"the end takes {result['table_seconds']} s; "
    )
    return table(rows) + "\n\n" + about + _about(result)


def search() -> str:
    """Optuna's samplers at equal budget: the best held-out error, seed by seed."""
    result = read(RESULTS / "search.json")
    rows = {
        name: {f"seed {i}": f"{each[-1]:.4g}" for i, each in enumerate(of)}
        for name, of in result["best_so_far"].items()
    }
    seeds = len(result["best_so_far"]["tpe"])
    about = (
        f"the best of {result['trials']} trainings of {result['steps']} steps, "
        f"{result['lanes']} at a time; TPE is ahead in {result['tpe_ahead']} of {seeds}; "
        f"Optuna {result['optuna']}; "
    )
    return table(rows) + "\n\n" + about + _about(result)


def saves() -> str:
    """What is kept, one way after the other: over the way that keeps states alone."""
    result = read(RESULTS / "against.json")
    rows = {}
    for name, case in result["cases"].items():
        found = case["rows"]
        row = rows[name] = {}
        for save in ("GATES", "COEFFICIENTS"):
            row[save] = "{:.2f} ({:.2f})".format(
                *(found[save][of] / found["other"][of] for of in ("min", "median"))
            )
            row[f"{save}: memory"] = (
                f"{found[save]['temp'] / found['other']['temp']:.2f}"
            )
        by_rule = found["here"]["temp"] != found["other"]["temp"]
        row["the rule"] = "gates" if by_rule else "states"
    return table(rows) + "\n\n" + _about(result)


def kept() -> str:
    """What the rule keeps, over states alone, and both over another checkout."""
    result = read(RESULTS / "against-avx2.json")
    rows = {}
    for name, case in result["cases"].items():
        found = case["rows"]
        one = {"over states": "", "over states: memory": ""}
        over = lambda a, b, found=found: "{:.2f} ({:.2f})".format(
            *(found[a][of] / found[b][of] for of in ("min", "median"))
        )
        if found["here"]["temp"] != found["STATES"]["temp"]:
            one["over states"] = over("here", "STATES")
            memory = found["here"]["temp"] / found["STATES"]["temp"]
            one["over states: memory"] = f"{memory:.2f}"
        one["over before"] = over("here", "other")
        rows[name] = one
    about = f"Before: {result['other'][:7]}; "
    return table(rows) + "\n\n" + about + _about(result)


def pages() -> str:
    """Kernels with large pages, over the commit before; pages that a call faults in."""
    result = read(RESULTS / "against-pages.json")
    rows = {}
    for name, case in result["cases"].items():
        here, other = case["rows"]["here"], case["rows"]["other"]
        if other["faults"] < FEW_PAGES:
            continue
        ratios = (here[of] / other[of] for of in ("min", "median"))
        rows[name] = {
            "time": "{:.2f} ({:.2f})".format(*ratios),
            "page faults": f"{here['faults']:,.0f}",
            "before": f"{other['faults']:,.0f}",
        }
    about = f"Before: {result['other'][:7]}; "
    return table(rows) + "\n\n" + about + _about(result)


FEW_PAGES = 1000


def allocations() -> str:
    """Glibc told to keep memory, or to take large pages: times faster than as it is."""
    result = read(RESULTS / "allocations.json")
    rows: dict = {}
    for case in result["cases"]:
        for name, ways in case["rows"].items():
            shape = "({}, {}, {}, {})".format(*case["shape"])
            cells = rows[f"{shape}, {name}"] = {}
            for how, to in OF_ALLOCATIONS.items():
                row = ways[how]
                if how != "as_it_is":
                    ratio = "{min:.2f} ({median:.2f})".format(**row["faster"])
                    cells[f"{to}: faster"] = ratio
                cells[f"{to}: page faults"] = f"{row['faults']:,.0f}"
    busy = max(result["busy"].values())
    about = f"glibc {result['glibc']}; {busy:.0%} of the machine, at most, was busy before; "
    return table(rows) + "\n\n" + about + _about(result)


OF_ALLOCATIONS = dict(
    as_it_is="as it is", kept="three", one_arena="all four", large_pages="large pages"
)


def data_wait() -> str:
    """The share of a training's time in which its loop waits for data."""
    result = read(RESULTS / "data_wait.json")
    rows = {
        f"`tasks.{name}`: {case['what']}": {
            "least": f"{case['min']:.2%}",
            "median": f"{case['median']:.2%}",
            "most": f"{case['max']:.2%}",
            "updates a second": f"{case['updates_per_second']:.0f}",
        }
        for name, case in result["cases"].items()
    }
    runs = max(case["runs"] for case in result["cases"].values())
    about = (
        f"{runs} trainings of {result['updates']} updates each; {result['busy']:.0%} of "
        "the machine was busy before; "
    )
    return table(rows) + "\n\n" + about + _about(result)


def japanese_vowels() -> str:
    """One seed of the notebook's program, beside the usual one in PyTorch."""
    result = read(RESULTS / "japanese_vowels.json")
    rows = {
        name: {
            "seconds": "{min:.1f} ({median:.1f})".format(**case["seconds"]),
            "of these compiling": "{min:.1f} ({median:.1f})".format(
                **case["compiling"]
            ),
            "right of the 370, a seed each": ", ".join(
                f"{accuracy:.3f}" for accuracy in case["accuracy"]
            ),
        }
        for name, case in result["cases"].items()
    }
    about = f"{result['busy']:.0%} of the machine was busy before; "
    return table(rows) + "\n\n" + about + _about(result)


def on_paper() -> str:
    result = read(RESULTS / "processes.json")
    names = dict(
        training_hours="training, h",
        gathers_tree_hours="gathers, a tree, h",
        gathers_ring_hours="gathers, a ring, h",
        gathers_ring_one_evaluation_hours="a ring, one evaluation, h",
    )
    return table(
        {
            f"{r['hosts']:,} hosts": {to: r[name] for name, to in names.items()}
            for r in result["on_paper"]
        }
    )


def unrolls() -> str:
    """Temporary memory and time, a row a way to the gradient."""
    result = read(ROOT / "experiments" / "memory_versus_time" / "results.json")
    measured = result["rows"]
    rows = {
        to: {
            "MB": f"{measured[name]['temp_bytes'] / 1e6:.2f}",
            "time, bptt = 1": f"{measured[name]['ms'] / measured['bptt']['ms']:.2f}",
        }
        for name, to in OF_UNROLLS.items()
    }
    return table(rows) + f"\n\nJAX {result['jax']}, CPU, {result['machine']}."


OF_UNROLLS = {
    "scan": "a plain `lax.scan`, differentiated by JAX",
    "body": "the same, its body under `jax.checkpoint`",
    "bptt": "`unrolls.bptt`",
    "as it is": "`unrolls.checkpointed`, as it is",
    "50 states": "`unrolls.checkpointed`, 50 states, stretches of one step",
    "10 states": "… 10 states",
    "2 states": "… 2 states",
}

PAGES = {
    "README.md": (memory, peers, peers_memory, training_step, character),
    "benchmarks/README.md": (
        all_cases,
        goals,
        models,
        steps,
        profile,
        levers,
        sweep,
        commands,
        diagnose,
        forward_mode,
        drop_in,
        saves,
        kept,
        data_wait,
        japanese_vowels,
    ),  # fmt: skip
    "docs/decisions/0016-what-is-kept.md": (saves, kept),
    "docs/decisions/0019-one-kernel-for-the-loop.md": (pages,),
    "docs/choosing-an-unroll.md": (unrolls, memory),
    "docs/memory-of-a-process.md": (allocations,),
    "docs/scaling.md": (workers, search, processes, on_paper),
}


def written(page: str, tables) -> str:
    """The page with its tables as the results have them."""
    for write in tables:
        name = write.__name__
        pattern = rf"<!-- {name} -->\n.*?<!-- /{name} -->"
        block = f"<!-- {name} -->\n{write()}\n<!-- /{name} -->"
        page, found = re.subn(pattern, lambda _, b=block: b, page, flags=re.DOTALL)
        assert found == 1, f"the page lacks the marks of {name}"
    return page


def main():
    differ = []
    for name, tables in PAGES.items():
        page = ROOT / name
        text = written(page.read_text(), tables)
        if text != page.read_text():
            differ.append(name)
        if "--check" not in sys.argv:
            page.write_text(text)
    if differ and "--check" in sys.argv:
        raise SystemExit(f"not as the results have it: {', '.join(differ)}")


if __name__ == "__main__":
    main()
