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
    "cli/test_train.py::test_screen",
    "contracts/test_sharded.py::",
    "cli/test_full_disk.py::test_threads_that_fail_later_are_waited_for",
    "models/test_data_parallel.py::test_two_devices_give_the_gradient_of_one",
    "native/test_processes.py::test_a_process_ends_in_the_middle_of_a_call",
    "native/test_disk.py::test_another_process_compiles_nothing",
    "sweep/test_run.py::test_killed_and_continued",
    "test_benchmark_device.py::test_without_a_gpu_it_says_so",
    "test_process.py::test_importing_every_module_and_a_failed_read_change_nothing",
    "train/test_kill.py::test_killed",
    # of what the tier itself does
    "test_compiled.py::",
    # whole trainings and sweeps, and the first pages of who comes new
    "cli/test_data.py::test_a_run_on_a_table",
    "cli/test_data.py::test_a_run_that_needs_the_whole_sequence",
    "cli/test_runs.py::test_a_run_of_python",
    "cli/test_sweep.py::test_what_the_command_line_trains_can_be_sent",
    "cli/test_train.py::test_init_from",
    "sweep/test_executor.py::test_static_choices_and_functions_of_ones_own",
    "sweep/test_run.py::test_the_best_is_a_run",
    "tasks/test_iterator.py::test_a_run_goes_on_bit_for_bit",
    "tasks/test_several_inputs.py::test_a_run_predicts_and_is_there_again",
    "train/test_sections.py::test_a_run_of_sections_is_trained_loaded_and_predicts",
    "sweep/test_run.py::test_a_configuration_is_trained_as_by_itself",
    "test_docs.py::test_python_blocks_run_in_order",
    "test_leaks.py::test_live_arrays_stay_the_same",
    # gradients through a whole, at optimised code
    "contracts/test_transforms.py::test_shard_map_with_default_settings",
    "contracts/test_wholes.py::test_values_and_gradients_are_those_of_the_real_steps_alone"
    "[attention-7-batch0-True]",
    "verify/test_canary.py::test_four_findings_each_with_its_name_and_remedy",
    # what XLA takes, of programs as users compile them
    "contracts/test_plan.py::test_checkpointed_takes_a_number_of_bytes",
    "contracts/test_plan.py::test_predicted_bytes_are_those_of_xla[shape0-1.05]",
    "contracts/test_plan.py::test_states_alone_are_kept_where_there_is_no_room_for_gates",
    "contracts/test_plan.py::test_the_least_budget_works_and_one_byte_less_does_not",
)
"""Longer ones that the fast tier keeps, as their names begin: what nothing shorter shows."""
AT_MOST = 200.0
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
