"""A model in numbers, beside those counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import Side, cells, layers, models, objectives, unrolls, wholes

T, B, I, H, O = 6, 4, 3, 8, 2
XS = jax.ShapeDtypeStruct((T, B, I), jnp.float32)
FLOAT = 4


def single(layer, xs=XS, side=Side()):
    return models.summary(layer, xs, side).rows[0]


def test_a_dense_layer():
    row = single(layers.dense(I, O))
    assert row.parameters == I * O + O
    assert row.bytes == row.parameters * FLOAT
    assert row.operations == 2 * B * I * O + B * O
    assert row.stored == T * B * O * FLOAT
    assert (row.output.shape, row.output.dtype) == ((T, B, O), jnp.float32)


def test_an_elman_cell():
    row = single(cells.elman(I, H))
    assert row.parameters == I * H + H * H + H
    products = 2 * B * I * H + 2 * B * H * H
    assert row.operations == products + 3 * B * H  # bias, sum of the two, tanh
    assert row.stored == T * B * H * FLOAT  # the state is the output


def test_an_lstm():
    row = single(cells.lstm(I, H))
    assert row.parameters == (I + H + 1) * 4 * H
    products = 2 * B * (I + H) * 4 * H
    before = 2 * B * 4 * H  # bias, sum of the two
    gates = 4 * B * 4 * H  # a sigmoid is a tanh between two scales and a shift
    after = 3 * B * H + 2 * B * H  # c' = f c + i g; h = o tanh c'
    assert row.operations == products + before + gates + after
    assert row.stored == 2 * T * B * H * FLOAT  # h and c


@pytest.mark.parametrize(
    ("save", "stored"),
    [
        (layers.STATES, 2 * H),
        (layers.GATES, 2 * H + 4 * H),
        (layers.NOTHING, H),
    ],
)
def test_what_is_kept_is_what_is_stored(save, stored):
    row = single(layers.recurrent(cells.lstm(I, H), save=save))
    assert row.stored == T * B * stored * FLOAT
    assert row.operations == single(cells.lstm(I, H)).operations


def test_a_norm_and_a_residual_block():
    found = models.summary(layers.residual(layers.layer_norm(I)), XS)
    block, norm = found.rows
    # mean, its division, x - mean; squares, their mean, epsilon, root; three scalings
    assert norm.operations == B * I * 7 + B * 4
    assert block.operations == norm.operations + B * I
    assert (block.path, norm.path) == ("", "")
    assert (block.depth, norm.depth) == (0, 1)
    assert block.stored - norm.stored == T * B * I * FLOAT


def model(**options):
    return layers.stack(
        zone=cells.lstm(I, H),
        block=layers.residual(norm=layers.layer_norm(H), inner=cells.gru(H, H)),
        again=layers.remat(cells.elman(H, H)),
        out=layers.dense(H, O, **options),
    )


def test_a_whole_is_the_sum_of_its_parts():
    whole, *rows = models.summary(model(), XS).rows
    outer = [row for row in rows if row.depth == 1]
    assert [row.path for row in outer] == [
        "['zone']",
        "['block']",
        "['again']",
        "['out']",
    ]
    for field in ("parameters", "bytes", "operations", "stored"):
        assert getattr(whole, field) == sum(getattr(row, field) for row in outer), field


def test_paths_lead_to_the_parameters():
    params = model().init(jax.random.key(0))
    for row in models.summary(model(), XS).rows:
        of = eval(f"params{row.path}", dict(params=params))  # noqa: S307
        assert row.parameters == sum(a.size for a in jax.tree.leaves(of))
        assert row.bytes == sum(a.nbytes for a in jax.tree.leaves(of))


def test_what_is_stored_is_what_the_gradient_keeps():
    """The residuals of `jax.vjp`, without the arguments, which are there anyway."""
    layer = layers.stack(cells.lstm(I, H), cells.gru(H, H), layers.dense(H, O))
    params, xs = layer.init(jax.random.key(0)), jnp.ones(XS.shape)
    carry = layer.init_carry(params, (B,))

    def kept(chunk):
        _, back = jax.vjp(
            lambda *at: unrolls.bptt(layer, *at, chunk=chunk), params, carry, xs
        )
        return sum(a.nbytes for a in jax.tree.leaves(back))

    given = sum(a.nbytes for a in jax.tree.leaves((params, carry, xs)))
    one_carry = sum(a.nbytes for a in jax.tree.leaves(carry))
    stored = models.summary(layer, xs).rows[0].stored
    assert kept(T) == stored + given + one_carry
    assert kept(T // 2) == stored + given + 2 * one_carry


def test_dtypes_are_said():
    found = models.summary(model(dtype=jnp.bfloat16), XS)
    assert found.rows[-1].output.dtype == jnp.bfloat16
    block = layers.residual(layers.dense(I, I, dtype=jnp.bfloat16))
    assert single(block).output.dtype == jnp.bfloat16


def test_symbols_and_losses():
    tokens = jax.ShapeDtypeStruct((T, B), jnp.int32)
    net = models.symbols(9, I, (cells.gru(I, H),), 9, H, dropout=0.1)
    rows = models.summary(layers.with_loss(net, objectives.softmax_cross_entropy), tokens,
                          Side(targets=tokens, mask=jnp.ones((T, B), bool))).rows  # fmt: skip
    assert [row.path for row in rows] == ["", "[0]", "[1]", "[2]", "[3]"]
    assert (rows[1].operations, rows[1].parameters) == (0, 9 * I)
    assert rows[3].operations == 0
    assert rows[0].output.shape == (T,)


def test_loops_of_ones_own_count_as_often_as_they_turn():
    def step(params, carry, x):
        after = jax.lax.fori_loop(0, 3, lambda i, c: c * params, carry)
        return after, jax.lax.cond(x.sum() > 0, lambda c: c, jnp.exp, after)

    cell = cells.from_step(step, _one, _zeros)
    assert single(cell).operations == 3 * B * I + B * I + B * I  # and x.sum()


def _one(key):
    del key
    return jnp.ones((), jnp.float32)


def _zeros(params, batch_shape):
    del params
    return jnp.zeros((*batch_shape, I), jnp.float32)


def test_the_text_is_a_table():
    text = str(models.summary(model(), XS))
    lines = text.splitlines()
    assert lines[0] == f"inputs float32[{T}, {B}, {I}]"
    assert lines[1].split() == [
        "path", "part", "output", "parameters", "bytes", "operations", "stored",
    ]  # fmt: skip
    assert len(lines) == 2 + len(models.summary(model(), XS).rows)
    assert lines[6].split()[:2] == ["['block']['norm']", "layers.layer_norm(8)"]


@pytest.mark.parametrize(
    ("xs", "says"),
    [
        (np.zeros((T, B, I + 1)), r"dense: expected inputs \[..., 3\]"),
        (None, r"xs: expected inputs \[T, ..., I\], got none"),
    ],
)
def test_inputs_that_do_not_fit(xs, says):
    with pytest.raises(ValueError, match=says):
        models.summary(layers.dense(I, O), xs)


def test_sections():
    """Each part through all of time; after a pool there is one step."""
    gru, readout = cells.gru(3, 8), layers.dense(16, 2)
    model = models.sections(
        layers.dropout(0.1), wholes.bidirectional(gru), wholes.mean(), readout
    )
    xs, keys = jnp.zeros((20, 4, 3)), jax.random.split(jax.random.key(0), 20)
    found = models.summary(model, xs, Side(keys=keys)).rows
    whole, dropped, both, mean, last = found
    alone = models.summary(gru, xs).rows[0]
    assert [row.output.shape[0] for row in found] == [1, 20, 20, 1, 1]
    assert both.parameters == 2 * alone.parameters
    assert both.operations == 2 * alone.operations
    # the states of each direction and the outputs, the inputs from the end, two carries
    assert both.stored >= 2 * alone.stored + 4 * 20 * 4 * (16 + 3)
    assert both.stored <= 2 * alone.stored + 4 * 20 * 4 * (16 + 3) + 4 * 4 * 8 * 8
    assert (
        last.operations
        == models.summary(readout, jnp.zeros((1, 4, 16))).rows[0].operations
    )
    for name in ("parameters", "bytes", "operations", "stored"):
        parts = (dropped, both, mean, last)
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
    assert [row.path for row in found] == ["", "[0]", "[1]", "[2]", "[3]"]
