"""The tests of `pytest -m smoke`: a few laws over all members, in about a minute.

For the loop of writing: after each change these, before a commit the fast tier.
"""

import pathlib

import pytest

TESTS = pathlib.Path(__file__).parents[1]
SMOKE = {
    "contracts/test_cells.py": (
        "test_step_is_forward_of_project",
        "test_output_is_the_part_of_the_state_that_it_says",
        "test_backward_is_linear",
        "test_closes_over_no_array",
        "test_shapes_and_dtypes",
    ),
    "contracts/test_cuts.py": (
        "test_factors_summed_are_the_gradient_that_jax_takes",
        "test_no_step_mixes_examples",
    ),
    "contracts/test_layers.py": ("test_errors_name_what_does_not_fit",),
    "contracts/test_memory.py": ("test_a_layer",),
    "contracts/test_structure.py": ("test_no_weight_gradient_in_a_loop_over_steps",),
    "contracts/test_unrolls.py": ("test_cell_or_layer", "test_no_inputs"),
    "interop/test_equations.py": ("test_outputs_are_those_of_the_library_s_equations",),
    "test_architecture.py": ("test_arrows", "test_there_are_no_cycles"),
    "test_files.py": ("test_a_file_is_replaced_whole_or_stays",),
    "test_public_names.py": ("test_names_are_those_of_the_committed_list",),
    "test_source_mutants.py": ("test_each_applies_once_and_changes_the_program",),
    "train/test_step.py": ("test_pure",),
    "verify/test_library.py": ("test_the_suites_run_over_all_of_it",),
}
"""Functions of tests, by file."""


def mark(items) -> None:
    """Marks those of them that are in the fast tier."""
    for item in items:
        file = (
            item.path.relative_to(TESTS).as_posix()
            if TESTS in item.path.parents
            else ""
        )
        slow = item.get_closest_marker("slow") or item.get_closest_marker("release")
        name = getattr(item, "originalname", item.name)
        if name in SMOKE.get(file, ()) and not slow:
            item.add_marker(pytest.mark.smoke)
