"""Faults of estimators and of training."""

from source_edits._edit import edits

STEP = "train/test_step.py"
RECORD = "train/test_record.py"

EDITS = (
    *edits(
        "estimators/_batches.py",
        (
            "a batch without a real step has a loss of NaN",
            "steps = jnp.where(real, steps, jnp.ones_like(steps))",
            "pass",
            "models/test_estimators.py::test_a_batch_without_a_real_step_has_no_loss_and_no_gradient"
            "[stream-mask]",
        ),
        (
            "keys of the batch are not taken",
            "    if keys is None:\n        T = ",
            "    if key is not None:\n        T = ",
            "models/test_estimators.py::test_dropout_draws_from_the_steps_keys",
        ),
        (
            "weights do not count where there is a mask",
            "return counts if side.mask is None else trees.only(side.mask, counts)",
            "return counts if side.mask is None else side.mask",
            "models/test_estimators.py::test_real_steps",
        ),
    ),
    *edits(
        "estimators/_stream.py",
        (
            "losses of the overlap count twice",
            "lambda a: a[overlap:].sum(), losses",
            "lambda a: a.sum(), losses",
            "models/test_estimators.py::test_overlapping_windows_reach_into_earlier_batches"
            "[mask, resets-9-3]",
        ),
        (
            "the state before the overlap is that after the batch",
            "*trees.cut(joined, 0, T)",
            "*trees.cut(joined, overlap, None)",
            "models/test_estimators.py::test_overlapping_windows_reach_into_earlier_batches"
            "[mask, resets-9-3]",
        ),
        (
            "a stride that does not divide the window",
            "if stride is not None and (stride < 1 or window % stride):",
            "if stride is not None and stride < 1:",
            "models/test_estimators.py::test_windows_that_do_not_fit_are_named",
        ),
    ),
    *edits(
        "estimators/_aux.py",
        (
            "a sum of losses for their mean",
            "return per_real_step(loss, batch, steps), each",
            "return loss, each",
            "models/test_estimators.py::test_exact[resets, mask, weights]",
        ),
        (
            "sums of auxiliary values for their means",
            "each = {name: per_real_step(total, batch, steps) for name, total in told.items()}",
            "each = told",
            "models/test_aux.py::test_means_are_told_and_the_gradient_is_that_without"
            "[exact-mask, weights-7]",
        ),
        (
            "auxiliary values are differentiated",
            "told = aux(*jax.lax.stop_gradient((ys, targets)))",
            "told = aux(ys, targets)",
            "models/test_aux.py::test_means_are_told_and_the_gradient_is_that_without"
            "[exact-mask, weights-7]",
        ),
        (
            "auxiliary values of a batch for those of examples",
            "if jnp.shape(a) != shape or jnp.iscomplexobj(a):",
            "if jnp.iscomplexobj(a):",
            "models/test_aux.py::test_what_is_no_value_of_each_step_is_refused",
        ),
    ),
    *edits(
        "estimators/_data_parallel.py",
        (
            "devices with padding count as much as others",
            "part = a * (found.steps / total).astype(a.dtype)",
            "part = a / mesh.size",
            "models/test_data_parallel.py::test_two_devices_give_the_gradient_of_one",
        ),
        (
            "auxiliary values of one device",
            "jax.tree.map(summed, (found.loss, found.grads, told))",
            "(*jax.tree.map(summed, (found.loss, found.grads)), told)",
            "models/test_data_parallel.py::test_two_devices_give_the_gradient_of_one",
        ),
        (
            "all devices draw one noise",
            "key = jax.random.fold_in(key, lax.axis_index(axis))",
            "pass",
            "models/test_data_parallel.py::test_two_devices_give_the_gradient_of_one",
        ),
    ),
    *edits(
        "estimators/_gradient.py",
        (
            "an estimator of the former kind",
            "if not isinstance(found, Gradient):",
            "if found is None:",
            "contracts/test_doors.py::test_an_estimator_that_gives_no_gradient",
        ),
    ),
    *edits(
        "train/_step.py",
        (
            "training goes on after a step that is not finite",
            "fine = (state.bad < 0) & finite",
            "fine = finite",
            "train/test_loop.py::test_good_steps_after_a_bad_one_change_nothing",
        ),
        (
            "every step draws the same",
            "jax.random.split(jax.random.fold_in(state.key, state.position))",
            "jax.random.split(state.key)",
            f"{STEP}::test_the_carry_is_handed_on_and_the_key_changes",
        ),
        (
            "descent along imaginary parts goes up",
            "grads = trees.conjugate(grads)",
            "grads = grads",
            "train/test_complex.py::test_plain_descent_goes_up_and_the_library_goes_down",
        ),
        (
            "the optimizer remembers a batch that does not count",
            "params, opt_state = trees.where(real, (params, opt_state), before)",
            "params = trees.where(real, params, before[0])",
            f"{STEP}::test_a_batch_without_a_real_step_counts_as_nothing[stream-mask]",
        ),
        (
            "buffers are not donated",
            "    @functools.partial(jax.jit, donate_argnums=0)\n    def advance(",
            "    @jax.jit\n    def advance(",
            f"{STEP}::test_a_state_is_given_away_and_items_are_not",
        ),
        (
            "an evaluation goes on from batch to batch",
            "carry = sums.carry if stateful else fresh",
            "carry = sums.carry",
            f"{STEP}::test_an_evaluation_goes_on_where_the_task_is_stateful[False]",
        ),
        (
            "lbfgs is let in",
            "    _refuse_lbfgs(state.opt_state)\n",
            "",
            f"{STEP}::test_lbfgs_is_refused_by_name",
        ),
        (
            "two leaves with one buffer",
            "return jax.tree.map(jnp.copy, state)",
            "return state",
            f"{STEP}::test_a_carry_whose_leaves_share_a_buffer",
        ),
    ),
    *edits(
        "train/_clipping.py",
        (
            "small gradients are made larger",
            "max_norm / jnp.maximum(norm, max_norm)",
            "max_norm / norm",
            "train/test_step.py::test_clipping_is_that_of_optax_in_float32_and_keeps_directions_of_complex_numbers",
        ),
    ),
    *edits(
        "train/_options.py",
        (
            "evaluations that fall between dispatches are left out",
            "return position // every > (position - n) // every",
            "return position % every == 0",
            "train/test_loop.py::test_what_is_told",
        ),
    ),
    *edits(
        "train/_loop.py",
        (
            "who stops a run loses what it did since",
            "saves = stop or ends or due(",
            "saves = ends or due(",
            "train/test_resume.py::test_stopped_once[3-text, stream]",
        ),
        (
            "a held-out loss that is not finite is one",
            "        if not np.isfinite(figures[LOSS]):\n"
            "            raise NonFiniteError(position)\n",
            "",
            "train/test_best.py::test_a_loss_that_is_not_finite_is_no_best_one",
        ),
        (
            "who listens is not told of the end",
            "            progress.ended()",
            "            pass",
            "train/test_progress.py::test_the_order_in_which_a_run_tells",
        ),
    ),
    *edits(
        "train/_held_out.py",
        (
            "an equal loss is a better one",
            "self._worth(found) < self._worth_of_best()",
            "self._worth(found) <= self._worth_of_best()",
            "train/test_best.py::test_an_equal_loss_is_no_better_one",
        ),
        (
            "the best parameters are in a buffer that is written again",
            "self.best = Best(copied(state.params), ",
            "self.best = Best(state.params, ",
            "train/test_best.py::test_the_best_is_not_the_last",
        ),
        (
            "the loss is compared whatever the score",
            "return self.score.worth(figures[self.score.name or LOSS])",
            "return self.score.worth(figures[LOSS])",
            "train/test_score.py::test_a_score_that_is_not_finite_is_no_best_one",
        ),
    ),
    *edits(
        "train/_evaluate.py",
        (
            "the mean is told for what is a function of it",
            "float(metric.finish(means[name]))",
            "float(means[name])",
            "train/test_run_metrics.py::test_each_evaluation_has_them",
        ),
    ),
    *edits(
        "train/_reading.py",
        (
            "nothing is read ahead",
            "        self.ahead = self._begun()\n        return n, items",
            "        self.ahead = (n, reads)\n        return n, items",
            "train/test_reading.py::test_waiting_is_counted",
        ),
    ),
    *edits(
        "train/_folder.py",
        (
            "fewer steps than there are",
            'if position > now["steps"]:',
            "if position is None:",
            f"{RECORD}::test_fewer_steps_than_there_are",
        ),
        (
            "a run in the place of another",
            "    if not overwrite:\n        raise ValueError(",
            "    if overwrite is None:\n        raise ValueError(",
            f"{RECORD}::test_another_run_is_refused_and_nothing_is_changed[rate as a schedule]",
        ),
    ),
    *edits(
        "train/_checkpoint.py",
        (
            "the next step writes into what is being saved",
            "parts = _parts(copied(state))",
            "parts = _parts(state)",
            "train/test_checkpoint.py::"
            "test_what_a_save_holds_is_not_given_to_the_next_step",
        ),
        (
            "damaged arrays are taken",
            'if digest(read[name]) != about["digests"][name]:',
            "if digest(read[name]) is None:",
            "train/test_checkpoint.py::test_arrays_that_are_not_those_that_were_saved",
        ),
        (
            "another model is damage",
            '_same_shapes(name, about["shapes"][name], shapes(part))',
            "pass",
            "train/test_checkpoint.py::test_of_another_model",
        ),
    ),
    *edits(
        "train/_record.py",
        (
            "another width of numbers is the same run",
            '"jax_threefry_partitionable", "jax_enable_x64",',
            '"jax_threefry_partitionable",',
            f"{RECORD}::test_a_run_in_another_width_of_numbers_is_another",
        ),
        (
            "another optimizer is the same run",
            '        ("optimizer", "the optimizer", {"options", "shapes"}),\n',
            "",
            f"{RECORD}::test_another_run_is_refused_and_nothing_is_changed[rate as a schedule]",
        ),
        (
            "programs of another version are compared",
            'if saved["versions"] != now["versions"]:\n        return found',
            'if saved["versions"] is None:\n        return found',
            f"{RECORD}::test_after_another_version_programs_are_not_compared",
        ),
    ),
    *edits(
        "train/_fingerprint.py",
        (
            "constants of a program do not count",
            "program.jaxpr, program.consts",
            "program.jaxpr, ()",
            f"{RECORD}::test_the_text_of_a_program_does_not_show_its_constants",
        ),
        (
            "numbers in a program do not count",
            'return "literal", str(atom.aval), np.asarray(atom.val)',
            'return "literal", str(atom.aval)',
            "train/test_record.py::test_another_run_is_refused_and_nothing_is_changed[rate]",
        ),
        (
            "places in memory count",
            're.sub(r"\\b0x[0-9a-f]+", "", f"{type(what)}{what}").encode()',
            'f"{type(what)}{what}".encode()',
            f"{RECORD}::test_where_something_lies_in_memory_is_no_part_of_a_program",
        ),
    ),
    *edits(
        "train/_metrics.py",
        (
            "the line of the checkpoint itself is lost",
            'if line["step"] <= position]',
            'if line["step"] < position]',
            "train/test_resume.py::test_stopped_once[3-text, stream]",
        ),
        (
            "lines that cannot be read are thrown away",
            "beside = _files.set_aside(self.path, lost)",
            'beside = self.path.with_name(f"{self.path.name}.damaged")',
            "train/test_metrics.py::test_what_can_be_read_stays_and_what_cannot_is_kept_aside",
        ),
    ),
)
