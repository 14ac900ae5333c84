"""`bptt-jax convert`: file to file, and its refusals in one line."""

import pickle

import jax
import numpy as np
import pytest

from bptt_jax import cells, cli
from bptt_jax.interop import cudnn, equinox, files, flax, haiku, keras, torch, weights
from support.interop import random_like, same_bits
from support.training import listing


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def params_of(*each):
    """A layer for each tuple of cells."""
    shapes = tuple(
        tuple(jax.eval_shape(cell.init, jax.random.key(0)) for cell in layer)
        for layer in each
    )
    return random_like(shapes)


LSTM = params_of((cells.lstm(3, 4),), (cells.lstm(4, 4),))
BOTH = params_of((cells.lstm(3, 4),) * 2, (cells.lstm(8, 4),) * 2)
GRU = params_of((cells.gru(3, 4),))
BEFORE = params_of((cells.gru(3, 4, reset_after=False),))
ELMAN = weights.Network(((cells.elman(3, 4),),), params_of((cells.elman(3, 4),)))
RELU = weights.network(ELMAN.params, jax.nn.relu)

LOADS = dict(
    torch=torch.load_state_dict,
    keras=keras.load_weights,
    flax=flax.load_params,
    haiku=haiku.load_params,
    equinox=equinox.load_cells,
    cudnn=cudnn.load_flat,
)


def convert(*arguments) -> int:
    return cli.main(["convert", *map(str, arguments)])


WAYS = {
    "torch flax": (BOTH, "2 layers of LSTM, 3 inputs, 4 hidden units, both direction"),
    "flax keras": (BOTH, "both directions, float32, as keras has it"),
    "keras equinox": (GRU, "1 layer of GRU (reset after the product), 3 inputs"),
    "equinox cudnn": (LSTM, "2 layers of LSTM"),
    "cudnn torch": (BOTH, "both directions"),
    "keras haiku": (BEFORE, "GRU (reset before"),
    "haiku keras": (BEFORE, "GRU (reset before"),
    "haiku torch": (RELU, "simple recurrent network, 3 inputs, 4 hidden units, relu"),
    "torch flax, elman": (ELMAN, "hidden units, tanh"),
}


@pytest.mark.parametrize("way", WAYS)
def test_there_and_back(way, folder, capsys):
    net, said = WAYS[way]
    params = net.params if isinstance(net, weights.Network) else net
    there, here = way.split(",")[0].split()
    first = {
        "torch": torch.to_state_dict,
        "keras": keras.to_weights,
        "flax": lambda p: files.flat(flax.to_params(p), "/"),
        "haiku": lambda p: files.flat(haiku.to_params(p), "/"),
        "equinox": equinox.to_arrays,
        "cudnn": lambda p: dict(weights=cudnn.to_flat(p)),
    }[there]
    sizes = cudnn.sizes_of(params) if there == "cudnn" else {}
    files.write("a.safetensors", first(net), {k: str(n) for k, n in sizes.items()})
    assert convert("a.safetensors", "b.safetensors", "--from", there, "--to", here) == 0
    assert said in capsys.readouterr().out
    assert same_bits(LOADS[here]("b.safetensors").params, params)
    assert convert("b.safetensors", "c.safetensors", "--from", here, "--to", there,
                   *(["--nonlinearity", "relu"] if there == "haiku" else [])) == 0  # fmt: skip
    assert same_bits(files.read("c.safetensors"), files.read("a.safetensors"))
    assert sorted(p.name[0] for p in folder.iterdir()) == ["a", "b", "c"]


def test_of_a_larger_model(folder):
    state = {f"net.{k}": a for k, a in torch.to_state_dict(GRU).items()}
    files.write("a.safetensors", state | {"head.weight": np.ones(3)})
    options = ("--from", "torch", "--to", "flax", "--prefix", "net.")
    assert convert("a.safetensors", "b.safetensors", *options) == 0
    assert same_bits(flax.load_params("b.safetensors").params, GRU)


def test_a_vector_without_sizes(folder):
    files.write("a.safetensors", dict(weights=cudnn.to_flat(BOTH)))
    options = "--from cudnn --to torch --input-size 3 --hidden-size 4 --num-layers 2"
    options = [*options.split(), "--bidirectional", "True"]
    assert convert("a.safetensors", "b.safetensors", *options) == 0
    assert same_bits(torch.load_state_dict("b.safetensors").params, BOTH)


def test_a_keras_gru_without_biases(folder):
    named = {n: a for n, a in keras.to_weights(GRU).items() if not n.endswith("bias")}
    files.write("a.safetensors", named)
    options = ("--from", "keras", "--to", "haiku", "--reset-before")
    assert convert("a.safetensors", "b.safetensors", *options) == 0
    assert not haiku.load_params("b.safetensors").params[0][0]["b"].any()


TORCH = "lstm.safetensors out --from torch"
BAD = {
    f"{TORCH} --to nope": "--to nope: expected one of torch, keras, flax, haiku, equinox",
    "lstm.safetensors out --from nope --to flax": "--from nope: expected one of torch,",
    f"{TORCH}": "--to",
    "lstm.safetensors": "OUT",
    f"{TORCH} --to flax --nonlinearity sin": "--nonlinearity sin: expected tanh or relu",
    f"{TORCH} --to flax --input-size 3": "--input-size goes with --from cudnn",
    f"{TORCH} --to flax --reset-before": "--reset-before goes with --from keras",
    f"{TORCH} --to flax --prefix x.": "no key begins with 'x.'; it has ",
    f"{TORCH} --to haiku": "Haiku's cells have one direction, got two",
    "gru.safetensors out --from torch --to haiku": "Haiku has no GRU (reset after",
    "gru.safetensors out --from torch --to cudnn": "expected LSTM layers, got GRU",
    "elman.safetensors out --from torch --to haiku": "has relu, this one tanh; see --non",
    "elman.safetensors out --from torch --to equinox": "Equinox has no simple recurr",
    "nowhere.safetensors out --from torch --to flax": "nowhere.safetensors: No such file",
    ". out --from torch --to flax": ".: Is a directory",
    "model.pt out --from torch --to flax": "model.pt: a pickle; expected safetensors: ",
    "text out --from torch --to flax": "text: no safetensors file, or a truncated one",
    "cut.safetensors out --from torch --to flax": "cut.safetensors: ",
    "lstm.safetensors gru.safetensors --from torch --to flax": "gru.safetensors is there",
    "lstm.safetensors lstm.safetensors --from torch --to flax": "is there already",
    "lstm.safetensors no/where --from torch --to flax": "no: no such folder",
    f"{TORCH} --to flax --prefix w --from cudnn": "--prefix: the vector of cudnn",
    "lstm.safetensors out --from flax --to torch": "unknown key",
    "lstm.safetensors out --from cudnn --to torch": "expected the key 'weights' alone",
}


@pytest.mark.parametrize("line", BAD)
def test_refusals(line, folder, capsys):
    files.write("lstm.safetensors", torch.to_state_dict(BOTH))
    files.write("gru.safetensors", torch.to_state_dict(GRU))
    files.write("elman.safetensors", torch.to_state_dict(ELMAN))
    whole = (folder / "lstm.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-5])
    (folder / "model.pt").write_bytes(pickle.dumps({}))
    (folder / "text").write_text("These are no weights.")
    before = listing(folder)
    assert convert(*line.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("bptt-jax: ")
    assert said.count("\n") == 1
    assert BAD[line].lower() in said.lower()
    assert listing(folder) == before
