"""Faults of what all rooms import."""

from source_edits._edit import edits, original

EDITS = (
    *edits(
        "_pytrees.py",
        (
            "sums over stretches in the parameters' dtype",
            "jnp.zeros_like(p, at_least_float32(p.dtype)) for p in leaves]",
            "jnp.zeros_like(p) for p in leaves]",
            "contracts/test_unrolls.py::test_stretches_are_summed_in_float32[both_modes]",
        ),
        (
            "sums in float32 are handed out for bfloat16",
            "[t.astype(p.dtype) for t, p in zip(self.parts, leaves, strict=True)]",
            "self.parts",
            "contracts/test_unrolls.py::test_parameters_in_bfloat16[indrnn]",
        ),
        (
            "blocks of a truncated gradient are one",
            "each = [d.sum(over) for d in each]",
            "each = [d[0] for d in each]",
            "contracts/test_truncated.py::test_equals_stop_gradient[elman-3-8-2-1-both]",
        ),
        (
            "norms of squares that overflow",
            "usual = (largest > 0) & jnp.isfinite(largest)",
            "usual = (largest > 0) & (largest < 0)",
            "train/test_step.py::test_metrics_are_finite_where_a_square_is_not\n"
            "diagnose/test_gradient_flow.py::test_state_norms_in_every_dtype",
        ),
        (
            "zero times what is in the padding",
            "return a if is_key(a) else where(flag, a, jnp.zeros_like(a))",
            "return a if is_key(a) else a * along(a, flag).astype(a.dtype)",
            original("masked"),
        ),
        (
            "the square of a complex number",
            "return a.real**2 + a.imag**2 if jnp.iscomplexobj(a) else a**2",
            "return a**2",
            "contracts/test_complex.py::test_a_loss_of_complex_outputs_is_real",
        ),
        (
            "complex arithmetic in half the digits",
            "jnp.complex128 if dtype == jnp.float64 else jnp.complex64",
            "jnp.complex64 if dtype == jnp.float64 else jnp.complex64",
            "test_small_print.py::test_complex_arithmetic_has_the_digits_asked_for",
        ),
        (
            "a factor rounded before it is multiplied with",
            "gain = jnp.asarray(factor).astype(wide.real.dtype)",
            "gain = jnp.asarray(factor).astype(a.real.dtype).astype(wide.real.dtype)",
            "diagnose/test_gradient_flow.py::"
            "test_scale_d_carry_rounds_the_product_and_not_the_factor",
        ),
    ),
    *edits(
        "_shardings.py",
        (
            "an axis of the mesh stands twice",
            "rows = (None,) if rows[0] in columns else rows",
            "pass",
            "contracts/test_sharded.py::"
            "test_units_that_meet_themselves_are_spread_once",
        ),
        (
            "noise is drawn whole on every device",
            "if not explicit(like) or not DRAWS_SPREAD:",
            "if like is not None:",
            "contracts/test_sharded.py::test_noise_is_spread_as_what_it_is_for",
        ),
        (
            "rows of a table that are not spread as their indices",
            "    if not explicit(indices):\n        return None",
            "    if indices is not None:\n        return None",
            "contracts/test_sharded.py::"
            "test_rows_of_a_table_are_spread_as_their_symbols",
        ),
    ),
    *edits(
        "_factory.py",
        (
            "names in another order are the same",
            "tuple(each if takes_names_in_order(function) else sorted(each))",
            "tuple(sorted(each))",
            "test_names.py::test_two_that_are_swapped_are_run_in_the_other_order",
        ),
        (
            "the number one is True",
            "return type(value), value",
            "return value",
            "test_pickling.py::test_numbers_of_numpy_are_numbers",
        ),
        (
            "a hash from before it was known who made it",
            "before[1] is None or before[0] is not made",
            "before[1] is None",
            "test_pickling.py::test_what_is_built_anew_equals_what_is_no_longer_kept",
        ),
        (
            "a cache without bound",
            "while len(kept) > KEPT:",
            "while len(kept) > 1000 * KEPT:",
            "test_pickling.py::test_the_cache_is_bounded",
        ),
        (
            "numbers of NumPy make another cell",
            "return value.item() if isinstance(value, np.bool_ | np.number) else value",
            "return value",
            "test_pickling.py::test_numbers_of_numpy_are_numbers",
        ),
        (
            "unequal where they are equal",
            'own["__ne__"] = lambda self, other: not equal(self, other)',
            "pass",
            "test_pickling.py::test_what_is_built_anew_equals_what_is_no_longer_kept",
        ),
        (
            "an object of one factory is pickled by another",
            "if former is None or former.number > begun:",
            "if former is None or former is not None:",
            "test_pickling.py::test_who_made_it_first_is_who_made_it",
        ),
        (
            "a size of True",
            "isinstance(value, int | np.integer) and not isinstance(value, bool)",
            "isinstance(value, int | np.integer)",
            "test_whole_numbers.py::test_unrolls[truncated]",
        ),
    ),
    *edits(
        "_files.py",
        (
            "written in its place: killed meanwhile it is damaged",
            "            write(new)\n        new.replace(path)",
            "            write(path)",
            "test_files.py::test_a_file_is_replaced_whole_or_stays",
        ),
        (
            "two processes own one folder",
            "fcntl.LOCK_EX | fcntl.LOCK_NB",
            "fcntl.LOCK_SH | fcntl.LOCK_NB",
            "test_files.py::test_another_process_is_refused_until_it_dies",
        ),
        (
            "a lock on a file that was taken away",
            "if _is_at(descriptor, path):",
            "if descriptor >= 0:",
            "test_files.py::test_a_lock_that_was_taken_away_meanwhile_is_not_had",
        ),
        (
            "a child gives back what its parent holds",
            "os.register_at_fork(after_in_child=_forget)",
            "pass",
            "test_files.py::test_another_process_is_refused_until_it_dies",
        ),
        (
            "what is there already is overwritten",
            "os.link(new, path)",
            "new.replace(path)",
            "test_files.py::test_what_is_new_takes_the_place_of_nothing",
        ),
        (
            "a damaged line ends the reading",
            "damaged.append((number, line))",
            "break",
            "test_files.py::test_a_line_that_cannot_be_read_costs_no_other",
        ),
        (
            "a full disk names no file",
            "raise OSError(code, os.strerror(code), str(path)) from error",
            "raise",
            "test_files.py::test_a_file_is_replaced_whole_or_stays",
        ),
    ),
    *edits(
        "native/_program.py",
        (
            "steps that differ in a number share a kernel",
            "return v.shape, str(v.dtype), np.asarray(v.value).tobytes()",
            "return v.shape, str(v.dtype)",
            "native/test_plan.py::test_a_step_traced_anew_is_the_same_and_another_is_not",
        ),
        (
            "steps that differ in the order of operands share a kernel",
            "*map(value, e.inputs), None,",
            "*sorted(map(str, map(value, e.inputs))), None,",
            "native/test_plan.py::test_a_step_traced_anew_is_the_same_and_another_is_not",
        ),
    ),
    *edits(
        "native/_step.py",
        (
            "a kernel for one processor is taken for another",
            "return _of(alike, kinds, this_machine())",
            "return _of(alike, kinds, None)",
            "native/test_machines.py::test_a_step_is_written_once_for_each_machine",
        ),
    ),
    *edits(
        "_jax.py",
        (
            "an equation runs in another mesh than it was traced in",
            "with eqn.ctx.manager:",
            "if eqn.ctx is not None:",
            "contracts/test_sharded.py::test_gates_that_are_made_again_are_spread_as_they_were",
        ),
    ),
    *edits(
        "native/_handler.py",
        (
            "large pages from before a result",
            "%up = add i64 %data, BELOW\n  %from = and i64 %up, -LARGE\n  %to",
            "%up = add i64 %data, 0\n  %from = and i64 %up, -LARGE\n  %to",
            "native/test_kernels.py::test_large_results_are_asked_for_in_large_pages[float64-True]",
        ),
        (
            "a result of float64 is half of what it is",
            "[ 8, %double ]",
            "[ 4, %double ]",
            "native/test_kernels.py::test_large_results_are_asked_for_in_large_pages[float64-True]",
        ),
        (
            "pages between two results are nobody's",
            "%then = select i1 %beside, i64 %there, i64 %at",
            "%then = add i64 %at, 0",
            "native/test_kernels.py::test_large_results_are_asked_for_in_large_pages[float64-True]",
        ),
        (
            "results far from each other are one",
            "%beside = icmp ult i64 %gap, 64",
            "%beside = icmp ult i64 %gap, 99999999",
            "native/test_kernels.py::test_large_results_are_asked_for_in_large_pages"
            "[float64-False]",
        ),
        (
            "no room for tasks that begin at a page",
            "%room = select i1 %few_bytes, i64 0, i64 TWICE",
            "%room = select i1 %few_bytes, i64 0, i64 1",
            "native/test_kernels.py::test_tasks_write_within_what_was_allocated[524224]",
        ),
        (
            "large pages for arguments",
            "call void @enlarge(ptr %results, i64 %n_results)",
            "call void @enlarge(ptr %arguments, i64 %n_arguments)",
            "native/test_kernels.py::test_large_results_are_asked_for_in_large_pages[float64-True]",
        ),
    ),
)
