"""How long tests take: a committed table, which `.ci/run` makes anew.

    BPTT_JAX_DURATIONS=tests/durations.txt pytest        writes it

One line a test, `SECONDS NODEID`, the longest first, those of at least `LEAST` seconds:
what it takes with what it sets up, on an empty cache of compiled programs.
"""

import collections
import os
import pathlib

FILE = pathlib.Path(__file__).parents[1] / "durations.txt"
VARIABLE = "BPTT_JAX_DURATIONS"
LEAST = 0.5
LONGEST = 3.0
"""A test of the fast tier takes no longer, but for those that stay."""
STAYS = (
    # processes of their own, commands, runs that are killed and go on
    "cli/test_sweep.py::test_a_sweep_from_the_command_line",
    "cli/test_train.py::test_a_signal_saves_and_the_same_command_continues",
    "cli/test_train.py::test_screen",
    "contracts/test_gradients.py::test_equals_jax_grad",
    "contracts/test_sharded.py::",
    "cli/test_full_disk.py::test_threads_that_fail_later_are_waited_for",
    "models/test_data_parallel.py::test_two_devices_give_the_gradient_of_one",
    "native/test_disk.py::test_another_process_compiles_nothing",
    "sweep/test_run.py::test_killed_and_continued",
    "test_process.py::test_importing_every_module_and_a_failed_read_change_nothing",
    "train/test_kill.py::test_killed",
    # whole trainings and sweeps, and the first pages of who comes new
    "sweep/test_run.py::test_a_configuration_is_trained_as_by_itself",
    "sweep/test_run.py::test_batches_without_a_real_step_count_as_nothing",
    "sweep/test_run.py::test_memory_is_that_of_a_group",
    "sweep/test_run.py::test_neighbours_change_nothing_even_if_they_diverge",
    "sweep/test_run.py::test_static_choices_are_compiled_apart",
    "test_benchmark.py::test_what_is_not_there_is_named",
    "test_docs.py::test_python_blocks_run_in_order",
    "test_docs.py::test_the_worked_cell_is_caught_when_it_is_wrong",
    "test_leaks.py::test_live_arrays_stay_the_same",
    "train/test_best.py::test_the_best_is_not_the_last",
    "train/test_loop.py::",
    "train/test_record.py::test_more_steps_with_a_schedule_over_all_of_them",
    "train/test_record.py::test_overwrite_moves_the_other_run_aside",
    "train/test_resume.py::test_stopped_once",
    "train/test_step.py::test_pure",
    # gradients through a whole, at optimised code
    "contracts/test_complex.py::test_real_inputs_of_complex_weights",
    "contracts/test_plan.py::",
    "contracts/test_transforms.py::test_shard_map_with_default_settings",
    "diagnose/test_by_lag.py::test_linear_network_decays_at_its_radius",
    "diagnose/test_gradient_flow.py::test_flow_norms_and_lags_of_complex_states",
    "models/test_estimators.py::test_overlapping_windows_reach_into_earlier_batches",
    "models/test_models.py::test_generate_is_greedy_where_it_is_cold",
    "research/test_outer_loops.py::test_a_loop_over_updates_that_act_and_learn",
    "research/test_recurrent_policy.py::test_the_learner_sees_the_policy_that_acted",
    "native/test_kernels.py::test_any_stretch",
    "native/test_loop.py::test_any_shape",
    "research/test_sequences.py::test_packed_rows_are_the_sequences_alone",
    "verify/test_canary.py::test_four_findings_each_with_its_name_and_remedy",
)
"""Longer ones that the fast tier keeps, as their names begin: what nothing shorter shows."""
AT_MOST = 300.0
"""Seconds that they may take together, those beyond `LONGEST`."""


class Durations:
    """A plugin of pytest that writes the table, where the variable says a path."""

    def __init__(self, path: str):
        self.path = pathlib.Path(path)
        self.seconds: collections.Counter = collections.Counter()

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self):
        self.path.write_text(text(self.seconds), encoding="utf-8")


def register(config) -> None:
    """In the process that all reports come to."""
    if (path := os.environ.get(VARIABLE)) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Durations(path))


def text(seconds: dict[str, float]) -> str:
    long = [(s, test) for test, s in seconds.items() if s >= LEAST]
    lines = (
        f"{s:.1f} {test}\n" for s, test in sorted(long, key=lambda a: (-a[0], a[1]))
    )
    return "".join(lines)


def read(written: str) -> dict[str, float]:
    lines = (line.split(" ", 1) for line in written.splitlines())
    return {test: float(seconds) for seconds, test in lines}
