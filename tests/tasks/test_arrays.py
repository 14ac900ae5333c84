"""One's own arrays: what is seen of them, in which order, and what is refused."""

import collections
import itertools
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bptt_jax import cells, estimators, models, objectives, sweep, tasks, train
from support.batches import batch_of, same

RNG = np.random.default_rng(7)
LENGTHS = RNG.integers(2, 40, 101)
NAMES = np.array(["ash", "birch", "cedar"])
LABELS = NAMES[RNG.choice(3, 101, p=[0.6, 0.3, 0.1])]
GROUPS = RNG.integers(0, 12, 101)


def signals(lengths=LENGTHS, features=3, seed=0):
    """The first feature numbers the sequence, the second its steps."""
    rng = np.random.default_rng(seed)
    each = [rng.normal(5, 2, (n, features)) for n in lengths]
    for i, a in enumerate(each):
        a[:, 0], a[:, 1] = i, np.arange(len(a))
    return each


def rows_of(stream, epoch=0):
    """Of each sequence of an epoch: inputs and targets of real steps, and weights."""
    for i in range(stream.length):
        inputs, side, _ = batch_of(stream, epoch * stream.length + i)
        lengths = stream.read(epoch * stream.length + i, 1).lengths[0]
        targets, weights = side.targets, np.ones(inputs.shape[:2])
        if hasattr(targets, "weights"):
            targets, weights = targets
        if side.mask is not None:
            np.testing.assert_array_equal(side.mask.sum(0), lengths)
        for b, n in enumerate(lengths):
            if n:
                yield inputs[:n, b], targets[:n, b], weights[:n, b]
            elif side.mask is None:
                assert not weights[:, b].any()


def numbers(stream, epoch=0):
    return [int(inputs[0, 0]) for inputs, *_ in rows_of(stream, epoch)]


def held(task):
    return np.sort(numbers(task.held_out))


def made(inputs=None, targets=LABELS, **options):
    given = dict(batch=8, standardise=False) | options
    return tasks.arrays(signals() if inputs is None else inputs, targets, **given)


# what a batch holds


@pytest.mark.parametrize("batch", [8, 13])
def test_every_sequence_is_there_once_an_epoch_with_its_steps_and_its_label(batch):
    task, xs = made(batch=batch), signals()
    of_parts = []
    for stream, epoch in [(task.train, 0), (task.train, 3), (task.held_out, 0)]:
        seen = []
        for inputs, targets, weights in rows_of(stream, epoch):
            i = int(inputs[0, 0])
            np.testing.assert_array_equal(inputs, xs[i].astype(np.float32))
            assert task.encoding.classes[targets[-1]] == LABELS[i]
            np.testing.assert_array_equal(
                weights, np.arange(len(xs[i])) == len(xs[i]) - 1
            )
            seen.append(i)
        assert len(set(seen)) == len(seen)
        of_parts.append(seen)
    first, later, out = of_parts
    assert first != later
    assert set(first) == set(later)
    assert sorted(first + out) == list(range(101))
    assert task.train.length == math.ceil(len(first) / batch)
    assert (task.n_in, task.n_out) == (3, 3)
    assert task.encoding.classes == ("ash", "birch", "cedar")


def test_arrays_of_one_length_need_no_mask():
    xs = np.stack(signals([6] * 21))
    for batch, steps in itertools.product((6, 8), (False, True)):
        targets = xs[..., :2] if steps else xs[:, 0, :2]
        task = made(xs, targets, batch=batch, held_out=np.array([0, 4, 20]))
        assert task.train.buckets == ()
        assert batch_of(task.train, 0).side.mask is None
        seen = []
        for inputs, targets, weights in rows_of(task.train):
            i = int(inputs[0, 0])
            np.testing.assert_array_equal(inputs, xs[i].astype(np.float32))
            want = xs[i, :, :2] if steps else xs[i, :1, :2].repeat(6, 0)
            np.testing.assert_array_equal(targets, want.astype(np.float32))
            np.testing.assert_array_equal(
                weights, np.ones(6) if steps else np.eye(6)[5]
            )
            seen.append(i)
        assert sorted(seen) == sorted(set(range(21)) - {0, 4, 20})


