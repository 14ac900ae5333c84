"""What a check found, as a table."""

from typing import NamedTuple


class Row(NamedTuple):
    """One leaf of an argument (or of the results), in the case where it was worst.

    leaf: `params['w_h']`, `carry.c`, `xs`; `final carry…` and `ys…` are results.
    largest: the largest entry of the gradient over all cases.
    hand_grad: relative error of the hand-derived gradient against `jax.grad`.
    hand_truth, grad_truth: of both against differences of the forward pass (NaN where
        there were none).
    wrong: "", "hand-derived", "jax.grad", "both" or "undecided".
    case: the lengths, shapes and side inputs of that case.
    """

    leaf: str
    largest: float
    hand_grad: float
    hand_truth: float
    grad_truth: float
    wrong: str
    case: str

    @property
    def error(self) -> float:
        return max(e for e in self[2:5] if e == e)


class Report(NamedTuple):
    """The worst row of each leaf; `print` shows it as a table.

    claims: what the cell says of itself and is true: of "pointwise", "couplings", "affine".
    """

    name: str
    rows: tuple[Row, ...]
    cases: int
    truth: str
    tolerance: float
    seconds: float
    claims: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[Row, ...]:
        """Rows in which something was wrong, be it `jax.grad` alone."""
        return tuple(row for row in self.rows if row.wrong)

    def __str__(self) -> str:
        verdict = "right" if not self.wrong else f"{len(self.wrong)} of these WRONG"
        title = f"{self.name}: {len(self.rows)} leaves in {self.cases} cases: {verdict}"
        says = (
            f"the cell says rightly {', '.join(self.claims)}; " if self.claims else ""
        )
        end = (
            f"relative errors in float64, each the worst of all cases; truth: "
            f"{self.truth}; {says}{self.seconds:.1f} s"
        )
        return "\n".join([title, *_table(self.rows), end])


HEADS = "leaf", "largest", "hand-grad", "hand-truth", "grad-truth", "wrong", "worst at"


def _table(rows: tuple[Row, ...]) -> list[str]:
    """Lines of one width a column; numbers stand to the right."""
    cells = [HEADS, *map(_texts, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = tuple("-" * width for width in widths)
    return [
        "  ".join(
            f"{text:>{width}}" if 1 <= i <= 4 else f"{text:<{width}}"
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (cells[0], rule, *cells[1:])
    ]


def _texts(row: Row) -> tuple[str, ...]:
    errors = ("-" if e != e else f"{e:.1e}" for e in row[2:5])
    return row.leaf, f"{row.largest:.1e}", *errors, row.wrong or "-", row.case
