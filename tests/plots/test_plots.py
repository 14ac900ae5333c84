"""Figures hold the data that went in, with named axes; bad shapes are one clear line."""

import doctest
import inspect
import pathlib
import re

import numpy as np
import pytest
from matplotlib.colors import LogNorm
from matplotlib.patches import Circle

from bptt_jax import plots

ROOT = pathlib.Path(__file__).parents[2]
NAN, INF = np.nan, np.inf
STEPS = np.arange(1, 61)
FADING = 0.8 ** np.arange(30)
ROTATION = np.exp(1j * np.linspace(0, 6, 9))


def axes_of(figure):
    return figure.axes[0]


def names(figure) -> list[str]:
    return axes_of(figure).get_legend_handles_labels()[1]


FIGURES = {
    "activity": lambda: plots.activity(np.eye(4) - 0.5, unit="state h"),
    "against": lambda: plots.against(
        [1e-3, 1e-2, 1e-1], [2.0, 1.0, NAN], label="learning rate", unit="loss, nats"
    ),
    "bars": lambda: plots.bars({"scan": 9.0, "bptt": 3.0}, unit="memory, MB"),
    "by_lag": lambda: plots.by_lag({"gru": FADING}, unit="gradient, 1"),
    "confusion": lambda: plots.confusion([[3, 1], [0, 2]], labels=["a", "b"]),
    "curves": lambda: plots.curves({"gru": (STEPS, 1 / STEPS)}, unit="loss, nats"),
    "exponents": lambda: plots.exponents([[0.1, -0.2], [0.0, -0.3]]),
    "flows": lambda: plots.flows({"[0] lstm": FADING, "[1] gru": FADING[::-1]}),
    "forecast": lambda: plots.forecast(
        [3.0, 4.0], {"model": [3.5, 4.5]}, history=[1.0, 2.0], unit="sales"
    ),
    "gates": lambda: plots.gates({"f": ([0, 0.1, 0.9, 1], [0.2, 0.5, 0.3])}),
    "gradient_flow": lambda: plots.gradient_flow(np.ones((2, 3)), unit="gradient, 1"),
    "heat_map": lambda: plots.heat_map(
        [1, 1, 2, 2], [3, 4, 3, 4], [1, 2, 3, NAN], labels=("layers", "units")
    ),
    "loss": lambda: plots.loss(STEPS, 1 / STEPS, unit="loss, nats"),
    "memory_time": lambda: plots.memory_time({"bptt": ([1e6], [1.0])}),
    "parallel_coordinates": lambda: plots.parallel_coordinates(
        {"lr": [0.1, 0.2, 0.3]}, [3.0, 1.0, NAN], unit="loss, nats"
    ),
    "residuals": lambda: plots.residuals([1.0, 2.0], [1.5, 1.0], unit="kg"),
    "shares": lambda: plots.shares({"gru": ([1, 2], [1.0, 0.5])}, label="lag, steps"),
    "spectrum": lambda: plots.spectrum({"W": ROTATION}),
}


def test_every_function_has_a_figure_here():
    assert sorted(FIGURES) == plots.__all__


LABELS = {
    "activity": ("time t, steps", "unit", "state h"),
    "against": ("learning rate", "loss, nats"),
    "bars": ("memory, MB", ""),
    "by_lag": ("lag k, steps", "gradient, 1"),
    "confusion": ("predicted class", "true class", "share of the true class"),
    "curves": ("step", "loss, nats"),
    "exponents": ("steps followed", "Lyapunov exponent, 1/step"),
    "flows": ("time t, steps", r"$\|dL/ds_t\|$"),
    "forecast": ("steps after the last one that is known", "sales"),
    "gates": ("value of f", "share of steps and units"),
    "gradient_flow": ("time t, steps", "training step", "gradient, 1"),
    "heat_map": ("layers", "units", "loss"),
    "loss": ("step", "loss, nats"),
    "memory_time": ("temporary memory, bytes", "time, relative"),
    "parallel_coordinates": ("", ""),
    "residuals": ("prediction, kg", "truth less prediction, kg"),
    "shares": ("lag, steps", "share solved"),
    "spectrum": ("Re λ", "Im λ"),
}


