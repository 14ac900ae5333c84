"""Gradients of the classic cells in NumPy, by hand, sharing no code with the package.

closed_form    forward and backward as loops over time, from the textbook
complex_step   Im f(θ + iε) / ε, exact to rounding for any forward pass in NumPy
complex_slopes the same along one random direction of each leaf
"""

from oracles._closed_form import CLOSED_FORMS
from oracles._complex_step import complex_slopes, complex_step

__all__ = ["CLOSED_FORMS", "complex_slopes", "complex_step"]
