"""Batches of somebody's reader: what a model sees, the way back to a place, what is refused."""

import itertools
import json
import pathlib
import warnings

import grain
import jax
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, objectives, sweep, tasks, train
from bptt_jax.tasks._readers import packed, unpacked
from support import tiers
from support.batches import batch_of
from support.training import outcome

B, T, F, N = 4, 6, 3, 7  # batches of a reader
RNG = np.random.default_rng(0)
XS = RNG.normal(size=(N, B, T, F))
LABELS = RNG.integers(0, 2, (N, B))
PAIRS = [*zip(XS, LABELS, strict=True)]
OPTIONS = train.RunOptions(
    updates=18, per_dispatch=2, evaluate_every=6, checkpoint_every=4, evaluate_batches=2
)


def plain():
    return iter(PAIRS)


def a_list():
    return PAIRS


class Stateful:
    """An iterator that says where it is, as grain's do; it counts what is read of it."""

    read = 0

    def __init__(self):
        self.at = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == N:
            raise StopIteration
        Stateful.read += 1
        self.at += 1
        return PAIRS[self.at - 1]

    def get_state(self):
        return {"at": np.int64(self.at), "more": (b"\x00", [1.5, None])}

    def set_state(self, state):
        assert state["more"] == (b"\x00", [1.5, None])
        self.at = int(state["at"])


class DataSet:
    """As Hugging Face's streamed ones: the iterable has the state, and takes it before."""

    def __init__(self):
        self.position = None

    def __iter__(self):
        for self.position in range(1 + (self.position or 0), N + 1):  # noqa: B020
            yield {
                "signal": PAIRS[self.position - 1][0],
                "label": LABELS[self.position - 1],
            }

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Mine:
    """What grain calls a random access data source."""

    def __repr__(self):
        return "Mine()"  # by which grain knows it again

    def __len__(self):
        return N * B

    def __getitem__(self, i):
        return XS.reshape(-1, T, F)[i], LABELS.reshape(-1)[i]


def by_grain_loader():
    sampler = grain.samplers.IndexSampler(
        N * B, grain.sharding.NoSharding(), shuffle=True, num_epochs=1, seed=1
    )
    return grain.DataLoader(
        data_source=Mine(), sampler=sampler, worker_count=0,
        operations=[grain.transforms.Batch(B, drop_remainder=True)],
    )  # fmt: skip


def by_grain_dataset():
    whole = grain.MapDataset.source(Mine()).seed(1).shuffle().repeat()
    return whole.batch(B, drop_remainder=True).to_iter_dataset()


READERS = dict(
    plain=plain, a_list=a_list, stateful=Stateful, data_set=DataSet,
    grain_loader=by_grain_loader, grain_dataset=by_grain_dataset,
)  # fmt: skip
FORWARD = ("plain", "a_list")  # have no state


def made(make, **options):
    names = ("signal", "label") if make is DataSet else None
    given = dict(held_out=a_list, n_out=2, names=names) | options
    if given["held_out"] is a_list and names:
        given["held_out"] = DataSet
    return tasks.iterator(make, **given)


def job(task):
    model = models.features((cells.elman(F, 4),), 2, 4)
    return task, model, estimators.exact(model, task.objective), optax.adam(1e-2)


# What a batch holds


def test_batches_are_those_of_the_reader():
    task = made(plain)
    assert (task.n_in, task.n_out, task.tokens) == (F, 2, False)
    assert task.objective is objectives.softmax_cross_entropy
    assert (task.train.length, task.held_out.length) == (None, N)
    for i in (0, 1, N - 1, N, 3, 2 * N + 2):  # any position, whatever was read before
        inputs, side, _ = batch_of(task.train, i)
        np.testing.assert_array_equal(
            inputs, XS[i % N].swapaxes(0, 1).astype(np.float32)
        )
        np.testing.assert_array_equal(side.targets.targets[-1], LABELS[i % N])
        np.testing.assert_array_equal(side.targets.weights.sum(0), np.ones(B))
        assert side.mask is None


STEPS = RNG.normal(size=(N, B, T, 2))
SYMBOLS = RNG.integers(0, 9, (N, B, T))


