"""Writes the README's tables from `results/*.json`."""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def table(rows: dict[str, dict], cell=str) -> str:
    columns = list(dict.fromkeys(c for row in rows.values() for c in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [cell(row[c]) if c in row else "" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def memory() -> str:
    result = json.loads((RESULTS / "memory.json").read_text())
    return table(result["temp"]) + f"\n\nJAX {result['jax']}, CPU."


def speed() -> str:
    result = json.loads((RESULTS / "speed.json").read_text())

    def cell(entry):
        return f"{entry['ratio_of_minima']} ({entry['ratio_of_medians']})"

    return (
        table(result["time"], cell)
        + f"\n\nRatio of minima (of medians). JAX {result['jax']}, float32, CPU with "
        f"{result['vector_instructions']}. Less is better."
    )


def main():
    page = ROOT / "README.md"
    text = page.read_text()
    for name, write in dict(memory=memory, speed=speed).items():
        pattern = rf"<!-- {name} -->.*?(<!-- /{name} -->|\n\n)"
        block = f"<!-- {name} -->\n{write()}\n<!-- /{name} -->"
        text = re.sub(
            pattern, lambda _, b=block: b + "\n\n", text, count=1, flags=re.DOTALL
        )
        text = text.replace(f"<!-- /{name} -->\n\n\n\n", f"<!-- /{name} -->\n\n")
    page.write_text(text)


if __name__ == "__main__":
    main()
