"""Wrong backwards of layers."""

import jax
import jax.numpy as jnp

from bptt_jax import layers
from bptt_jax.types import Weighted
from verify.mutants._originals import WITHOUT_KEYS, noisy, square_elman
from verify.mutants._table import in_bwd, in_layer


@in_bwd("stack")
def carries_of_layers_swapped(right, params, carry, xs, side, ys, kept, d_carry, d_ys):
    return right(params, carry, xs, side, ys, kept, d_carry[::-1], d_ys)


@in_bwd("stack", "params[0]['w_x'] params[0]['w_h'] params[0]['b'] carry[0] xs")
def output_cotangent_given_to_every_layer(
    right, params, carry, xs, side, ys, kept, d_carry, d_ys
):
    (_, d_last), (_, d_last_carry), *_ = right(
        params, carry, xs, side, ys, kept, d_carry, d_ys
    )
    first = layers.recurrent(square_elman())
    d_first, d_first_carry, *others = first.bwd(
        params[0], carry[0], xs, side, kept[1][0], kept[0][0], d_carry[0], d_ys
    )
    return (d_first, d_last), (d_first_carry, d_last_carry), *others


@in_bwd("stack", "params[1]['w_x']")
def second_layer_multiplied_with_the_first_inputs(
    right, params, carry, xs, side, ys, kept, d_carry, d_ys
):
    d_params, *others = right(params, carry, xs, side, ys, kept, d_carry, d_ys)
    second = layers.recurrent(square_elman())
    wrong, *_ = second.bwd(
        params[1], carry[1], xs, side, ys, kept[0][1], d_carry[1], d_ys
    )
    return (d_params[0], d_params[1] | dict(w_x=wrong["w_x"])), *others


@in_bwd("residual", "xs")
def skip_path_missing(right, params, carry, xs, side, ys, kept, d_carry, d_ys):
    d_params, d_before, d_xs, d_targets = right(
        params, carry, xs, side, ys, kept, d_carry, d_ys
    )
    return d_params, d_before, d_xs - d_ys, d_targets


@in_bwd("dense", "bias")
def bias_of_a_readout_averaged(right, params, carry, xs, side, ys, kept, d_carry, d_ys):
    d_params, *others = right(params, carry, xs, side, ys, kept, d_carry, d_ys)
    return d_params | dict(bias=d_ys.mean((0, 1))), *others


@in_bwd("embedding", "embedding")
def row_of_a_repeated_symbol_overwritten(
    right, params, carry, xs, side, ys, kept, d_carry, d_ys
):
    d_params, *others = right(params, carry, xs, side, ys, kept, d_carry, d_ys)
    table = jnp.zeros_like(params["embedding"]).at[xs].set(d_ys)
    return d_params | dict(embedding=table), *others


@in_bwd("with_loss")
def weights_of_the_loss_forgotten(
    right, params, carry, xs, side, ys, kept, d_carry, d_ys
):
    weighted, side = side.targets, side._replace(targets=side.targets.targets)
    *ds, d_targets = right(params, carry, xs, side, ys, kept, d_carry, d_ys)
    return *ds, Weighted(d_targets, jnp.zeros_like(weighted.weights))


@in_bwd("with_loss")
def cotangent_of_the_losses_taken_for_one(
    right, params, carry, xs, side, ys, kept, d_carry, d_ys
):
    return right(params, carry, xs, side, ys, kept, d_carry, jnp.ones_like(d_ys))


@in_bwd("with_losses")
def cotangents_of_examples_averaged(
    right, params, carry, xs, side, ys, kept, d_carry, d_ys
):
    examples = tuple(range(1, d_ys.ndim))
    each = jnp.broadcast_to(d_ys.mean(examples, keepdims=True), d_ys.shape)
    return right(params, carry, xs, side, ys, kept, d_carry, each)


@in_bwd("remat")
def stretch_run_again_from_another_state(
    right, params, carry, xs, side, ys, kept, d_carry, d_ys
):
    carry = carry._replace(c=jnp.zeros_like(carry.c))
    return right(params, carry, xs, side, ys, kept, d_carry, d_ys)


def _folded(side):
    if side.keys is None:
        return side
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 7))(side.keys)
    return side._replace(keys=keys)


@in_layer("dropout", "xs", unseen=WITHOUT_KEYS)
def dropped_by_other_noise_than_forward(right):
    del right
    layer = layers.dropout(0.3)

    def bwd(params, carry, xs, side, *others):
        return layer.bwd(params, carry, xs, _folded(side), *others)

    return noisy(layer._replace(bwd=bwd))


@in_layer("dropout", "xs", unseen=WITHOUT_KEYS)
def dropout_without_its_scale(right):
    del right
    layer = layers.dropout(0.3)

    def bwd(params, carry, xs, side, *others):
        *ds, d_xs, d_targets = layer.bwd(params, carry, xs, side, *others)
        return *ds, d_xs if side.keys is None else 0.7 * d_xs, d_targets

    return noisy(layer._replace(bwd=bwd))


@in_layer("variational_dropout", "xs", unseen=dict(chunks=(None,)))
def mask_of_each_stretch_drawn_anew(right):
    del right
    layer = layers.variational_dropout(0.3, 3)

    def bwd(params, carry, *others):
        carry = carry | dict(drawn=jnp.zeros_like(carry["drawn"]))
        return layer.bwd(params, carry, *others)

    return noisy(layer._replace(bwd=bwd))
