"""Which cell parameters are of: what the cell says, else their shapes, where these say it."""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_jax import cells, layers
from bptt_jax.interop import cudnn, equinox, flax, haiku, keras, torch, weights
from bptt_jax.interop.weights import Network
from support.interop import H, I, random_like, same_bits

ELMAN, CTRNN = cells.elman(I, H), cells.ctrnn(I, H)
RELU = cells.elman(I, H, activation=jax.nn.relu)
OPTIONS = {
    "elman": [{}, dict(activation=jax.nn.relu)],
    "ctrnn": [
        dict(learn_tau=learn, rate_state=rate)
        for learn, rate in itertools.product((False, True), repeat=2)
    ],
    "indrnn": [{}],
    "lstm": [
        {},
        dict(chrono=20),
        dict(gate_axis=True),
        dict(peepholes=True),
        dict(projection=2),
        dict(projection=H),
        dict(layer_norm=True),
        dict(peepholes=True, projection=2, layer_norm=True),
    ],
    "gru": [
        dict(reset_after=after, gate_axis=axis)
        for after, axis in itertools.product((False, True), repeat=2)
    ],
    "mgu": [{}, dict(as_published=True)],
}
"""All cells of their own, with the options that make other parameters or another step."""


def params_of(cell):
    return random_like(jax.eval_shape(cell.init, jax.random.key(0)))


def test_all_cells_are_here():
    """Each is made of its sizes; wrappers and other functions are not."""
    made = {
        name
        for name in cells.__all__
        if inspect.isfunction(f := getattr(cells, name))
        and "n_in" in inspect.signature(f).parameters
    }
    assert made == set(OPTIONS)


def test_every_tie_of_shapes_is_known():
    """No two cells have parameters of one kind, but for those that it says."""
    having: dict[weights.Kind, set] = {}
    for name, each in OPTIONS.items():
        for options in each:
            params = params_of(getattr(cells, name)(I, H, **options))
            try:
                kind, sizes = weights.kind_of(params, loaded=True)
            except ValueError:
                continue
            having.setdefault(kind, set()).add(name)
            assert (sizes.n_in, sizes.n_hidden) == (I, H)
    assert having == {kind: {kind.cell, *kind.alike} for kind in weights.KINDS}


DOORS = {
    "torch": torch.to_state_dict,
    "keras": keras.to_weights,
    "flax": flax.to_params,
    "haiku": haiku.to_params,
    "equinox": equinox.to_arrays,
    "equinox, cells": equinox.to_cells,
    "network": weights.network,
    "kind": lambda p, cells=None: weights.kind_of(p, cells),
    "parts": weights.parts,
}
HAVE_IT = ("torch", "keras", "flax", "haiku")
TIE = r"params: elman and ctrnn have .* cells=.*cells\.elman\(3, 4\)"


@pytest.mark.parametrize("door", DOORS)
def test_a_tie_of_shapes_asks_for_the_cells(door):
    for cell in (ELMAN, RELU, CTRNN):
        with pytest.raises(ValueError, match=TIE):
            DOORS[door](params_of(cell))


@pytest.mark.parametrize("door", HAVE_IT)
def test_cells_say_it(door):
    """By themselves or in a network, with whatever dtype and activation."""
    to, params = DOORS[door], params_of(RELU)
    written = to(params, cells=RELU)
    low = cells.elman(I, H, activation=jax.nn.relu, dtype=jnp.bfloat16)
    some = [low, cells.in_dtype(RELU, jnp.bfloat16), [RELU], [[RELU]]]
    for cell in some if door == "haiku" else [ELMAN, *some]:
        assert same_bits(to(params, cells=cell), written)
    assert same_bits(to(Network(((RELU,),), ((params,),))), written)