@pytest.mark.parametrize("name", plots.__all__)
def test_axes_say_what_they_show_and_the_figure_is_drawn(name):
    figure = FIGURES[name]()
    axes = axes_of(figure)
    bar = [figure.axes[1].get_ylabel()] if len(figure.axes) > 1 else []
    assert (axes.get_xlabel(), axes.get_ylabel(), *bar) == LABELS[name]
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", plots.__all__)
def test_examples(name):
    public = getattr(plots, name)
    runner, finder = doctest.DocTestRunner(), doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(public, name, inspect.getmodule(public))
    assert test.examples
    assert runner.run(test).failed == 0


class TestWhatIsDrawn:
    def test_curves_are_medians_in_a_band_and_seeds_may_be_missing(self):
        ys = np.array(
            [[1.0, 5.0, NAN, NAN], [3.0, INF, 2.0, NAN], [8.0, 6.0, 4.0, NAN]]
        )
        axes = axes_of(plots.curves({"a": (np.arange(4), ys), "b": ([0, 3], [0.5, 9.0])},
                                    levels={"best": 0.25}, limits=(0, 7)))  # fmt: skip
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), [3, 6, 3, NAN])
        np.testing.assert_array_equal(axes.lines[1].get_xydata(), [[0, 0.5], [3, 9]])
        assert axes.lines[2].get_ydata()[0] == 0.25
        assert [note.get_text() for note in axes.texts] == ["best"]
        assert axes.get_ylim() == (0, 7)
        (band,) = axes.collections
        corners = np.concatenate([path.vertices for path in band.get_paths()])
        assert {(0, 1), (0, 8), (1, 5), (1, 9), (2, 2), (2, 4)} <= set(
            map(tuple, corners)
        )

    def test_shares_are_of_a_hundred_percent(self):
        axes = axes_of(FIGURES["shares"]())
        axes.figure.draw_without_rendering()
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 1], [2, 0.5]])
        ticks = [tick.get_text() for tick in axes.get_yticklabels()]
        assert (ticks[0], ticks[-1]) == ("0%", "100%")

    def test_by_lag_leaves_zeros_out_and_draws_the_fit(self):
        norms = {"a": [1.0, 0.5, 0.0, 0.125], "b": [1.0, 1.0]}
        figure = plots.by_lag(norms, rates={"a": (1, 0.5)})
        a, fit, b = axes_of(figure).lines
        np.testing.assert_array_equal(a.get_xydata(), [[0, 1], [1, 0.5], [3, 0.125]])
        np.testing.assert_array_equal(
            fit.get_xydata(), [[1, 0.5], [2, 0.25], [3, 0.125]]
        )
        np.testing.assert_array_equal(b.get_ydata(), [1, 1])
        assert fit.get_linestyle() == "--"
        assert names(figure) == ["a", "β = 0.5 from lag 1", "b"]
        assert axes_of(figure).get_yscale() == "log"

    def test_gradient_flow_has_a_row_a_training_step(self):
        norms = np.array([[1e-6, 0.0, 1.0], [1e-3, NAN, 10.0]])
        figure = plots.gradient_flow(norms, steps=[0, 500])
        (mesh,) = axes_of(figure).collections
        shown = mesh.get_array()
        np.testing.assert_array_equal(shown.mask, [[False, True, False]] * 2)
        np.testing.assert_array_equal(shown.filled(0), np.nan_to_num(norms))
        assert isinstance(mesh.norm, LogNorm)
        assert (mesh.norm.vmin, mesh.norm.vmax) == (1e-6, 10.0)
        corners = mesh.get_coordinates()
        np.testing.assert_array_equal(corners[0, :, 0], [-0.5, 0.5, 1.5, 2.5])
        np.testing.assert_array_equal(corners[:, 0, 1], [-250, 250, 750])

    def test_gradient_flow_of_nothing_is_drawn(self):
        assert plots.gradient_flow(np.zeros((1, 2)))._repr_png_()

    def test_flows_have_a_line_each_without_zeros(self):
        axes = axes_of(plots.flows({"a": [1.0, 0.0, 0.25, INF], "b": [NAN, 2.0]}))
        a, b = axes.lines
        np.testing.assert_array_equal(a.get_xydata(), [[0, 1], [2, 0.25]])
        np.testing.assert_array_equal(b.get_xydata(), [[1, 2]])
        assert axes.get_yscale() == "log"
        assert axes.get_legend_handles_labels()[1] == ["a", "b"]
        assert a.get_color() != b.get_color()

    def test_gates_are_histograms_with_what_is_saturated(self):
        edges, shares = np.linspace(-1, 1, 21), np.arange(20) / 190
        pair = edges, shares
        figure = plots.gates({"i": pair, "f": pair, "g": pair, "o": pair, "z": pair})
        assert len(figure.axes) == 5
        bars = figure.axes[2].patches
        assert [bar.get_height() for bar in bars] == shares.tolist()
        np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1])
        colours = [bar.get_facecolor() for bar in bars]
        assert colours[0] == colours[1] == colours[18] == colours[19] != colours[2]
        assert len(set(colours[2:18])) == 1
        assert figure.axes[2].get_title() == "g: 1 % low, 19 % high"

    def test_spectrum_is_round(self):
        figure = plots.spectrum({"W": 1.5 * ROTATION, "J": [0.5]})
        axes = axes_of(figure)
        figure.draw_without_rendering()
        points = [line for line in axes.lines if len(line.get_label().split("ρ")) > 1]
        found = points[0].get_xdata() + 1j * points[0].get_ydata()
        np.testing.assert_array_equal(found, 1.5 * ROTATION)
        assert names(figure) == ["W, ρ = 1.5", "J, ρ = 0.5"]
        (circle,) = [patch for patch in axes.patches if isinstance(patch, Circle)]
        assert (circle.center, circle.radius) == ((0, 0), 1)
        assert axes.get_aspect() == 1
        assert axes.get_xlim()[1] > 1.5

    def test_exponents_are_lines_over_the_steps(self):
        values = np.linspace(-1, 1, 24).reshape(3, 8)
        figure = plots.exponents(values, steps=[10, 20, 40])
        zero, *lines = axes_of(figure).lines
        assert list(zero.get_ydata()) == [0, 0]
        np.testing.assert_array_equal([line.get_ydata() for line in lines], values.T)
        np.testing.assert_array_equal(lines[0].get_xdata(), [10, 20, 40])
        assert len(names(figure)) == 2  # the first and the last of many

    def test_activity_is_centred_at_zero_where_it_has_a_sign(self):
        states = np.array([[0.5, -2.0, NAN], [0.0, 1.0, 1.0]])
        (image,) = axes_of(plots.activity(states)).images
        np.testing.assert_array_equal(image.get_array().filled(7)[2], [7, 1])
        np.testing.assert_array_equal(image.get_array()[:2], states.T[:2])
        assert image.get_clim() == (-2, 2)
        (image,) = axes_of(plots.activity(np.abs(states))).images
        assert image.get_clim() == (0, 2)
        assert image.get_cmap().name == "cividis"

    def test_memory_time_has_its_notes_and_its_theory(self):
        figure = plots.memory_time(
            {"few": ([1e5, 1e7], [10.0, 1.0]), "all": ([5e7], [0.9])},
            theory={"theory": ([1e5, 1e7], [9.0, 1.0])},
            notes={"few": ["2 states", "1000"]},
        )
        axes = axes_of(figure)
        few, whole, theory = axes.lines
        np.testing.assert_array_equal(few.get_xydata(), [[1e5, 10], [1e7, 1]])
        np.testing.assert_array_equal(whole.get_xydata(), [[5e7, 0.9]])
        np.testing.assert_array_equal(theory.get_ydata(), [9, 1])
        assert [(t.get_text(), t.xy) for t in axes.texts] == [
            ("2 states", (1e5, 10.0)),
            ("1000", (1e7, 1.0)),
        ]
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        figure.draw_without_rendering()
        assert "1 M" in [tick.get_text() for tick in axes.get_xticklabels()]

    def test_bars_are_as_long_as_their_numbers(self):
        axes = axes_of(FIGURES["bars"]())
        assert [bar.get_width() for bar in axes.patches] == [9, 3]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["scan", "bptt"]

    def test_loss_has_its_baselines_and_what_was_held_out(self):
        figure = plots.loss(STEPS, 1 / STEPS, held_out_steps=[30, 60],
                            held_out=[0.5, 0.4], baselines={"5-gram": 0.7})  # fmt: skip
        raw, smooth, held, level = axes_of(figure).lines
        np.testing.assert_array_equal(raw.get_xydata(), np.c_[STEPS, 1 / STEPS])
        np.testing.assert_array_equal(smooth.get_xdata(), STEPS)
        np.testing.assert_array_equal(held.get_xydata(), [[30, 0.5], [60, 0.4]])
        assert level.get_ydata()[0] == 0.7

    def test_loss_has_what_the_training_came_to(self):
        """Also where that lies outside what the curves span."""
        marks = {"best": (30, 1.617), "last": (60, 1.69)}
        figure = plots.loss(STEPS, 3 + 1 / STEPS, marks=marks)
        *_, best, last = axes_of(figure).lines
        np.testing.assert_array_equal(best.get_xydata(), [[30, 1.617]])
        np.testing.assert_array_equal(last.get_xydata(), [[60, 1.69]])
        assert "best: 1.617 at step 30" in names(figure)
        assert "last: 1.690 at step 60" in names(figure)
        assert axes_of(figure).get_ylim()[0] < 1.617

    def test_confusion_has_shares_in_colours_and_counts_in_words(self):
        axes = axes_of(FIGURES["confusion"]())
        shares = axes.images[0].get_array()
        np.testing.assert_array_equal(shares, [[0.75, 0.25], [0, 1]])
        assert [text.get_text() for text in axes.texts] == ["3", "1", "2"]
        assert axes.get_title() == "5 of 6 held-out sequences are right (83.3 %)"
        ticks = [tick.get_text() for tick in axes.get_yticklabels()]
        assert ticks == ["a", "b"]

    def test_confusion_of_many_and_of_none(self):
        many = axes_of(plots.confusion(np.eye(50)))
        assert not many.texts
        assert len(many.get_xticks()) == 17
        assert "0 of 0" in axes_of(plots.confusion(np.zeros((2, 2)))).get_title()

    def test_forecast_goes_on_where_history_ends(self):
        known, border, came, model = axes_of(FIGURES["forecast"]()).lines
        np.testing.assert_array_equal(known.get_xydata(), [[-1, 1], [0, 2]])
        np.testing.assert_array_equal(came.get_xydata(), [[0, 2], [1, 3], [2, 4]])
        np.testing.assert_array_equal(model.get_xydata(), [[1, 3.5], [2, 4.5]])
        assert names(FIGURES["forecast"]()) == ["known", "what came", "model: MAE 0.5"]
        alone = plots.forecast([3.0, 4.0], {"model": [3.5, 4.5]})
        assert names(alone) == ["what came", "model: MAE 0.5"]

    def test_residuals_are_truth_less_prediction(self):
        axes = axes_of(plots.residuals([1.0, 2.0, 4.0], [1.5, 1.0, NAN]))
        points = axes.collections[0].get_offsets()
        np.testing.assert_array_equal(points, [[1, 0.5], [2, -1]])
        assert axes.get_title() == "2 predictions: RMSE 0.7906, mean error -0.25"
        many = axes_of(plots.residuals(np.arange(100.0), np.arange(100.0) + 2))
        np.testing.assert_array_equal(many.lines[1].get_ydata(), np.full(20, 2))

    def test_against_has_dots_medians_and_what_diverged(self):
        xs, scores = [1, 1, 2, 2, 2], [1.0, 3.0, 5.0, 6.0, INF]
        figure = plots.against(xs, scores, label="layers", by=["gru"] * 5)
        dots, medians, lost, _ = axes_of(figure).lines
        np.testing.assert_array_equal(dots.get_ydata(), [1, 3, 5, 6])
        np.testing.assert_array_equal(medians.get_xydata(), [[1, 2], [2, 5.5]])
        np.testing.assert_array_equal(lost.get_xydata(), [[2, 6]])
        assert names(figure) == ["gru", "diverged"]

    def test_heat_map_has_medians(self):
        figure = plots.heat_map([1, 1, 1, 2], [3, 3, 4, 3], [1.0, 2.0, NAN, 5.0],
                                labels=("layers", "units"))  # fmt: skip
        shown = axes_of(figure).images[0].get_array()
        np.testing.assert_array_equal(
            np.ma.filled(shown, NAN), [[1.5, 5.0], [NAN, NAN]]
        )

    def test_the_best_are_dark_in_all_figures_of_a_sweep(self):
        def light(colour):
            return sum(colour[:3])

        for maximise, scores in ((False, [3.0, 1.0]), (True, [1.0, 3.0])):
            of = dict(maximise=maximise)
            figure = plots.heat_map([1, 2], [1, 1], scores, labels=("a", "b"), **of)
            image = axes_of(figure).images[0]
            worst, best = image.to_rgba(image.get_array())[0]
            assert light(best) < light(worst)
            axes = axes_of(plots.parallel_coordinates({"a": [1, 2]}, scores, **of))
            drawn = {line.get_ydata()[-1]: line.get_color() for line in axes.lines}
            assert light(drawn[float(maximise)]) < light(drawn[float(not maximise)])
            assert axes.lines[-1].get_ydata()[-1] == float(maximise)  # on top

    def test_what_diverged_is_drawn_where_the_worst_is(self):
        for maximise, worst in ((False, 3.0), (True, 1.0)):
            figure = plots.against(
                [1, 2, 3], [1.0, 3.0, NAN], label="lr", maximise=maximise
            )
            assert axes_of(figure).lines[2].get_ydata() == [worst]

    def test_what_is_in_an_order_has_its_colours_whatever_the_figure(self):
        """The first of exponents is as dark as the best of a sweep."""
        lines = axes_of(plots.exponents([[0.2, -0.1, -0.3]])).lines[1:]
        runs = axes_of(plots.parallel_coordinates({"a": [1, 2, 3]}, [1, 2, 3])).lines
        assert [a.get_color() for a in lines] == [a.get_color() for a in runs[::-1]]

    def test_parallel_coordinates_have_a_line_a_run_that_did_not_diverge(self):
        lines = axes_of(FIGURES["parallel_coordinates"]()).lines
        drawn = sorted(tuple(map(float, line.get_ydata())) for line in lines)
        assert drawn == [(0.0, 1.0), (0.5, 0.0)]


