"""Faults of sweeps."""

from source_edits._edit import edits

RUN = "sweep/test_run.py"
ROWS = "sweep/test_rows.py"
EXECUTOR = "sweep/test_executor.py"

EDITS = (
    *edits(
        "sweep/_training.py",
        (
            "numbers of a state are none that files have",
            "lax.convert_element_type(a, jnp.result_type(a))",
            "a",
            f"{RUN}::test_a_state_may_have_numbers_of_python",
        ),
    ),
    *edits(
        "sweep/_order.py",
        (
            "units of a group have one number",
            "number += len(self._ends(rung, choice))",
            "number += 1",
            "sweep/test_run.py::test_killed_and_continued\n"
            "sweep/test_rows.py::test_damaged_lines_are_named_kept_and_made_again[plain-ended]",
        ),
        (
            "rungs that end at one step",
            "if len(set(at)) < len(at):",
            "if len(at) < 1:",
            f"{ROWS}::test_rungs_that_end_at_one_step_are_refused",
        ),
    ),
    *edits(
        "sweep/_rows.py",
        (
            "rows of the last unit are lost",
            'if row["step"] <= number:',
            'if row["step"] < number:',
            f"{ROWS}::test_rows_up_to_the_last_unit_are_taken",
        ),
        (
            "some rows of a group are enough",
            "if not all(key in self.found for key in wanted):",
            "if not any(key in self.found for key in wanted):",
            "sweep/test_rows.py::test_damaged_lines_are_named_kept_and_made_again[plain-ended]",
        ),
        (
            "rows without a loss",
            'and "loss" in metrics',
            "and metrics is not None",
            f"{ROWS}::test_every_kind_of_damage_is_seen",
        ),
    ),
    *edits(
        "sweep/_folder.py",
        (
            "a sweep goes on with more devices",
            'if devices is not None and config["devices"] != devices:',
            'if config["devices"] is None:',
            f"{RUN}::test_another_sweep_is_refused_and_nothing_is_changed",
        ),
        (
            "another sweep in the same folder",
            "changed = [k for k in what if before.get(k) != what[k]]",
            "changed = [k for k in what if k not in config['sweep']]",
            f"{RUN}::test_another_sweep_is_refused_and_nothing_is_changed",
        ),
        (
            "parameters that are no longer among the best stay",
            'if int(path.stem.removeprefix("config-")) not in kept:',
            'if int(path.stem.removeprefix("config-")) < 0:',
            f"{RUN}::test_parameters_of_the_best_alone_are_there_in_the_end",
        ),
    ),
    *edits(
        "sweep/_program.py",
        (
            "lanes are not donated",
            "jax.jit(over(advance, shared=2), donate_argnums=1)",
            "jax.jit(over(advance, shared=2))",
            f"{RUN}::test_lanes_are_written_where_they_are",
        ),
        (
            "a seed that becomes another",
            'if name == "seed" and not (whole and low >= 0 and high < 2**32):',
            'if name == "seed" and not whole:',
            f"{RUN}::test_numbers_that_32_bits_do_not_have_are_refused\n"
            f"{RUN}::test_senseless_options_are_named",
        ),
        (
            "a rate that 32 bits take for zero",
            "lost = ~np.isfinite(found) | ((found == 0) != (np.array(values) == 0))",
            "lost = ~np.isfinite(found)",
            f"{RUN}::test_numbers_that_32_bits_do_not_have_are_refused",
        ),
    ),
    *edits(
        "sweep/_halving.py",
        (
            "what has diverged goes on",
            "return (math.inf if math.isnan(scores[i]) else scores[i]), i",
            "return (-math.inf if math.isnan(scores[i]) else scores[i]), i",
            "sweep/test_run.py::test_rungs",
        ),
        (
            "a rung too few",
            "while math.ceil(n / how.eta**most) > 1:",
            "while math.floor(n / how.eta**most) > 1:",
            f"{RUN}::test_rungs",
        ),
    ),
    *edits(
        "sweep/_training.py",
        (
            "what has diverged comes back",
            "fine = finite & (lane.diverged_at < 0)",
            "fine = finite",
            f"{RUN}::test_what_has_diverged_does_not_come_back",
        ),
        (
            "batches without a real step are in the mean",
            "safe = np.where(share == 0, np.nan, share)",
            "safe = np.where(share == 0, np.nan, np.ones_like(share))",
            f"{RUN}::test_batches_without_a_real_step_count_as_nothing",
        ),
        (
            "all configurations have one seed",
            'key = jax.random.key(config["seed"] if "seed" in config else 0)',
            "key = jax.random.key(0)",
            f"{RUN}::test_a_seed_makes_the_key_that_it_makes_elsewhere",
        ),
    ),
    *edits(
        "sweep/_store.py",
        (
            "damaged lanes are taken",
            'if about.pop("sha256", None) != digest(host):',
            'if about.pop("sha256", None) is None:',
            f"{RUN}::test_damaged_files_are_refused",
        ),
    ),
    *edits(
        "sweep/_results.py",
        (
            "a score of the training loss where something is held out",
            'usual = metrics.get("held_out", metrics.get("loss"))',
            'usual = metrics.get("loss", metrics.get("held_out"))',
            f"{RUN}::test_a_score_is_the_held_out_loss_where_something_is_held_out",
        ),
    ),
    *edits(
        "sweep/_attempts.py",
        (
            "the attempt that came least far is gone on with",
            "key=_step, reverse=True",
            "key=_step, reverse=False",
            f"{EXECUTOR}::test_an_attempt_spoils_no_other",
        ),
    ),
    *edits(
        "sweep/_tasks.py",
        (
            "a group that fails is not halved",
            "half = len(part.rows) // 2",
            "half = 0",
            "sweep/test_executor.py::test_a_configuration_at_fault_is_found_and_marked",
        ),
        (
            "all that there is is submitted",
            "most = AHEAD * max(1, self._places())",
            "most = 1000",
            f"{EXECUTOR}::test_few_are_submitted",
        ),
        (
            "what was lost is at fault at once",
            "if part.lost >= AGAIN:",
            "if part.lost >= 0:",
            f"{EXECUTOR}::test_what_was_lost_is_submitted_again",
        ),
    ),
    *edits(
        "sweep/_seeds.py",
        (
            "the greatest score is the worst",
            'best.worth(row["mean"])',
            'best.worth(row["mean"] and -row["mean"])',
            f"{RUN}::test_means_and_spreads_over_seeds",
        ),
    ),
    *edits(
        "sweep",
        (
            "a piece goes beyond an evaluation",
            "return min(every - step % every, until - step)",
            "return min(every, until - step)",
            f"{RUN}::test_units_end_at_evaluations_and_with_their_rung",
        ),
        (
            "means of long units are sums",
            "share = np.float32(some / n)",
            "share = np.float32(1)",
            f"{RUN}::test_a_long_unit_has_the_mean_over_all_its_steps",
        ),
        (
            "a group that was made again is saved as the one that runs",
            "if unit.step < until and (stop or due) and self.mending is None:",
            "if unit.step < until and (stop or due):",
            f"{ROWS}::test_stopped_while_it_makes_rows_again[plain]",
        ),
        (
            "rows that are missing stay so",
            "self.folder.rows.append(self.mending)",
            "pass",
            f"{ROWS}::test_rows_made_again_are_written_down_with_their_group[plain]",
        ),
        (
            "columns that the table has",
            "if name in RESERVED:",
            'if name == "config":',
            "sweep/test_space.py::test_what_makes_no_sense_is_named",
        ),
    ),
)
