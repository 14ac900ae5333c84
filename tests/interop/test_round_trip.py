"""Weights there and back, bit for bit; and what is wrong with names and shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells
from bptt_jax.interop import cudnn, equinox, files, flax, haiku, keras, torch, weights
from support.interop import H, I, normal, random_like, same_bits

LSTM = cells.lstm
PROJECTED = lambda i, h: cells.lstm(i, h, projection=3)
GRU = cells.gru
BEFORE = lambda i, h: cells.gru(i, h, reset_after=False)
ELMAN, MGU = cells.elman, cells.mgu
RELU = lambda i, h: cells.elman(i, h, activation=jax.nn.relu)


def shapes_of(make, n_in: int):
    return jax.eval_shape(make(n_in, H).init, jax.random.key(0))


def params_of(make, layers: int = 1, directions: int = 1):
    """Random ones, with a bias that is -0 and one that is NaN."""
    n_out = shapes_of(make, I)["w_h"].shape[0]
    sizes = [I] + [n_out * directions] * (layers - 1)
    whole = random_like(
        tuple(tuple(shapes_of(make, n) for _ in range(directions)) for n in sizes)
    )
    whole[0][0]["b"][:2] = -0.0, np.nan
    return whole


def given(make, *shape):
    """What `to_…` takes: parameters, with the cells where shapes do not say them."""
    params = params_of(make, *shape)
    if make not in (ELMAN, RELU):
        return params
    each = tuple(tuple(make(len(p["w_x"]), H) for p in layer) for layer in params)
    return weights.Network(each, params)


SHAPES = [(1, 1), (2, 1), (1, 2), (3, 2)]
PAIRS = {
    "torch": (
        torch.load_state_dict,
        torch.to_state_dict,
        [LSTM, PROJECTED, GRU, ELMAN],
    ),
    "keras": (keras.load_weights, keras.to_weights, [LSTM, GRU, BEFORE, ELMAN]),
    "flax": (flax.load_params, flax.to_params, [LSTM, GRU, ELMAN, MGU]),
    "equinox": (equinox.load_cells, equinox.to_arrays, [LSTM, GRU]),
    "haiku": (haiku.load_params, haiku.to_params, [BEFORE, RELU]),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ours_come_back(name, shape):
    load, to, makes = PAIRS[name]
    if name == "haiku" and shape[1] == 2:
        with pytest.raises(ValueError, match="one direction"):
            to(params_of(BEFORE, *shape))
        return
    for make in makes:
        params = params_of(make, *shape)
        net = load(to(given(make, *shape)))
        assert same_bits(net.params, params)
        n_in = params[-1][-1]["w_x"].shape[0]
        assert net.cells[-1][-1] == make(n_in, H)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_flat_vector_comes_back(shape):
    params = params_of(LSTM, *shape)
    flat = cudnn.to_flat(params)
    net = cudnn.load_flat(flat, **cudnn.sizes_of(params))
    assert same_bits(net.params, params)
    again = random_like(flat)
    net = cudnn.load_flat(again, **cudnn.sizes_of(params))
    assert same_bits(cudnn.to_flat(net, like=again), again)


def test_haiku_s_forget_bias_comes_back_as_near_as_can_be():
    params = params_of(LSTM, 2)
    back = haiku.load_params(haiku.to_params(params)).params
    for (a,), (b,) in zip(back, params, strict=True):
        f = slice(H, 2 * H)
        assert np.nanmax(np.abs(a["b"][f] - b["b"][f])) <= 2.0**-24 * 2
        np.testing.assert_array_equal(np.delete(a["b"], f), np.delete(b["b"], f))
        assert same_bits((a["w_x"], a["w_h"]), (b["w_x"], b["w_h"]))
    initial = LSTM(I, H).init(jax.random.key(0))  # f's bias is 1
    back = haiku.load_params(haiku.to_params(initial)).params[0][0]
    assert same_bits(back, jax.tree.map(np.asarray, initial))


def torch_state(make, layers=2, directions=2):
    return random_like(torch.to_state_dict(given(make, layers, directions)))


FROM_THERE = {
    "torch lstm": (torch, torch_state(LSTM)),
    "torch projected": (torch, torch_state(PROJECTED)),
    "torch gru": (torch, torch_state(GRU)),
    "torch rnn": (torch, torch_state(ELMAN)),
    "keras gru": (keras, random_like(keras.to_weights(params_of(GRU, 2, 2)))),
    "keras lstm": (
        keras,
        {
            "net/lstm_7/lstm_cell/kernel": normal((I, 4 * H), 1),
            "net/lstm_7/lstm_cell/recurrent_kernel": normal((H, 4 * H), 2),
            "net/lstm_7/lstm_cell/bias": normal((4 * H,), 3),
        },
    ),
    "haiku lstm": (haiku, random_like(haiku.to_params(params_of(LSTM, 2)))),
    "haiku vanilla": (haiku, random_like(haiku.to_params(given(RELU, 2)))),
}
LOADS = {torch: "load_state_dict", keras: "load_weights", haiku: "load_params"}
TOS = {torch: "to_state_dict", keras: "to_weights", haiku: "to_params"}


@pytest.mark.parametrize("name", FROM_THERE)
def test_theirs_come_back_like_they_were(name):
    module, theirs = FROM_THERE[name]
    load, to = getattr(module, LOADS[module]), getattr(module, TOS[module])
    net = load(theirs)
    assert same_bits(to(net, like=theirs), theirs)
    changed = jax.tree.map(lambda a: a + np.float32(0.25), net.params)
    back = load(to(changed, like=theirs)).params
    if name != "haiku lstm":  # which adds 1
        assert same_bits(back, changed)
    assert not same_bits(back, net.params)


def test_without_biases():
    state = torch_state(GRU)
    state = {k: a for k, a in state.items() if not k.startswith("bias")}
    net = torch.load_state_dict(state)
    assert not net.params[1][1]["b"].any()
    assert same_bits(torch.to_state_dict(net, like=state), state)
    net.params[1][1]["b_n"][0] = 1
    with pytest.raises(ValueError, match="like: bias_ih_l1_reverse is not there, but"):
        torch.to_state_dict(net, like=state)
    named = keras.to_weights(params_of(GRU))
    named = {k: a for k, a in named.items() if not k.endswith("bias")}
    assert keras.load_weights(named).cells == ((GRU(I, H),),)
    assert keras.load_weights(named, reset_after=False).cells == ((BEFORE(I, H),),)
    assert same_bits(keras.to_weights(keras.load_weights(named), like=named), named)


def test_like_is_of_the_same_network():
    state = torch_state(LSTM)
    params = torch.load_state_dict(state).params
    with pytest.raises(
        ValueError, match="like: expected bias_hh, bias_ih, weight_hh, w"
    ):
        torch.to_state_dict(params, like=without(state, "bias_hh_l1"))
    with pytest.raises(
        ValueError, match=r"like: .* layers and directions .* got \[2\]"
    ):
        torch.to_state_dict(params, like=torch_state(LSTM, 1))
    with pytest.raises(
        ValueError, match=r"like: expected biases \[\[16\], .* got \[\[20\]"
    ):
        wide = torch.to_state_dict(random_like(shapes_of(lambda i, h: LSTM(i, 5), I)))
        torch.to_state_dict(params[0][0], like=wide)
    with pytest.raises(
        ValueError, match="like: expected b, w_h, w_i of a cell, got lin"
    ):
        haiku.to_params(params_of(BEFORE), like=haiku.to_params(given(RELU)))
    with pytest.raises(ValueError, match=r"expected \[736\] for 3 inputs"):
        cudnn.to_flat(params, like=np.zeros(3, np.float32))


def without(named, name):
    return {k: a for k, a in named.items() if k != name}


def test_arrays_are_copies():
    state = torch_state(LSTM)
    net = torch.load_state_dict(state)
    before = net.params[0][0]["w_x"].copy()
    state["weight_ih_l0"][:] = 0
    np.testing.assert_array_equal(net.params[0][0]["w_x"], before)
    back = torch.to_state_dict(net)
    net.params[0][0]["w_x"][:] = 0
    np.testing.assert_array_equal(back["weight_ih_l0"], before.T)
    assert all(a.flags.writeable and a.flags.c_contiguous for a in back.values())


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64], ids=str)
def test_other_dtypes(dtype):
    params = jax.tree.map(lambda a: a.astype(dtype), params_of(GRU, 2, 2))
    for name in ("torch", "keras", "flax", "equinox"):
        load, to, _ = PAIRS[name]
        assert same_bits(load(to(params)).params, params)


def test_of_a_larger_model_and_through_a_file(tmp_path):
    params = params_of(GRU, 2, 2)
    state = {f"encoder.rnn.{k}": a for k, a in torch.to_state_dict(params).items()}
    state |= {"embedding.weight": np.ones((2, 2)), "steps": np.array(3)}
    path = tmp_path / "model.safetensors"
    files.write(path, state)
    for source in (state, path):
        net = torch.load_state_dict(source, prefix="encoder.rnn.")
        assert same_bits(net.params, params)
        with pytest.raises(ValueError, match="no key begins with 'decoder.'"):
            torch.load_state_dict(source, prefix="decoder.")
        with pytest.raises(ValueError, match=r": unknown key; of a larger model"):
            torch.load_state_dict(source)
    assert torch.to_state_dict(params, prefix="encoder.rnn.").keys() < state.keys()
    tree = {"params": {"decoder": flax.to_params(params)}}
    net = flax.load_params(tree, prefix="params/decoder/")
    assert same_bits(net.params, params)
    cell = flax.to_params(params[0][0])["cell"]
    assert same_bits(flax.load_params({"params": cell}).params, (params[0][:1],))


def test_layers_come_in_the_order_of_their_numbers():
    params = params_of(ELMAN, 11)
    for module, to, load, make in (
        (haiku, haiku.to_params, haiku.load_params, RELU),
        (keras, keras.to_weights, keras.load_weights, ELMAN),
    ):
        tree = to(given(make, 11))
        assert same_bits(load(dict(sorted(tree.items()))).params, params), module
    named = keras.to_weights(given(ELMAN, 2))
    named = {k.replace("simple_rnn_1/", "top/"): a for k, a in named.items()}
    with pytest.raises(ValueError, match=r"layers simple_rnn, top: expected numbered"):
        keras.load_weights(named)


STATE = torch.to_state_dict(params_of(LSTM, 2, 2))
LAYER = keras.to_weights(params_of(GRU))
TREE = flax.to_params(params_of(LSTM))
CELL = equinox.to_arrays(params_of(GRU))
LINEAR = haiku.to_params(params_of(LSTM))


WRONG = {
    "torch, missing weight": (
        torch.load_state_dict, without(STATE, "weight_hh_l1"), "weight_hh_l1 is missing",
    ),
    "torch, missing bias": (
        torch.load_state_dict, without(STATE, "bias_hh_l0_reverse"),
        "bias_hh_l0_reverse is missing",
    ),
    "torch, missing layer": (
        torch.load_state_dict, {k.replace("l1", "l2"): a for k, a in STATE.items()},
        "weight_ih_l1 is missing",
    ),
    "torch, missing direction": (
        torch.load_state_dict,
        {k: a for k, a in STATE.items() if not k.endswith("l1_reverse")},
        "weight_ih_l1_reverse is missing",
    ),
    "torch, layer far away": (
        torch.load_state_dict, {**STATE, "weight_ih_l99999": np.ones((16, 8))},
        "weight_ih_l2 is missing",
    ),
    "torch, unknown": (
        torch.load_state_dict, {**STATE, "weight_hi_l0": np.ones(3)},
        "weight_hi_l0: unknown key",
    ),
    "torch, projection of an LSTM alone": (
        torch.load_state_dict,
        {**torch.to_state_dict(params_of(GRU)), "weight_hr_l0": np.ones((H, H), "f")},
        "weight_hh_l0: expected 4·4 (nn.LSTM), got 12",
    ),
    "torch, spelt twice": (
        torch.load_state_dict, {**STATE, "bias_ih_l00": STATE["bias_ih_l0"]},
        "bias_ih_l00: the same as bias_ih_l0",
    ),
    "torch, rank": (
        torch.load_state_dict, {**STATE, "weight_hh_l0": np.ones(16)},
        "weight_hh_l0: expected a matrix, got [16]",
    ),
    "torch, empty": (
        torch.load_state_dict, {**STATE, "weight_hh_l0": np.ones((0, 0))},
        "weight_hh_l0: expected a matrix, got [0, 0]",
    ),
    "torch, gates": (
        torch.load_state_dict, {**STATE, "weight_hh_l0": np.ones((8, 4))},
        "weight_hh_l0: expected 4·4 (nn.LSTM), 3·4 (nn.GRU), 1·4 (nn.RNN), got 8",
    ),
    "torch, shape": (
        torch.load_state_dict, {**STATE, "bias_ih_l1": np.ones(12, "f")},
        "bias_ih_l1: expected [16], got [12]",
    ),
    "torch, sizes of layers": (
        torch.load_state_dict,
        {**STATE, **{f"weight_ih_l1{e}": np.ones((16, 7), "f") for e in ("", "_reverse")}},
        "layer 1: expected 8 inputs, got 7",
    ),
    "torch, integers": (
        torch.load_state_dict, {**STATE, "bias_ih_l1": np.ones(16, int)},
        "bias_ih_l1: expected floating numbers, got int64",
    ),
    "torch, dtypes": (
        torch.load_state_dict, {**STATE, "bias_ih_l1": np.ones(16)},
        "bias_ih_l1: expected float32 like the others, got float64",
    ),
    "torch, nothing": (torch.load_state_dict, {}, "no arrays at all"),
    "keras, missing": (
        keras.load_weights, without(LAYER, "gru/gru_cell/recurrent_kernel"),
        "gru/gru_cell/recurrent_kernel is missing",
    ),
    "keras, unknown": (
        keras.load_weights, {**LAYER, "dense/kernel": np.ones((2, 2))},
        "dense/kernel: unknown key",
    ),
    "keras, shape": (
        keras.load_weights, {**LAYER, "gru/gru_cell/bias": np.ones((3, 12), "f")},
        "gru/gru_cell/bias: expected [2, 12], got [3, 12]",
    ),
    "flax, missing": (
        flax.load_params, {"cell": without(TREE["cell"], "hf")},
        "cell/hf/kernel is missing",
    ),
    "flax, unknown": (
        flax.load_params, {"cell": {**TREE["cell"], "hz": {"kernel": np.ones((4, 4))}}},
        "cell/hz/kernel: unknown key",
    ),
    "flax, other tree": (
        flax.load_params, {"Dense_0": {"kernel": np.ones((4, 4))}},
        "Dense_0/kernel: unknown key",
    ),
    "flax, shape": (
        flax.load_params, {"cell": {**TREE["cell"], "ig": {"kernel": np.ones((4, 4))}}},
        "cell/ig/kernel: expected [3, 4], got [4, 4]",
    ),
    "equinox, missing": (
        equinox.load_cells, without(CELL, "bias_n"), "bias_n is missing",
    ),
    "equinox, unknown": (
        equinox.load_cells, {**CELL, "bias_m": np.ones(4)}, "bias_m: unknown key",
    ),
    "equinox, bias of an LSTM": (
        equinox.load_cells, {**equinox.to_arrays(params_of(LSTM)), "bias_n": np.ones(4)},
        "bias_n: unknown key",
    ),
    "haiku, missing": (
        haiku.load_params, {"lstm/linear": without(LINEAR["lstm/linear"], "b")},
        "lstm/linear/b is missing",
    ),
    "haiku, unknown": (
        haiku.load_params, {**LINEAR, "head": {"weight": np.ones(4)}},
        "head/weight: unknown key",
    ),
    "haiku, another linear layer": (
        haiku.load_params, {**LINEAR, "head/linear": LINEAR["lstm/linear"]},
        "layers lstm, head: expected numbered names",
    ),
    "haiku, shape": (
        haiku.load_params, {"lstm/linear": {"w": np.ones((4, 16)), "b": np.ones(16)}},
        "lstm/linear/w: expected [I + H, 4H], got [4, 16]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_names_and_shapes(name):
    load, source, expected = WRONG[name]
    with pytest.raises(ValueError) as caught:
        load(source)
    assert str(caught.value).startswith(("weights: ", "layer "))
    assert expected in str(caught.value)


def test_the_file_is_named(tmp_path):
    path = tmp_path / "file.safetensors"
    files.write(path, without(STATE, "weight_hh_l1"))
    with pytest.raises(ValueError) as caught:
        torch.load_state_dict(path)
    assert str(caught.value) == f"{path}: weight_hh_l1 is missing"


def test_the_flat_vector_must_have_the_length_of_its_sizes(tmp_path):
    flat = cudnn.to_flat(params_of(LSTM, 2))
    with pytest.raises(ValueError, match="input_size is not known"):
        cudnn.load_flat(flat)
    with pytest.raises(
        ValueError, match=r"expected \[144\] for 3 inputs, .* got \[304\]"
    ):
        cudnn.load_flat(flat, input_size=I, hidden_size=H)
    path = tmp_path / "file.safetensors"
    files.write(path, dict(weights=flat), dict(input_size="3", hidden_size="x"))
    with pytest.raises(
        ValueError, match=r"file.safetensors: weights: hidden_size: exp"
    ):
        cudnn.load_flat(path)
    net = cudnn.load_flat(path, hidden_size=H, num_layers=2)
    assert same_bits(cudnn.to_flat(net), flat)


def test_what_others_do_not_have():
    peephole = shapes_of(lambda i, h: LSTM(i, h, peepholes=True), I)
    with pytest.raises(ValueError, match="params: expected those of one of LSTM"):
        torch.to_state_dict(peephole)
    with pytest.raises(ValueError, match="with all layers alike, got MGU of 4"):
        torch.to_state_dict(params_of(MGU))
    mixed = (*params_of(LSTM), *params_of(lambda i, h: LSTM(H, 5)))
    with pytest.raises(ValueError, match="with all layers alike, got LSTM of 4, LSTM"):
        torch.to_state_dict(mixed)
    assert same_bits(keras.load_weights(keras.to_weights(mixed)).params, mixed)
    for to, name in ((keras.to_weights, "Keras"), (equinox.to_arrays, "Equinox")):
        with pytest.raises(ValueError, match=f"{name} has no MGU"):
            to(params_of(MGU))
    with pytest.raises(ValueError, match=r"flax\.linen has no LSTM \(projected"):
        flax.to_params(params_of(PROJECTED))
    with pytest.raises(ValueError, match="Haiku has no GRU"):
        haiku.to_params(params_of(GRU))
    with pytest.raises(ValueError, match="expected LSTM layers, got GRU"):
        cudnn.to_flat(params_of(GRU))
    with pytest.raises(ValueError, match=r"layer 1: expected 8 inputs, got 3"):
        weights.network([*params_of(LSTM, 1, 2), *params_of(LSTM)])
    with pytest.raises(ValueError, match=r"of one direction or of two, got \[4\]"):
        weights.network([params_of(LSTM, 1, 2)[0] * 2])
    with pytest.raises(TypeError, match="source: expected a path"):
        torch.load_state_dict(3)


def test_layers_of_one_direction_between_those_of_two():
    (first,) = params_of(LSTM, 1, 2)
    second, third = random_like((shapes_of(LSTM, 2 * H), shapes_of(GRU, H)))
    whole = (first, (second,), (third, jax.tree.map(np.negative, third)))
    assert same_bits(flax.load_params(flax.to_params(whole)).params, whole)
    with pytest.raises(ValueError, match="layers bidirectional, lstm, bidirectional_1"):
        keras.load_weights(keras.to_weights(whole))  # the names say no order
    for to in (torch.to_state_dict, equinox.to_arrays, cudnn.to_flat):
        with pytest.raises(ValueError, match=r"one direction each.* got \[2, 1"):
            to(whole if to is not cudnn.to_flat else whole[:2])
    with pytest.raises(ValueError, match="one direction, got two"):
        haiku.to_params(whole)
    lost = keras.to_weights(params_of(LSTM, 2, 2))
    lost = {n: a for n, a in lost.items() if not n.startswith("bidirectional_1/backw")}
    with pytest.raises(ValueError, match="backward/kernel is missing"):
        keras.load_weights(lost)
    tree = flax.to_params(whole)
    del tree["layers_0"]["backward_rnn"]
    with pytest.raises(ValueError, match="layers_0/backward_rnn/cell/.* is missing"):
        flax.load_params(tree)


def test_params_of_a_stack_and_of_one_cell():
    (one,), (two,) = params_of(GRU, 2)
    assert same_bits(torch.load_state_dict(torch.to_state_dict((one, two))).params,
                     ((one,), (two,)))  # fmt: skip
    assert same_bits(torch.load_state_dict(torch.to_state_dict(one)).params, ((one,),))