NOTHING = [np.zeros((n, 0)) for n in LENGTHS]
FORMS = {
    "text": (LABELS, "softmax_cross_entropy", 3, ()),
    "integers": (RNG.integers(4, 7, 101), "softmax_cross_entropy", 3, ()),
    "a column": (RNG.integers(4, 7, (101, 1)), "softmax_cross_entropy", 3, ()),
    "truths": (RNG.random(101) < 0.5, "sigmoid_cross_entropy", 1, (1,)),
    "several truths": (RNG.random((101, 4)) < 0.5, "sigmoid_cross_entropy", 4, (4,)),
    "numbers": (RNG.normal(size=101), "squared_error", 1, (1,)),
    "vectors": (RNG.normal(size=(101, 5)), "squared_error", 5, (5,)),
    "list": (list(RNG.normal(size=101)), "squared_error", 1, (1,)),
    "labels of steps": ([RNG.integers(3, 5, n) for n in LENGTHS],
                        "softmax_cross_entropy", 2, ()),
    "text of steps": ([NAMES[RNG.integers(0, 3, n)] for n in LENGTHS],
                      "softmax_cross_entropy", 3, ()),
    "truths of steps": ([RNG.random((n, 2)) < 0.5 for n in LENGTHS],
                        "sigmoid_cross_entropy", 2, (2,)),
    "numbers of steps": ([RNG.normal(size=n) for n in LENGTHS], "squared_error", 1, (1,)),
    "vectors of steps": ([RNG.normal(size=(n, 3)) for n in LENGTHS],
                         "squared_error", 3, (3,)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_targets_by_their_form(name):
    targets, objective, n_out, trailing = FORMS[name]
    task, per_step = made(targets=targets), name.endswith("steps")
    assert task.objective is getattr(objectives, objective)
    assert (task.n_out, task.encoding.per_step) == (n_out, per_step)
    for inputs, found, _ in rows_of(task.train):
        assert found.shape == (len(inputs), *trailing)
        want = np.asarray(targets[int(inputs[0, 0])])
        if n_out > 1 and not trailing or objective.startswith("soft"):
            found = np.array(task.encoding.classes)[found]
        found = found if per_step else found[-1]
        want = want.astype(np.float32) if want.dtype.kind in "fb" else want
        np.testing.assert_array_equal(found, want.reshape(found.shape))


def test_whether_steps_have_targets_is_said_where_shapes_do_not():
    xs, ys = np.stack(signals([6] * 21)), RNG.normal(size=(21, 6))
    with pytest.raises(
        ValueError, match=r"targets: \[21, 6\] may be 6 numbers a sequence"
    ):
        made(xs, ys)
    assert made(xs, ys, per_step=True).n_out == 1
    assert made(xs, ys, per_step=False).n_out == 6
    assert made(xs, (ys > 0).astype(int)).encoding.per_step  # labels are single


@pytest.mark.parametrize("kind", ["features", "truths", "symbols"])
def test_without_targets_the_next_input_is_predicted(kind):
    make = dict(
        features=lambda n, i: signals([n])[0] + [i, 0, 0],
        truths=lambda n, i: RNG.random((n, 2)) < 0.5,
        symbols=lambda n, i: np.append(RNG.integers(0, 9, n - 1), 9),
    )[kind]
    xs = [make(n, i) for i, n in enumerate(LENGTHS)]
    task = made(xs, None)
    wanted = dict(features="squared_error", truths="sigmoid_cross_entropy",
                  symbols="softmax_cross_entropy")[kind]  # fmt: skip
    assert task.objective is getattr(objectives, wanted)
    assert task.tokens == (kind == "symbols")
    n = dict(features=3, truths=2, symbols=10)[kind]
    assert (task.n_in, task.n_out) == (n, n)
    known = collections.Counter(a.astype(np.float32).tobytes() for a in xs)
    for stream in (task.train, task.held_out):
        for inputs, targets, _ in rows_of(stream):
            np.testing.assert_array_equal(inputs[1:], targets[:-1])
            whole = np.concatenate([inputs, targets[-1:]]).astype(np.float32)
            known[whole.tobytes()] -= 1
    assert set(known.values()) == {0}


def test_inputs_without_an_axis_of_features_and_with_several():
    flat = [RNG.normal(size=n) for n in LENGTHS]
    task = made(flat)
    assert (task.n_in, task.tokens) == (1, False)
    images = [RNG.integers(0, 256, (n, 4, 5), np.uint8) for n in LENGTHS]
    task = made(images)
    assert (task.n_in, task.tokens) == (20, False)
    known = {a.reshape(len(a), 20).astype(np.float32).tobytes() for a in images}
    assert all(inputs.tobytes() in known for inputs, *_ in rows_of(task.train))


def test_arrays_of_other_libraries():
    """Text as pandas has it, arrays of JAX, numbers that NumPy does not know."""
    xs = np.stack(signals([6] * 21))
    labels = np.array(["yes", "no", "yes"] * 7)
    plain = made(xs.astype(jnp.bfloat16).astype(np.float32), labels)
    other = made(jnp.asarray(xs, jnp.bfloat16), labels.astype(object))
    same(plain.train.read(0, 3), other.train.read(0, 3))
    assert plain.encoding == other.encoding


# scales


def test_standardised_by_the_training_part():
    xs, ys = signals(features=4), RNG.normal(1e3, 5, (101, 2))
    for a in xs:
        a[:, 3] = 0.1
    ys[:, 1] = 3
    task = made(xs, ys, standardise=True, held_out=np.arange(0, 101, 9))
    seen = [i for i in range(101) if i % 9]
    frames = np.concatenate([xs[i] for i in seen])
    mean, deviation = frames.mean(0), frames.std(0)
    mean[3], deviation[3] = 0.1, 1
    np.testing.assert_allclose(task.encoding.inputs.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(task.encoding.inputs.deviation, deviation, rtol=1e-12)
    scale = task.encoding.targets
    np.testing.assert_allclose(scale.mean, [ys[seen, 0].mean(), 3], rtol=1e-12)
    np.testing.assert_allclose(scale.deviation, [ys[seen, 0].std(), 1], rtol=1e-12)
    for stream in (task.train, task.held_out):
        for inputs, targets, _ in rows_of(stream):
            i = round(float(inputs[0, 0] * deviation[0] + mean[0]))
            np.testing.assert_allclose(inputs, (xs[i] - mean) / deviation, atol=1e-6)
            back = targets[-1] * np.array(scale.deviation) + scale.mean
            np.testing.assert_allclose(back, ys[i], rtol=1e-5)


def test_targets_of_steps_are_standardised_over_steps():
    ys = [RNG.normal(3, 2, n) for n in LENGTHS]
    task = made(targets=ys, standardise=True, held_out=np.arange(50))
    seen = np.concatenate(ys[50:])
    np.testing.assert_allclose(task.encoding.targets.mean, seen.mean())
    np.testing.assert_allclose(task.encoding.targets.deviation, seen.std())


def test_what_is_not_standardised():
    truths = [RNG.random((n, 2)) < 0.3 for n in LENGTHS]
    assert made(truths, standardise=True).encoding.inputs is None
    symbols = [RNG.integers(0, 5, n) for n in LENGTHS]
    assert made(symbols, standardise=True).encoding.inputs is None
    counts = RNG.integers(0, 9, 101)
    task = made(targets=counts, objective=objectives.squared_error, standardise=True)
    assert task.encoding.targets is None
    own = lambda ys, targets: jnp.abs(ys - targets).sum(-1)
    task = made(targets=RNG.normal(size=101), objective=own, standardise=True)
    assert task.encoding.targets is None
    assert (task.objective, task.n_out, task.baselines) == (own, 1, {})


def test_a_large_offset_does_not_cost_digits():
    xs = [1.7e9 + np.arange(n)[:, None] for n in LENGTHS]
    task = made(xs, standardise=True)
    ((mean,), (deviation,)) = task.encoding.inputs
    for inputs, *_ in rows_of(task.train):
        want = (1.7e9 + np.arange(len(inputs)) - mean) / deviation
        np.testing.assert_allclose(inputs[:, 0], want, rtol=1e-6)


# nothing is read of what is not to be read


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("targets", [LABELS, RNG.normal(size=101), None])
def test_the_held_out_part_changes_no_bit_of_training(targets, own):
    out = np.arange(0, 101, 7)
    inside = np.setdiff1d(np.arange(101), out)
    xs = signals()
    wild = [a * 1e9 if i in out else a for i, a in enumerate(xs)]
    others = targets
    if targets is not None:
        others = targets.copy()
        others[out] = "ash" if targets is LABELS else 1e9

    def task(xs, ys):
        if not own:
            return made(xs, ys, standardise=True, held_out=out)
        pair = [None if ys is None else ys[part] for part in (inside, out)]
        return tasks.arrays(
            [xs[i] for i in inside],
            pair[0],
            held_out=([xs[i] for i in out], pair[1]),
            batch=8,
        )

    a, b = task(xs, targets), task(wild, others)
    n = 2 * a.train.length
    same(a.train.read(0, n), b.train.read(0, n))
    assert (a.encoding, a.train.buckets) == (b.encoding, b.train.buckets)
    assert a.record["sha256"] != b.record["sha256"]


def test_padding_changes_no_bit_of_a_gradient():
    task = made(standardise=True)
    model = models.features((cells.elman(3, 5),), 3, 5)
    estimator = estimators.bucketed(
        estimators.exact(model, task.objective), task.train.buckets
    )
    params = model.init(jax.random.key(0))
    gradient = jax.jit(estimator.grad)
    for position in range(task.train.length):
        item = jax.tree.map(lambda a: a[0], task.train.read(position, 1))
        real = np.arange(len(item.inputs))[:, None] < item.lengths
        noise = np.where(real[..., None], item.inputs, np.float32(np.nan))
        each = [
            gradient(params, (), task.train.batch(i, None), jax.random.key(1))
            for i in (item, item._replace(inputs=noise))
        ]
        same(*each)
        assert np.isfinite(each[0].loss)


def test_arrays_may_be_changed_afterwards():
    xs, ys = np.stack(signals([6] * 21)).astype(np.float32), RNG.normal(size=(21, 6, 1))
    task = made(xs, ys.astype(np.float32))
    before = task.train.read(0, 3)
    xs[:], ys[:] = 0, 0
    same(before, task.train.read(0, 3))


# order


@pytest.mark.parametrize("which", ["train", "held_out"])
def test_a_stream_begun_anywhere_gives_the_same_batches(which):
    stream, again = getattr(made(), which), getattr(made(), which)
    n = 2 * stream.length + 3
    whole = stream.read(0, n)
    for first, count in [(0, 1), (1, n - 1), (stream.length - 1, 2), (n - 1, 1)]:
        part = jax.tree.map(lambda a, f=first, c=count: a[f : f + c], whole)
        same(part, again.read(first, count))
    for at in reversed(range(n)):
        same(jax.tree.map(lambda a, at=at: a[at : at + 1], whole), stream.read(at, 1))


def test_epochs_have_orders_of_their_own_and_an_evaluation_has_one():
    task, other = made(), made(seed=1)
    assert numbers(task.train, 0) != numbers(task.train, 1)
    assert numbers(task.held_out, 0) == numbers(task.held_out, 1)
    assert list(held(task)) != list(held(other))
    a, b = (made(held_out=np.arange(9), seed=s).train for s in (0, 1))
    assert numbers(a) != numbers(b)


def padding(lengths, edges):
    return sum(min(e for e in edges if e >= n) for n in lengths)


@pytest.mark.parametrize("seed", range(4))
def test_buckets_are_the_best_of_their_number(seed):
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.geometric(0.15, 60), 25)
    xs = [np.zeros((n, 1)) for n in lengths]
    found = made(xs, np.arange(60) % 2, held_out=np.arange(4), batch=5).train.buckets
    seen = lengths[4:]
    edges = sorted(set(seen.tolist()))
    best = {}
    for k in range(1, 5):
        for chosen in itertools.combinations(edges[:-1], k - 1):
            cuts = [0, *chosen, edges[-1]]
            counts = np.histogram(seen, np.array(cuts) + 0.5)[0]
            if (counts[:-1] >= 5).all():
                best[k] = min(best.get(k, np.inf), padding(seen, cuts[1:]))
    worth = next((k for k in (1, 2, 3) if best[k] - best[k + 1] < 0.1 * best[k]), 4)
    assert len(found or (edges[-1],)) == worth
    assert padding(seen, found or (edges[-1],)) == best[worth]


def test_batches_are_of_like_lengths():
    lengths = np.repeat([5, 50, 100], 40)
    task = made([np.zeros((n, 1)) for n in lengths], np.arange(120) % 2, batch=10)
    assert task.train.buckets == (5, 50, 100)
    longest = task.train.read(0, task.train.length).lengths.max(1)
    assert sorted(set(longest.tolist())) == [5, 50, 100]
    assert (longest == 100).sum() <= 4  # 36 sequences, and what is left of the shorter
    assert (longest == 50).sum() <= 4
    assert longest.tolist() != sorted(longest)


# what is held out


def test_a_share_is_one_of_each_class():
    for share, seed in itertools.product((0.1, 0.25, 0.5), range(3)):
        out = held(made(held_out=share, seed=seed))
        for name in NAMES:
            wanted = share * (LABELS == name).sum()
            assert abs((LABELS[out] == name).sum() - wanted) < 1
    assert len(set(LABELS[held(made(held_out=0.02))])) == 3


def test_a_share_of_numbers_is_one_of_all():
    assert len(held(made(targets=RNG.normal(size=101), held_out=0.2))) == 20
    assert len(held(made(targets=[np.arange(n) for n in LENGTHS], held_out=0.2))) == 20


def test_groups_are_never_on_both_sides():
    for share, seed in itertools.product((0.1, 0.3, 0.5), range(5)):
        out = held(made(held_out=share, seed=seed, groups=GROUPS))
        inside = np.setdiff1d(np.arange(101), out)
        assert not set(GROUPS[out]) & set(GROUPS[inside])
        assert abs(len(out) - share * 101) < 10
        for name in NAMES:
            wanted = share * (LABELS == name).sum()
            assert abs((LABELS[out] == name).sum() - wanted) < 8
    names = np.array([f"person {g}" for g in GROUPS])
    np.testing.assert_array_equal(
        held(made(groups=names)),
        held(made(groups=np.unique(names, return_inverse=True)[1])),
    )
    two = (np.arange(101) < 40).astype(int)  # one stays on each side
    assert list(held(made(held_out=0.1, groups=two))) == list(range(40))
    assert list(held(made(held_out=0.9, groups=two))) == list(range(40, 101))


def test_indices_truths_and_a_part_of_ones_own():
    out = np.array([5, 3, 77])
    chosen = np.zeros(101, bool)
    chosen[out] = True
    for given in (out, chosen, [5, 3, 77]):
        np.testing.assert_array_equal(held(made(held_out=given)), np.sort(out))
    np.testing.assert_array_equal(held(made(held_out=[5, 3])), [3, 5])
    groups = np.where(chosen, "x", "y")
    np.testing.assert_array_equal(held(made(held_out=out, groups=groups)), np.sort(out))
    xs = signals()
    task = made(xs[:60], LABELS[:60], held_out=(xs[60:], LABELS[60:]))
    np.testing.assert_array_equal(held(task), np.arange(60, 101))
    assert sorted(numbers(task.train)) == list(range(60))


# weights


def weights_in(task, stream=None):
    """By sequence: the weights of its steps."""
    each = rows_of(task.train if stream is None else stream)
    return {int(inputs[0, 0]): weights for inputs, _, weights in each}


def test_weights_of_sequences_of_steps_and_of_classes():
    w = RNG.random(101).astype(np.float32)
    for i, found in weights_in(made(weights=w)).items():
        np.testing.assert_array_equal(
            found, w[i] * (np.arange(len(found)) == len(found) - 1)
        )
    ys = [RNG.normal(size=n) for n in LENGTHS]
    for i, found in weights_in(made(targets=ys, weights=w)).items():
        np.testing.assert_array_equal(found, np.full(LENGTHS[i], w[i]))
    each = [RNG.random(n).astype(np.float32) for n in LENGTHS]
    for i, found in weights_in(made(targets=ys, weights=each)).items():
        np.testing.assert_array_equal(found, each[i])
    for i, found in weights_in(made(targets=None, weights=each)).items():
        np.testing.assert_array_equal(found, each[i][1:])
    by_class = dict(ash=0.5, birch=1.0, cedar=4.0)
    for stream in ("train", "held_out"):
        task = made(weights=by_class)
        for i, found in weights_in(task, getattr(task, stream)).items():
            assert found[-1] == by_class[LABELS[i]]
    truths = RNG.random(101) < 0.3
    for i, found in weights_in(
        made(targets=truths, weights={False: 1, True: 3})
    ).items():
        assert found[-1] == (3 if truths[i] else 1)


def test_weights_beside_a_held_out_part_of_ones_own():
    xs, w = signals(), RNG.random(60).astype(np.float32)
    own = (xs[60:], LABELS[60:])
    task = made(xs[:60], LABELS[:60], held_out=own, weights=w)
    assert {i: a[-1] for i, a in weights_in(task).items()} == dict(enumerate(w))
    assert all(a[-1] == 1 for a in weights_in(task, task.held_out).values())


# baselines


def test_baselines_are_what_the_best_constant_costs():
    out = np.arange(0, 101, 5)
    inside = np.setdiff1d(np.arange(101), out)
    shares = {name: np.mean(LABELS[inside] == name) for name in NAMES}
    want = -np.mean([np.log(shares[name]) for name in LABELS[out]])
    found = made(held_out=out).baselines["class frequencies"]
    assert found == pytest.approx(want)
    ys = RNG.normal(2, 3, (101, 2))
    want = ((ys[out] - ys[inside].mean(0)) ** 2).sum(1).mean()
    found = made(targets=ys, held_out=out).baselines["mean"]
    assert found == pytest.approx(want, rel=1e-5)
    truths = RNG.random(101) < 0.3
    p = truths[inside].mean()
    want = -np.log(np.where(truths[out], p, 1 - p)).mean()
    found = made(targets=truths, held_out=out).baselines["frequencies"]
    assert found == pytest.approx(want, rel=1e-5)
    xs = signals()
    errors = np.concatenate([((xs[i][1:] - xs[i][:-1]) ** 2).sum(1) for i in out])
    found = made(targets=None, held_out=out).baselines["last value"]
    assert found == pytest.approx(errors.mean(), rel=1e-5)


def test_a_loss_of_the_loop_is_in_the_unit_of_the_baselines():
    """A readout of zeros is the mean of what was standardised."""
    ys, w = [RNG.normal(2, 3, n) for n in LENGTHS], RNG.random(101)
    task = made(targets=ys, standardise=True, held_out=0.3, weights=w)
    model = models.features((cells.elman(3, 4),), 1, 4)
    params = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    stream = task.held_out
    losses = train.evaluator(model, task.objective, stream.batch, False, stream.buckets)
    sums = losses(params, None, stream.read(0, stream.length))
    out = held_rows(task, ys)
    mean, deviation = (a[0] for a in task.encoding.targets)
    total = sum(w[i] * (((ys[i] - mean) / deviation) ** 2).sum() for i in out)
    count = sum(w[i] * len(ys[i]) for i in out)
    assert float(sums.losses / sums.steps) == pytest.approx(total / count, rel=1e-5)


def held_rows(task, ys):
    (mean,), (deviation,) = task.encoding.targets
    known = {round(float(y[0]), 3): i for i, y in enumerate(ys)}
    return [known[round(float(t[0, 0] * deviation + mean), 3)]
            for _, t, _ in rows_of(task.held_out)]  # fmt: skip


# refused


def bad_at(i, value):
    xs = signals()
    xs[i][min(3, len(xs[i]) - 1), 2] = value
    return xs


ONCE = np.array(["ash"] * 50 + ["birch"] * 50 + ["cedar"])
STEPS = [RNG.normal(size=n) for n in LENGTHS]
FIVE = np.zeros((20, 5, 2))
REFUSED = {
    "an empty list": (dict(inputs=[]), "inputs: expected at least one sequence, got none"),
    "an empty array": (dict(inputs=np.zeros((0, 5, 2)), targets=np.zeros(0)),
                       "inputs: expected at least one sequence"),
    "a sequence of no steps": (dict(inputs=[*signals()[:-1], np.zeros((0, 3))]),
                               "inputs: sequence 100 has no steps"),
    "T = 0": (dict(inputs=np.zeros((101, 0, 3))), "inputs: sequence 0 has no steps"),
    "one step, the next": (dict(inputs=np.zeros((101, 1, 3)), targets=None),
                           "sequence 0 has 1 step, and none after it to predict"),
    "one axis": (dict(inputs=np.zeros(101)), r"expected \[N, T, ...\] or a list.*\[101\]"),
    "a single value": (dict(inputs=[1.0, 2.0]), r"inputs\[0\]: expected \[T, ...\]"),
    "features": (dict(inputs=[*signals()[:-1], np.zeros((4, 2))]),
                 r"inputs\[100\]: expected features of shape \[3\].*got \[2\]"),
    "rows of unequal lengths": (dict(inputs=[[[1, 2], [3]]] * 101),
                                r"inputs\[0\]: expected an array, got rows of unequal"),
    "nan": (dict(inputs=bad_at(17, np.nan)),
            f"inputs: nan at sequence 17, step {min(3, LENGTHS[17] - 1)}, feature 2"),
    "infinite": (dict(inputs=bad_at(0, -np.inf)), "inputs: -inf at sequence 0, step"),
    "beyond float32": (dict(inputs=bad_at(100, 1e39)), r"1e\+39 at sequence 100, step"),
    "text inputs": (dict(inputs=[np.array(["a"] * n) for n in LENGTHS]),
                    "inputs: expected numbers, got text"),
    "objects": (dict(inputs=np.array(signals(), object)), "got one of objects"),
    "complex": (dict(inputs=[1j * a for a in signals()]), r"inputs\[0\].*complex128"),
    "dates": (dict(inputs=np.zeros((101, 4, 1), "M8[s]")), "real numbers.*datetime64"),
    "negative symbols": (dict(inputs=[np.full(n, -1) for n in LENGTHS]),
                         "symbols from 0 on.*got -1"),
    "numbers as symbols": (dict(inputs=[np.full(n, 1_700_000_000) for n in LENGTHS]),
                           r"symbols.*got 1700000000; numbers are given as \[N, T, 1\]"),
    "fewer targets": (dict(targets=LABELS[:-1]), "targets: expected 101.*got 100"),
    "a target": (dict(targets=3), "targets: expected one for each sequence, got one"),
    "no targets": (dict(targets=[]), "targets: expected one for each sequence, got none"),
    "steps and targets": (dict(targets=[*STEPS[:-1], np.zeros(LENGTHS[-1] + 1)]),
                          rf"got \[{LENGTHS[-1] + 1}\] of sequence 100, which has "
                          f"{LENGTHS[-1]} steps"),
    "targets of no length": (dict(targets=np.zeros((101, 5, 2))),
                             r"targets: expected one for each step or \[101\]"),
    "labels in vectors": (dict(targets=np.zeros((101, 5), int)), "labels are single"),
    "not per step": (dict(targets=LABELS, per_step=True), "expected one for each step"),
    "per step": (dict(targets=STEPS, per_step=False), r"expected.*\[101\]"),
    "both": (dict(inputs=FIVE, targets=np.zeros((20, 5))), "may be 5 numbers a sequence"),
    "nan targets": (dict(targets=np.append(np.zeros(100), np.nan)),
                    "targets: nan of sequence 100; expected finite"),
    "nan targets of steps": (dict(targets=[*STEPS[:-1], np.full(LENGTHS[-1], np.inf)]),
                             "targets: inf at sequence 100, step 0"),
    "objects as targets": (dict(targets=np.array([{}] * 101)), r"of objects \(dict\)"),
    "mixed labels": (dict(targets=["ash"] * 100 + [3]), r"targets\[100\]: expected <U3"),
    "floats as labels": (dict(targets=np.zeros(101),
                              objective=objectives.softmax_cross_entropy),
                         "targets: float64, and objectives.softmax_cross_entropy"),
    "text as numbers": (dict(objective=objectives.squared_error), "squared_error"),
    "truths": (dict(targets=np.full(101, 2), objective=objectives.sigmoid_cross_entropy),
               "targets: 2 of sequence 0; expected numbers from 0 to 1"),
    "no function": (dict(objective="mse"), "objective: expected a function, got str"),
    "the next symbols": (dict(targets=None, objective=objectives.softmax_cross_entropy),
                         "objective: the next inputs are float64"),
    "the next of a sequence": (dict(targets=None, per_step=False), "per_step: the next"),
    "one class": (dict(targets=["ash"] * 101), "all of the training part are 'ash'"),
    "one member": (dict(targets=ONCE), "class 'cedar' has one member"),
    "numbers as labels": (dict(targets=np.arange(101)), "class 0 has one.*as floats"),
    "an unknown class": (dict(targets=ONCE, held_out=np.array([3, 100])),
                         "class 'cedar' is in the held-out part alone"),
    "a share of 0": (dict(held_out=0.0), r"held_out: expected a share in \(0, 1\), got 0"),
    "a share of 1": (dict(held_out=1.0), r"a share in \(0, 1\), got 1.0"),
    "a share of nan": (dict(held_out=math.nan), r"share in \(0, 1\), got nan"),
    "a number": (dict(held_out=5), r"held_out: expected a share in \(0, 1\), indices"),
    "text held out": (dict(held_out="0.1"), "held_out: expected a share"),
    "a single sequence": (dict(inputs=signals([9]), targets=np.zeros(1)),
                          "held_out: a share of a single sequence"),
    "an index too large": (dict(held_out=[3, 101]), "indices from 0 to 100, got 101"),
    "a negative index": (dict(held_out=[-1, 4, 2]), "indices from 0 to 100, got -1"),
    "twice": (dict(held_out=[4, 2, 4]), "held_out: 4 is there 2 times"),
    "none": (dict(held_out=np.zeros(101, bool)), "0 of 101 sequences; expected some"),
    "all": (dict(held_out=np.arange(101)), "101 of 101 sequences"),
    "too few truths": (dict(held_out=np.ones(9, bool)), r"expected bool \[101\], got \[9\]"),
    "own without targets": (dict(held_out=(signals(), None)), "targets None where"),
    "own of other features": (dict(held_out=(signals(features=2), LABELS)),
                              r"held_out\[0\]: expected 3 values a step, as of inputs"),
    "own of other targets": (dict(held_out=(signals(), np.arange(101.0))),
                             r"held_out\[1\]: expected <U5, as of targets"),
    "own with nan": (dict(held_out=(bad_at(4, np.nan), LABELS)),
                     r"held_out\[0\]: nan at sequence 4"),
    "own and groups": (dict(held_out=(signals(), LABELS), groups=GROUPS),
                       r"groups: expected none where held_out is \(inputs, targets\)"),
    "groups on both sides": (dict(held_out=[0], groups=["a"] * 101), "'a' is on both"),
    "one group": (dict(groups=np.zeros(101)), "groups: one group alone"),
    "fewer groups": (dict(groups=GROUPS[1:]), r"groups: expected \[101\].*got \[100\]"),
    "nan groups": (dict(groups=np.full(101, np.nan)), "groups: NaN of sequence 0"),
    "negative weights": (dict(weights=np.full(101, -1)), "at least 0, got -1"),
    "nan weights": (dict(weights=np.full(101, np.nan)), "weights: expected finite.*nan"),
    "no weights": (dict(weights=np.zeros(101)), "weights: all of the training part are"),
    "none held out": (dict(weights=np.arange(101) > 3, held_out=[0, 2]),
                      "weights: all of the held-out part are zero"),
    "fewer weights": (dict(weights=np.ones(3)), "weights: expected 101.*got 3"),
    "weights of steps": (dict(weights=[np.ones(n) for n in LENGTHS]),
                         "weights: targets are one a sequence"),
    "weights of other steps": (dict(targets=STEPS, weights=np.ones((101, 4))),
                               r"weights: expected \[101\], or one for each step"),
    "text weights": (dict(weights=["1"] * 101), "weights: expected numbers, got <U1"),
    "no weight of a class": (dict(weights=dict(ash=1, birch=1)), "no weight of class 'cedar'"),
    "no such class": (dict(weights=dict(ash=1, birch=1, cedar=1, oak=1)), "no class 'oak'"),
    "classes of numbers": (dict(targets=np.zeros(101), weights={0: 1}),
                           "weights: by class, and targets are no labels"),
    "batch": (dict(batch=0), "batch must be a whole number of at least 1, got 0"),
    "a large batch": (dict(batch=92, held_out=0.1), "batch must be at most 9.*got 92"),
    "seed": (dict(seed=-1), "seed: expected a whole number of at least 0, got -1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    options, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message) as error:
        made(**options)
    assert "\n" not in str(error.value)


# beside the rest of the library


def test_a_task_is_pickled_by_its_arrays():
    task = made()
    again = pickle.loads(pickle.dumps(task))
    same(again.train.read(3, 4), task.train.read(3, 4))
    assert (again.encoding, again.record) == (task.encoding, task.record)


def test_a_task_is_shown_without_its_numbers():
    shown = repr(tasks.arrays(signals(), LABELS, batch=8, held_out=[4, 9]))
    assert shown.startswith(f"tasks.arrays((float64[{LENGTHS[0]}, 3], ")
    assert shown.endswith("… 101 in all), <U5[101], batch=8, held_out=(4, 9))")


def test_strict_promotion():
    """Of dtypes and of ranks."""
    flat = [RNG.normal(size=n) for n in LENGTHS]
    many = dict(
        labels=made(), steps=made(targets=flat, weights=np.ones(101)), next=made(targets=None),
        weighted=made(weights=RNG.random(101)),
    )  # fmt: skip
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for task in many.values():
            batch = batch_of(task.train, 0)
            assert batch.inputs.dtype == jnp.float32


def sums_up(n=160, seed=3):
    """Whether the first feature of 4 to 20 steps sums up to more than 0."""
    rng = np.random.default_rng(seed)
    xs = [rng.normal(size=(m, 2)) for m in rng.integers(4, 21, n)]
    return xs, np.where([x[:, 0].sum() > 0 for x in xs], "up", "down")


def right(logits, labels):
    return (logits.argmax(-1) == labels).astype(jnp.float32)


@pytest.mark.slow
def test_from_arrays_to_accuracy_and_on(tmp_path):
    task = tasks.arrays(*sums_up(400), batch=20, held_out=0.25)
    model = models.features((cells.gru(2, 16),), 2, 16)
    estimator = estimators.exact(model, task.objective)

    def run(out, updates):
        options = train.RunOptions(
            updates=updates, evaluate_every=50, checkpoint_every=20
        )
        return train.run(task, model, estimator, optax.adam(1e-2), options, out)

    whole = run(tmp_path / "whole", 200)
    run(tmp_path / "parts", 120)
    same(whole.state.params, run(tmp_path / "parts", 200).state.params)
    assert whole.best.held_out < 0.5 * task.baselines["class frequencies"]
    held_out = task.held_out
    score = train.evaluator(model, right, held_out.batch, False, held_out.buckets)
    sums = score(whole.best.params, None, held_out.read(0, held_out.length))
    assert sums.steps == 100
    assert sums.losses / sums.steps >= 0.9


def test_buckets_change_nothing_but_rounding(tmp_path):
    task = tasks.arrays(*sums_up(), batch=20, held_out=0.25)
    assert 1 < len(task.train.buckets) <= 4
    plain = task._replace(
        train=task.train._replace(buckets=()),
        held_out=task.held_out._replace(buckets=()),
    )
    model = models.features((cells.elman(2, 4),), 2, 4)
    estimator = estimators.exact(model, task.objective)
    found = [
        train.run(each, model, estimator, optax.sgd(1e-1), train.RunOptions(updates=10),
                  tmp_path / name)
        for name, each in dict(cut=task, whole=plain).items()
    ]  # fmt: skip
    for a, b in zip(*(jax.tree.leaves(f.state.params) for f in found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert found[0].held_out == pytest.approx(found[1].held_out, rel=1e-5)


@pytest.mark.slow
def test_a_sweep_reads_it_in_one_order(tmp_path):
    task = tasks.arrays(*sums_up(), batch=20, held_out=0.25)
    model = models.features((cells.elman(2, 4),), 2, 4)
    estimator = estimators.exact(model, task.objective)
    one = sweep.training(task, model, estimator, lambda lr: optax.sgd(lr))
    space = sweep.grid(lr=[1e-1, 1e-2], seed=range(2))
    result = sweep.run(one, space, steps=10, out=tmp_path / "sweep")
    options = train.RunOptions(updates=10, final_batches=4)
    alone = train.run(
        task, model, estimator, optax.sgd(1e-1), options, tmp_path / "one"
    )
    best = next(r for r in result.best if r.values == dict(lr=1e-1, seed=0))
    assert best.score == pytest.approx(alone.held_out, rel=1e-4)