@pytest.mark.parametrize(
    ("inputs", "targets", "options", "n_in", "n_out", "objective", "per_step"),
    [
        (XS, STEPS, {}, F, 2, objectives.squared_error, True),
        (XS, STEPS[:, :, 0], {}, F, 2, objectives.squared_error, False),
        (XS, STEPS[:, :, 0, 0], {}, F, 1, objectives.squared_error, False),
        (XS, STEPS[..., 0], dict(per_step=True), F, 1, objectives.squared_error, True),
        (XS, STEPS[..., 0], dict(per_step=False), F, T, objectives.squared_error, False),
        (XS, STEPS > 0, {}, F, 2, objectives.sigmoid_cross_entropy, True),
        (XS[..., 0], LABELS, dict(n_out=3), 1, 3, objectives.softmax_cross_entropy, False),
        (SYMBOLS, SYMBOLS, dict(n_in=9), 9, 9, objectives.softmax_cross_entropy, True),
        (SYMBOLS, LABELS, dict(n_in=9, n_out=2), 9, 2, objectives.softmax_cross_entropy, False),
    ],
)  # fmt: skip
def test_what_is_taken_for_what(
    inputs, targets, options, n_in, n_out, objective, per_step
):
    make = lambda: zip(inputs, targets, strict=True)
    task = tasks.iterator(make, held_out=make, **options)
    assert (task.n_in, task.n_out, task.tokens) == (n_in, n_out, inputs is SYMBOLS)
    assert task.objective is objective
    assert task.encoding.per_step == per_step
    _, side, _ = batch_of(task.train, 1)
    assert hasattr(side.targets, "weights") == (not per_step)
    if per_step:
        want = np.swapaxes(targets[1], 0, 1)
        np.testing.assert_allclose(
            side.targets.reshape(want.shape), want.astype(np.float32)
        )


def test_lengths_make_a_mask_and_nothing_is_read_beyond():
    lengths = np.array([T, 2, 0, 1])
    xs = XS.copy()
    xs[:, 2] = np.nan
    xs[:, 1, 2:] = np.inf
    make = lambda: ((x, y, lengths) for x, y in zip(xs, LABELS, strict=True))
    task = tasks.iterator(make, held_out=make, n_out=2)
    _, side, _ = batch_of(task.train, 1)
    np.testing.assert_array_equal(side.mask.sum(0), lengths)
    np.testing.assert_array_equal(side.targets.weights.sum(0), lengths > 0)
    model = job(task)[1]
    found = train.evaluate(task, model, model.init(jax.random.key(0)))
    assert np.isfinite(found["loss"])
    assert set(found) == {"loss", "accuracy"}


