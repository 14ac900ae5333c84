"""Looking at gradients: through time, by lag, as spectra, and against the exact ones."""

from bptt_jax.diagnose._activity import Activity, Clipping, activity, clipping
from bptt_jax.diagnose._adaptive import Adaptive, adaptive_truncation
from bptt_jax.diagnose._bias import Bias, bias
from bptt_jax.diagnose._by_lag import ByLag, by_lag
from bptt_jax.diagnose._decay import (
    fitted_rate,
    horizon,
    largest_rate,
    quantile_rate,
    relative_bias,
    remainder,
    window,
)
from bptt_jax.diagnose._flows import flows
from bptt_jax.diagnose._gates import GateUse, gates
from bptt_jax.diagnose._gradient_flow import (
    Contributions,
    Flow,
    contributions,
    gradient_flow,
    state_norms,
)
from bptt_jax.diagnose._jacobians import (
    jacobians,
    products,
    singular_values,
    spectral_radius,
)
from bptt_jax.diagnose._lyapunov import Lyapunov, lyapunov
from bptt_jax.diagnose._omega import Omega, omega, regularised

__all__ = [
    "Activity",
    "Adaptive",
    "Bias",
    "ByLag",
    "Clipping",
    "Contributions",
    "Flow",
    "GateUse",
    "Lyapunov",
    "Omega",
    "activity",
    "adaptive_truncation",
    "bias",
    "by_lag",
    "clipping",
    "contributions",
    "fitted_rate",
    "flows",
    "gates",
    "gradient_flow",
    "horizon",
    "jacobians",
    "largest_rate",
    "lyapunov",
    "omega",
    "products",
    "quantile_rate",
    "regularised",
    "relative_bias",
    "remainder",
    "singular_values",
    "spectral_radius",
    "state_norms",
    "window",
]
