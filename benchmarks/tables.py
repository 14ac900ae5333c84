"""Writes the README's tables from the committed results.

python benchmarks/tables.py            # rewrites them
"""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


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


def speed() -> str:
    result = read(RESULTS / "speed.json")

    def cell(entry):
        return f"{entry['ratio_of_minima']} ({entry['ratio_of_medians']})"

    return (
        table(result["time"], cell)
        + f"\n\nRatio of minima (of medians); less is better. JAX {result['jax']}, "
        f"float32, CPU with {result['vector_instructions']}."
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


def written(page: str) -> str:
    """The page with its tables as the results have them."""
    for name, write in dict(memory=memory, speed=speed, character=character).items():
        pattern = rf"<!-- {name} -->\n.*?<!-- /{name} -->"
        block = f"<!-- {name} -->\n{write()}\n<!-- /{name} -->"
        page, found = re.subn(pattern, lambda _, b=block: b, page, flags=re.DOTALL)
        assert found == 1, f"the README lacks the marks of {name}"
    return page


def main():
    page = ROOT / "README.md"
    page.write_text(written(page.read_text()))


if __name__ == "__main__":
    main()