def test_nothing_held_out_is_said():
    with pytest.warns(UserWarning, match="nothing is held out.* first 20 batches"):
        task = made(plain, held_out=None)
    assert task.held_out.length == N
    np.testing.assert_array_equal(
        task.held_out.read(2, 1).inputs, task.train.read(2, 1).inputs
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(lambda: itertools.cycle(PAIRS), held_out_batches=3, held_out=plain)


def test_a_held_out_reader_without_an_end():
    task = made(plain, held_out=lambda: itertools.cycle(PAIRS), held_out_batches=12)
    assert task.held_out.length == 12


# The way back


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Of a run that nothing has stopped."""
    found = {}

    def of(name):
        if name not in found:
            out = tmp_path_factory.mktemp("whole")
            done = train.run(*job(made(READERS[name])), OPTIONS, out)
            found[name] = outcome(out, done.state)
        return found[name]

    return of


def interrupted(after):
    asked = itertools.count(1)
    return train.Progress(interrupted=lambda: next(asked) >= after)


@pytest.mark.parametrize(
    "name", [tiers.slow(name, name == "stateful") for name in READERS]
)
def test_a_run_goes_on_bit_for_bit(name, whole, tmp_path):
    said = []
    for after in (2, 3):  # at steps 4 and 10: in the first epoch and in the second
        with pytest.raises(KeyboardInterrupt):
            train.run(
                *job(made(READERS[name])),
                OPTIONS,
                tmp_path,
                progress=interrupted(after),
            )
    progress = train.Progress(message=said.append)
    done = train.run(*job(made(READERS[name])), OPTIONS, tmp_path, progress=progress)
    assert outcome(tmp_path, done.state) == whole(name)
    told = [text for text in said if "no state of its own: 3 batches" in text]
    assert len(told) == (name in FORWARD)
    if name in FORWARD:
        assert whole(name) == whole("plain")
    else:
        assert not any("no state" in text for text in said)


@pytest.mark.slow
def test_a_run_on_batches_of_torch_goes_on_bit_for_bit(tmp_path):
    """Its loader has no state; its tensors become arrays."""
    torch = pytest.importorskip("torch")  # of the extra `bench`
    xs, labels = torch.tensor(XS.reshape(-1, T, F)), torch.tensor(LABELS.reshape(-1))
    data = torch.utils.data.TensorDataset(xs, labels)

    def make():
        order = torch.Generator().manual_seed(3)
        return torch.utils.data.DataLoader(data, B, shuffle=True, generator=order)

    task = made(make)
    assert sorted(task.train.read(0, N).targets.ravel()) == sorted(LABELS.ravel())
    done = train.run(*job(task), OPTIONS, tmp_path / "whole")
    want = outcome(tmp_path / "whole", done.state)
    with pytest.raises(KeyboardInterrupt):
        train.run(*job(made(make)), OPTIONS, tmp_path / "cut", progress=interrupted(5))
    said = []
    progress = train.Progress(message=said.append)
    done = train.run(*job(made(make)), OPTIONS, tmp_path / "cut", progress=progress)
    assert outcome(tmp_path / "cut", done.state) == want
    assert any("no state of its own: 3 batches" in text for text in said)


def hugging_faces() -> dict:
    """Ways to batches of a data set in memory, of the real library."""
    datasets = pytest.importorskip("datasets")  # of the extra `bench`
    rows = dict(signal=XS.reshape(-1, T, F).tolist(), label=LABELS.ravel().tolist())
    whole = datasets.Dataset.from_dict(rows).with_format("numpy")

    def as_it_is():
        return whole.iter(B, drop_last_batch=True)

    def forward(of):
        return of.with_format("numpy").batch(B, drop_last_batch=True)

    return dict(
        map=as_it_is,
        iterable=lambda: forward(whole.to_iterable_dataset(num_shards=2)),
        shuffled=lambda: forward(whole.shuffle(seed=3).to_iterable_dataset()),
        # its state does not have what is in its buffer: so it is not to be seen
        buffer=lambda: iter(
            forward(whole.to_iterable_dataset().shuffle(3, buffer_size=8))
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["map", "iterable", "shuffled", "buffer"])
def test_batches_of_hugging_faces_datasets_go_on(name):
    """From places in the first epoch and in the second."""
    make = hugging_faces()[name]
    stream = lambda: made(make, names=("signal", "label"), held_out=make).train
    want, said = stream().read(0, 2 * N), []
    assert sorted(want.targets[:N].ravel()) == sorted(LABELS.ravel())
    np.testing.assert_array_equal(want.inputs[:N], want.inputs[N:])
    for k in (1, 5, N, N + 4):
        one, other = stream(), stream()
        one.read(0, k)
        one.read(k, 2)  # ahead
        kept = json.loads(json.dumps(one.place.save(k)))
        other.place.restore(k, kept, said.append)
        again = other.read(k, 2)
        np.testing.assert_array_equal(again.inputs, want.inputs[k : k + 2])
        np.testing.assert_array_equal(again.targets, want.targets[k : k + 2])
    assert bool(said) == (name in ("map", "buffer"))  # which have no state


def test_what_was_read_ahead_is_read_again(tmp_path):
    """A checkpoint has the place before what was not trained on."""
    stream = made(Stateful).train
    stream.read(0, 2)
    ahead = stream.read(2, 3)
    kept = json.loads(json.dumps(stream.place.save(2)))
    other = made(Stateful).train
    Stateful.read = 0
    other.place.restore(2, kept, lambda text: pytest.fail(text))
    again = other.read(2, 3)
    assert Stateful.read == 3
    np.testing.assert_array_equal(again.inputs, ahead.inputs)
    assert kept["since"] == 2


def test_a_place_nobody_noted_is_found_by_reading():
    stream, other = made(plain).train, made(plain).train
    stream.read(0, 3)
    kept = stream.place.save(N + 2)  # in the second epoch
    said = []
    other.place.restore(N + 2, kept, said.append)
    np.testing.assert_array_equal(
        other.read(N + 2, 2).inputs, made(plain).train.read(2, 2).inputs
    )
    assert "2 batches are read again" in said[0]


def test_without_anything_kept_it_is_read_from_the_beginning():
    stream, said = made(plain).train, []
    stream.place.restore(N + 3, None, said.append)
    np.testing.assert_array_equal(
        stream.read(N + 3, 1).inputs[0], XS[3].swapaxes(0, 1).astype(np.float32)
    )
    assert f"{N + 3} batches are read again" in said[0]


def test_a_state_that_cannot_be_written_down_is_none(monkeypatch):
    monkeypatch.setattr(Stateful, "get_state", lambda self: {"at": object()})
    stream = made(Stateful).train
    stream.read(0, 3)
    assert stream.place.save(3) == {"since": 3, "state": None}


def test_an_order_that_is_another_one_each_time_is_told():
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="begins with another batch each time.*seeded"):
        made(lambda: (PAIRS[i] for i in rng.permutation(N))).train.read(0, 2 * N)


def test_a_state_as_json():
    state = {"a": (1, [2.5, None, True]), 3: b"\xff", "x": np.arange(6.0).reshape(2, 3),
             "n": np.uint8(7), "empty": {}}  # fmt: skip
    again = unpacked(json.loads(json.dumps(packed(state))))
    np.testing.assert_array_equal(again.pop("x"), state.pop("x"))
    assert again == state
    assert type(again["n"]) is np.uint8
    with pytest.raises(TypeError, match="has a set in it"):
        packed([{1}])


@pytest.mark.slow
def test_a_checkpoint_holds_the_place(tmp_path):
    train.run(*job(made(Stateful)), OPTIONS, tmp_path)
    file = next(pathlib.Path(tmp_path / "checkpoint" / "18").rglob("digests/metadata"))
    assert json.loads(file.read_text())["place"]["since"] == 18 % N


# What is refused


def test_a_sweep_says_that_it_cannot():
    task, model, estimator, _ = job(made(plain))
    with pytest.raises(ValueError, match="task: .*reader.*expected arrays"):
        sweep.training(task, model, estimator, optax.adam)


def with_batch(i, pair):
    pairs = [*PAIRS]
    pairs[i] = pair
    return lambda: iter(pairs)


def bad(a, at, value):
    a = np.array(a, float if isinstance(value, float) else None)
    a[at] = value
    return a


X, Y = PAIRS[0]


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda: iter(()), {}, r"the reader that it opened yields no batch$"),
        (lambda: 3, {}, "make: expected a function that opens an iterable.*gives int"),
        (X, {}, "make: expected a function that opens a reader, got ndarray"),
        (lambda: iter([X]), {}, r"batch 0: expected \(inputs, targets\).*got ndarray"),
        (lambda: iter([(X,)]), {}, "batch 0: expected .* got 1 of them"),
        (lambda: iter([{"x": X, "y": Y}]), {}, r"got a dict; say which of x, y by names="),
        (lambda: iter([{"x": X}]), dict(names=("x", "y")), "batch 0: has no 'y', but x"),
        (plain, dict(n_out=None), "n_out: targets are labels; say how many classes"),
        (lambda: iter([(SYMBOLS[0], Y)]), {}, "n_in: inputs are integers .*say how many"),
        (plain, dict(n_in=5), "n_in: inputs have 3 features, got 5"),
        (lambda: iter([(X, Y[:2])]), {}, r"targets: expected \[4\], \[4, 6\], got \[2\]"),
        (lambda: iter([(X, STEPS[0, ..., 0])]), {}, r"\[4, 6\] may be 6 numbers .*per_step"),
        (lambda: iter([(X[0, 0], Y)]), {}, r"inputs: expected \[B, T, ...\], got \[3\]"),
        (lambda: iter([([[1, 2], [3]], Y)]), {}, "inputs: .*numbers, got dtype object"),
        (lambda: iter([(np.array([["a"]]), Y)]), {}, "inputs: .*numbers, got text"),
        (lambda: iter([(X.astype(object), Y)]), {}, "inputs: .*numbers, got dtype object"),
        (with_batch(0, (bad(X, (1, 2, 0), np.nan), Y)), {}, r"0: inputs: nan at \[1, 2, 0\]"),
        (with_batch(0, (X, bad(Y, 3, 2))), {}, r"targets: 2 at \[3\]; expected .* from 0 to 1"),
        (with_batch(0, (X, Y, [T + 1] * B)), {}, "lengths: expected integers .4. from 0.*to 7"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_any_work(make, options, words):
    with pytest.raises((TypeError, ValueError), match=words) as told:
        made(make, **dict(n_out=2) | options)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        (
            (X[:2], Y[:2]),
            r"inputs \[2, 6, 3\], and those of the first batch \[4, 6, 3\]",
        ),
        ((X[:, :3], Y), r"inputs \[4, 3, 3\], .*drop_last"),
        ((X, Y * 1.0), "targets: float64, unlike those of batch 0"),
        ((bad(X, (0, 0, 1), np.inf), Y), r"inputs: inf at \[0, 0, 1\]"),
        ((X, Y, np.ones(B, int)), "has lengths, and the first batch is not so"),
    ],
)
def test_a_later_batch_is_refused_by_its_number(pair, words):
    task = made(with_batch(3, pair), held_out=plain)
    task.train.read(0, 3)
    with pytest.raises((TypeError, ValueError), match=f"batch 3: {words}"):
        task.train.read(3, 1)
    with pytest.raises((TypeError, ValueError), match=f"held_out: batch 3: {words}"):
        made(plain, held_out=with_batch(3, pair))


def test_a_reader_that_can_be_opened_once():
    once = plain()
    stream = made(lambda: once).train
    with pytest.warns(UserWarning, match="begins with another batch"):
        stream.read(0, 2)
    with pytest.raises(ValueError, match="yields no batch, though it did before"):
        stream.read(2, 2 * N)


def test_symbols_outside_are_refused():
    make = lambda: zip(SYMBOLS, SYMBOLS, strict=True)
    with pytest.raises(ValueError, match=r"batch 0: inputs: \d at .* from 0 to 4"):
        tasks.iterator(make, held_out=make, n_in=5)