BAD = {
    "counts: expected [C, C], got shape (1, 2)": lambda: plots.confusion([[1, 2]]),
    "counts: expected numbers of at least 0": lambda: plots.confusion([[-1]]),
    "labels: expected 2, one for each class, got 1": lambda: plots.confusion(
        [[1, 0], [0, 1]], labels=["a"]
    ),
    "forecasts['a']: expected [H] with H = 2, got shape (3,)": lambda: plots.forecast(
        [1, 2], {"a": [1, 2, 3]}
    ),
    "forecasts: expected {name: [H]}, got none": lambda: plots.forecast([1], {}),
    "residuals: expected predictions [N] and truth [N], got shapes (2,) and (1,)": (
        lambda: plots.residuals([1, 2], [1])
    ),
    "states: expected [T, H], got shape (3,)": lambda: plots.activity([1, 2, 3]),
    "scores: expected xs [N] and scores [N], got shapes (2,) and (3,)": (
        lambda: plots.against([1, 2], [1, 2, 3], label="lr")
    ),
    "by: expected [N] with N = 2, got (1,)": lambda: plots.against(
        [1, 2], [1, 2], label="lr", by=["gru"]
    ),
    "values['a']: expected a number, got shape (2,)": lambda: plots.bars(
        {"a": [1, 2]}, unit="MB"
    ),
    "values['a']: expected 0 or more, got -1": lambda: plots.bars({"a": -1}, unit="MB"),
    "norms: expected {name: [K]}, got list": lambda: plots.by_lag([1.0]),
    "norms['a']: expected [K], got shape (1, 2)": lambda: plots.by_lag({"a": [[1, 2]]}),
    "norms['b']: expected [T], got shape (1, 2)": lambda: plots.flows({"b": [[1, 2]]}),
    "norms['b']: expected no negative, got -2": lambda: plots.flows({"b": [1, -2]}),
    "histograms['f']: expected (edges [n + 1], shares [n]), got shapes (2,) and (2,)": (
        lambda: plots.gates({"f": ([0, 1], [1, 1])})
    ),
    "histograms['f']: expected (edges [n + 1], shares [n]), got ndarray": (
        lambda: plots.gates({"f": np.ones(3)})
    ),
    "histograms['f']: expected rising edges": lambda: plots.gates({"f": ([1, 0], [1])}),
    "histograms['f']: expected shares of at least 0": (
        lambda: plots.gates({"f": ([0, 1], [-1])})
    ),
    "norms['a']: expected no negative, got -2": lambda: plots.by_lag({"a": [1, -2]}),
    "rates['b']: expected one of a": lambda: plots.by_lag(
        {"a": [1]}, rates={"b": (0, 1)}
    ),
    "rates['a']: expected a lag below 1, got 1": lambda: plots.by_lag(
        {"a": [1]}, rates={"a": (1, 0.5)}
    ),
    "rates['a']: expected (lag, rate), got 0.5": lambda: plots.by_lag(
        {"a": [1]}, rates={"a": 0.5}
    ),
    "series: expected {name: (xs, ys)}, got none": lambda: plots.curves({}),
    "series['a']: expected (xs [N], ys [N] or [seeds, N]), got ndarray": (
        lambda: plots.curves({"a": np.ones(3)})
    ),
    "series['a']: expected xs [N] and ys [N] or [seeds, N], got shapes (2,) and (2, 3)": (
        lambda: plots.curves({"a": ([1, 2], np.ones((2, 3)))})
    ),
    "values: expected [S, n], got shape (2,)": lambda: plots.exponents([1, 2]),
    "steps: expected [S] with S = 1, got shape (2,)": lambda: plots.exponents(
        [[1]], steps=[1, 2]
    ),
    "steps: expected rising numbers": lambda: plots.gradient_flow(
        [[1], [2]], steps=[2, 1]
    ),
    "norms: expected [S, T], got shape (2,)": lambda: plots.gradient_flow([1, 2]),
    "norms: expected no negative, got -1": lambda: plots.gradient_flow([[-1.0]]),
    "scores: expected ys [N] and scores [N], got shapes (1,) and (2,)": (
        lambda: plots.heat_map([1, 2], [1], [1, 2], labels=("a", "b"))
    ),
    "losses: expected steps [N] and losses [N], got shapes (1,) and (2,)": (
        lambda: plots.loss([1], [1, 2])
    ),
    "series['a']: expected numbers above 0, got 0": lambda: plots.memory_time(
        {"a": ([0], [1])}
    ),
    "notes['a']: expected 1 texts, got 2": lambda: plots.memory_time(
        {"a": ([1], [1])}, notes={"a": ["b", "c"]}
    ),
    "notes['b']: expected one of a, got 2": lambda: plots.memory_time(
        {"a": ([1], [1])}, notes={"b": ["b", "c"]}
    ),
    "columns['lr']: expected [N] with N = 1, got 2": (
        lambda: plots.parallel_coordinates({"lr": [1, 2]}, [1])
    ),
    "series['a']: expected shares from 0 to 1, got 50": lambda: plots.shares(
        {"a": ([1], [50])}, label="lag"
    ),
    "eigenvalues['a']: expected [N], got shape (2, 2)": lambda: plots.spectrum(
        {"a": np.eye(2)}
    ),
    "eigenvalues['a']: expected finite numbers, got (nan+0j)": lambda: plots.spectrum(
        {"a": [NAN]}
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_shapes_are_one_clear_line(message):
    with pytest.raises(ValueError) as caught:
        BAD[message]()
    assert str(caught.value) == message


def test_what_is_no_number_is_a_type_error():
    with pytest.raises(TypeError, match="expected numbers"):
        plots.curves({"a": (["x"], [1.0])})
    with pytest.raises(TypeError, match="expected numbers"):
        plots.spectrum({"a": ["x"]})


def test_colours_are_said_in_one_place():
    for path in (ROOT / "bptt_jax" / "plots").glob("*.py"):
        text = path.read_text()
        own = re.findall(r'"#[0-9a-fA-F]{6}"|cmap="|colormaps|"C[0-9]"', text)
        assert path.name == "_axes.py" or not own, path


def test_nothing_opens_a_window_and_experiments_leave_drawing_to_this_room():
    for path in (ROOT / "bptt_jax").rglob("*.py"):
        imported = [x for x in path.read_text().splitlines() if "import" in x.split()]
        assert not [x for x in imported if "pyplot" in x], path
    for path in (ROOT / "experiments").rglob("*.py"):
        assert "matplotlib" not in path.read_text(), path