def test_an_activation_that_haiku_does_not_have():
    """Whatever made the cell; of one that is not known nothing can be said."""
    params = params_of(ELMAN)
    refused = "cells: expected the activation relu, .* got "
    for phi in (jnp.tanh, jax.nn.leaky_relu, jax.nn.relu6, jax.nn.softplus):
        cell = cells.elman(I, H, activation=phi)
        for low in (cell, cells.in_dtype(cell, jnp.bfloat16)):
            with pytest.raises(ValueError, match=refused):
                haiku.to_params(params, cells=low)
        with pytest.raises(ValueError, match=refused + r".*cells\.elman\(3, 4"):
            haiku.to_params(Network(((cell,),), ((params,),)))
    written = haiku.to_params(params, cells=RELU)
    same = cells.elman(I, H, activation=lambda z: jnp.maximum(z, 0))
    assert same_bits(haiku.to_params(params, cells=same), written)
    assert same_bits(haiku.to_params(params, like=written), written)
    in_jit = jax.jit(lambda p: haiku.to_params(p, cells=RELU))(params)
    assert same_bits(in_jit, written)
    with pytest.raises(ValueError, match=refused):
        jax.jit(lambda p: haiku.to_params(p, cells=ELMAN))(params)


@pytest.mark.parametrize("door", DOORS)
def test_a_cell_that_others_do_not_have(door):
    params = params_of(CTRNN)
    of_cell = "cells: expected one of lstm, gru, elman, mgu, .* got "
    with pytest.raises(ValueError, match=of_cell + "ctrnn"):
        DOORS[door](params, cells=CTRNN)
    if door != "kind":
        with pytest.raises(ValueError, match=of_cell + "ctrnn"):
            DOORS[door](Network(((CTRNN,),), ((params,),)))
    noisy = cells.zoneout(cells.lstm(I, H), 0.1)
    with pytest.raises(ValueError, match=of_cell + "zoneout"):
        DOORS[door](params_of(noisy), cells=noisy)


def test_the_flat_vector_is_of_lstms():
    lstm = cells.lstm(I, H)
    params = params_of(lstm)
    flat = cudnn.to_flat(params)
    assert same_bits(cudnn.to_flat(params, cells=lstm), flat)
    with pytest.raises(ValueError, match="expected LSTM layers, got simple recurrent"):
        cudnn.to_flat(params_of(ELMAN))
    with pytest.raises(ValueError, match=r"got zoneout"):
        cudnn.to_flat(params, cells=cells.zoneout(lstm, 0.1))


def test_a_cell_without_a_name_says_nothing():
    for cell in (cells.lstm(I, H), ELMAN):
        nameless = cell._replace(name="")
        kind = functools.partial(weights.kind_of, params_of(cell), nameless)
        if cell is ELMAN:
            with pytest.raises(ValueError, match=TIE):
                kind()
        else:
            assert kind()[0] is weights.LSTM


def test_what_was_loaded_is_no_ctrnn():
    """Neither what a library's names say, nor what is written like it."""
    state = torch.to_state_dict(params_of(ELMAN), cells=ELMAN)
    net = torch.load_state_dict(state)
    assert net.cells == ((ELMAN,),)
    changed = jax.tree.map(lambda a: a + np.float32(1), net.params)
    back = torch.load_state_dict(torch.to_state_dict(changed, like=state))
    assert same_bits(back.params, changed)


def test_a_network_of_given_cells():
    params = params_of(ELMAN)
    assert weights.network(params, cells=RELU).cells == ((RELU,),)
    assert weights.network(params, jax.nn.relu).cells == ((RELU,),)
    net = weights.network(weights.network(params, cells=RELU))
    assert net.cells == ((RELU,),)
    assert same_bits(net.params, ((params,),))


def test_cells_that_do_not_fit():
    params = params_of(ELMAN)
    with pytest.raises(ValueError, match=r"cells: expected as many .*\[1\], got \[2\]"):
        torch.to_state_dict(params, cells=[[ELMAN, ELMAN]])
    with pytest.raises(ValueError, match="params: expected those of one of LSTM, LSTM"):
        torch.to_state_dict(params, cells=cells.lstm(I, H))
    for wrong in (layers.recurrent(ELMAN), [layers.recurrent(ELMAN)], "elman"):
        with pytest.raises(TypeError, match="cells: expected a record Cell, got"):
            torch.to_state_dict(params, cells=wrong)
