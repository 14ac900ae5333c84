"""The lines of `metrics.jsonl`: of updates, of evaluations, of the end."""

import math
from typing import Any

import numpy as np

from bptt_jax.train._evaluate import LOSS


def of_updates(position: int, record: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Of each update its metrics, loss first; of one that counts for nothing that it is."""
    names = sorted(set(record) - {"real"}, reverse=True)
    real = record.get("real", np.ones(len(record["loss"]), bool))
    return [
        dict(
            step=position + i + 1,
            **({k: float(record[k][i]) for k in names} if real[i] else {"real": False}),
        )
        for i in range(len(real))
    ]


def evaluated(position: int, figures: dict[str, float]) -> dict[str, Any]:
    return dict(step=position, held_out=figures[LOSS], **_beside("metrics", figures))


def ended(
    position: int, last: dict[str, float], best_at: int, best: dict[str, float]
) -> dict[str, Any]:
    return dict(
        step=position,
        final_held_out=last[LOSS],
        best_step=best_at,
        best_held_out=best[LOSS],
        **_beside("final_metrics", last),
        **_beside("best_metrics", best),
    )


def _beside(name: str, figures: dict[str, float]) -> dict[str, Any]:
    """Figures other than the loss, if there are any; JSON has no infinity."""
    others = {
        k: v if math.isfinite(v) else None for k, v in figures.items() if k != LOSS
    }
    return {name: others} if others else {}
