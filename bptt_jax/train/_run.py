"""A training, and what can be done with what it made."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_jax import layers, tasks
from bptt_jax.train._checkpoint import Best
from bptt_jax.train._outputs import outputs
from bptt_jax.train._step import TrainState
from bptt_jax.train._written import Manner, checked, streamed, written
from bptt_jax.types import PyTree

_ONE_BY_ONE = "it draws one symbol after another"


class Run(NamedTuple):
    """A training, as `train.run` ends it and `train.load` finds it in its folder.

    state: the last state. As loaded it has no optimizer's and no estimator's state (None):
        `train.run` in the folder goes on with these.
    held_out: its mean loss of a step over the held-out batches (`RunOptions.final_batches`);
        NaN where a training that was loaded has not ended.
    stopped_early: whether patience ended it.
    best: the parameters whose loss was least (`score` of `run`: best) of all evaluations
        and the last state, and their loss over as many batches. Where the last state is
        the best it is that one.
    metrics: of the best parameters `loss` and each of `Task.metrics` by its name, over the
        same batches.
    model: the layer, or the `models.sections`, that was trained.
    task: what it was trained on. As loaded its streams are there if the data are.
    config: what made it, as `run.json` has it, and the `settings` of the command line.
    history: the lines of `metrics.jsonl`.
    """

    state: TrainState
    held_out: float
    stopped_early: bool
    best: Best
    metrics: dict[str, float] = {}
    model: Any = None
    task: Any = None
    config: dict[str, Any] = {}
    history: list[dict[str, Any]] = []

    @property
    def params(self) -> PyTree:
        """The best parameters."""
        return self.best.params

    def predict(self, xs: Any, *, context: Any = None) -> Any:
        """What the best parameters say of sequences, in the labels and units of the data.

        Args:
          xs: as `tasks.arrays` takes inputs: `[N, T, ...]`, or a list of N arrays of unequal
            lengths; any N. Outputs of a sequence do not depend on the others. One program is
            compiled for like lengths.
          context: of each sequence, as `tasks.arrays` takes it; None: there is none.

        Returns:
          Where a sequence has one target `[N, ...]`: labels, truths, or numbers (float64) with
          the axes of the targets. Else those of each step: an array of an array, a list of a
          list.

        Raises:
          TypeError, ValueError: these are not of the form of what it was trained on.
        """
        of_ys = _argmax if tasks.form_of(self.task) is tasks.LABELS else None
        given = tasks.encoded(self.task, xs)
        found = self._outputs(given, context, of_ys)
        if of_ys is None:
            found = tasks.decoded(self.task, found)
        else:
            found = tasks.labels(self.task, found)
        return self._as_given(xs, found, given)

    def predict_proba(self, xs: Any, *, context: Any = None) -> Any:
        """Probabilities of the classes, `[N, C]` in the order of `task.encoding.classes`, or
        that each truth is True; otherwise as `predict`.

        Raises:
          ValueError: it predicts numbers; and as `predict`.
        """
        tasks.refuse_numbers(self.task)
        given = tasks.encoded(self.task, xs)
        found = self._outputs(given, context)
        return self._as_given(xs, tasks.probabilities(self.task, found), given)

    def evaluate(
        self, xs: Any, ys: Any = None, *, context: Any = None, series: Any = None
    ) -> dict[str, float]:
        """Figures of predictions beside what is so.

        Args:
          xs, context: as of `predict`.
          ys: targets, as `tasks.arrays` takes them; None: the next inputs.
          series: of forecasts `[N]`, which series of the training each is of (its number, a
            table's its name: a key of `task.encoding.naive`), by whose naive forecast MASE
            scales its errors. None: that of a run on one series; of several there is no MASE.

        Returns:
          `loss`, the mean of the task's objective over sequences, or over all steps, and
          `accuracy` of labels and truths, or `MAE` and `RMSE` of numbers, in their unit, and
          `MASE` of forecasts (Hyndman and Koehler 2006), where the run knows what it divides
          by; the folder of an older version's does not.

        Raises:
          TypeError, ValueError: these are not of the form of what it was trained on, or a
            label or a series is none of the run's.
        """
        given = tasks.encoded(self.task, xs)
        wanted = tasks.compared(self.task, ys, given)
        naive = tasks.naive_errors(self.task, series, len(given.lengths))
        found = self._outputs(given, context)
        if ys is None:
            last = np.zeros(len(found), bool)
            last[given.begins + given.lengths - 1] = True
            found = found[~last]
        return tasks.figures(self.task, found, wanted, naive)

    def generate(
        self,
        prompt: str | Sequence[str],
        length: int = 500,
        *,
        temperature: float = 0.7,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        seed: int = 0,
    ) -> Any:
        """What the best parameters of a run on text write after a beginning.

        Args:
          prompt: the beginning, of at least one symbol; or several, written at the same time.
          length: characters to write.
          temperature: small is more certain, 0 the most probable symbol each time, 1 the
            model's own distribution.
          top_k: so many symbols, the most probable, are drawn from; None: all.
          top_p: the fewest symbols whose probabilities add up to this are drawn from; None:
            all. See `models.filtered`.
          stop: a text, or several, before the first of which it ends.
          seed: of everything drawn.

        Returns:
          The text after the prompt, without it; a list of them where prompts are several.

        Raises:
          TypeError, ValueError: it is no run on text, or an argument is out of its range.
        """
        layers.refuse_sections("Run.generate", self.model, _ONE_BY_ONE)
        many = not isinstance(prompt, str)
        prompts, manner = (
            prompt if many else [prompt],
            (temperature, top_k, top_p, seed),
        )
        found = written(*self._writer(prompts, length, stop, Manner(*manner)))
        return found if many else found[0]

    def stream(
        self,
        prompt: str,
        length: int = 500,
        *,
        temperature: float = 0.7,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[str]:
        """The text of `generate` in pieces, each as soon as it is drawn. One prompt.

        Joined they are what `generate` gives for the same arguments.
        """
        layers.refuse_sections("Run.stream", self.model, _ONE_BY_ONE)
        manner = Manner(temperature, top_k, top_p, seed)
        prompts, length, *others = self._writer([prompt], length, stop, manner)[3:]
        text = self.task.text
        return streamed(self.model, self.params, text, *prompts, length, *others)

    def _writer(self, prompts, length, stop, manner: Manner) -> tuple:
        """The arguments of `written`."""
        text = self.task.text
        stop = checked(text, prompts, length, stop, manner)
        return self.model, self.params, text, prompts, length, stop, manner

    @property
    def _per_step(self) -> bool:
        return tasks.encoding_of(self.task).per_step

    def _outputs(self, given: tasks.Sequences, context, of_ys=None) -> np.ndarray:
        if context is not None:
            context = tasks.contexts_of("context", context, len(given.lengths))
        at = self.model, self.params, given, self._per_step, of_ys, context
        return outputs(*at)

    def _as_given(self, xs: Any, found: np.ndarray, given: tasks.Sequences) -> Any:
        if not self._per_step:
            return found
        xs = next(iter(xs.values())) if isinstance(xs, Mapping) else xs
        if isinstance(xs, list | tuple):
            return np.split(found, given.begins[1:])
        return found.reshape(len(given.lengths), -1, *found.shape[1:])


def _argmax(ys):
    return jnp.argmax(ys, -1)
