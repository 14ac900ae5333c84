"""Figures from arrays. Each function returns the figure; `figure.savefig(path)` writes it.

No window and no global state (`pyplot` is not used); a notebook shows a figure that is a
cell's value. Colours are told apart without colour vision: series that have names are those of
Okabe, Ito (2008) in turn; of what is in an order the best, or the first, is dark (cividis).

    loss                    one training: losses, held-out ones, baselines
    curves                  many trainings: medians, and the spread of their seeds
    confusion               which classes are taken for which
    forecast, residuals     numbers that were predicted, beside what came
    shares                  what part solves it, over what was varied
    against, heat_map, parallel_coordinates
                            scores over one, two, all hyperparameters of a sweep
    by_lag, flows, gradient_flow
                            where in time a gradient is
    spectrum, exponents     does a state fade or grow?
    activity, gates         what the units do
    memory_time, bars       what a gradient costs
"""

from bptt_jax.plots._activity import activity
from bptt_jax.plots._against import against
from bptt_jax.plots._bars import bars
from bptt_jax.plots._by_lag import by_lag
from bptt_jax.plots._confusion import confusion
from bptt_jax.plots._curves import curves
from bptt_jax.plots._exponents import exponents
from bptt_jax.plots._flows import flows
from bptt_jax.plots._forecast import forecast
from bptt_jax.plots._gates import gates
from bptt_jax.plots._gradient_flow import gradient_flow
from bptt_jax.plots._heat_map import heat_map
from bptt_jax.plots._loss import loss
from bptt_jax.plots._memory_time import memory_time
from bptt_jax.plots._parallel_coordinates import parallel_coordinates
from bptt_jax.plots._residuals import residuals
from bptt_jax.plots._shares import shares
from bptt_jax.plots._spectrum import spectrum

__all__ = [
    "activity",
    "against",
    "bars",
    "by_lag",
    "confusion",
    "curves",
    "exponents",
    "flows",
    "forecast",
    "gates",
    "gradient_flow",
    "heat_map",
    "loss",
    "memory_time",
    "parallel_coordinates",
    "residuals",
    "shares",
    "spectrum",
]
