"""A batch spread over devices."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from bptt_jax import _pytrees as trees
from bptt_jax._factory import expect, factory
from bptt_jax._processes import auto, axis_of
from bptt_jax.estimators._batches import any_real
from bptt_jax.estimators._gradient import gradient
from bptt_jax.types import Batch, Estimator, Gradient


@factory
def data_parallel(estimator: Estimator, mesh: Mesh) -> Estimator:
    """An estimator whose batches are spread over devices, of one process or of many.

    Each device has a part of the examples and the gradient of their losses by itself;
    the parts are added up once for each batch, weighted by their real steps, so the
    result is that of the estimator on the whole batch, to rounding. What is drawn for
    each step (dropout) is another on each device.

    Args:
      estimator: `exact`, or `stream` without a stride; its state has the examples first.
      mesh: of one axis, whose size divides the examples of a batch.

    Returns:
      An estimator; params and gradients are on every device. Its metrics are means over
      the real steps, as the loss is (those of `aux`); whole numbers are none, and left out.

    Cost: the gradient's time on a part of the batch, and one sum over all devices of as
    many numbers as there are parameters.

    >>> import jax, jax.numpy as jnp
    >>> from bptt_jax import cells, estimators, models, objectives, tasks
    >>> model = models.features((cells.gru(2, 8),), 1, 8)
    >>> estimator = estimators.exact(model, objectives.squared_error)
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> parallel = estimators.data_parallel(estimator, mesh)
    >>> task, params = tasks.adding(batch=4, T=6), model.init(jax.random.key(0))
    >>> batch = task.train.batch(jnp.int32(0), jax.random.key(1))
    >>> loss, grads, *_ = parallel.grad(params, (), batch, jax.random.key(2))
    """
    expect(Estimator, estimator=estimator)
    axis, mesh = axis_of(mesh), auto(mesh)
    whole, examples, by_time = (PartitionSpec(), PartitionSpec(axis),
                                PartitionSpec(None, axis))  # fmt: skip

    def part(params, state, batch, key):
        key = jax.random.fold_in(key, lax.axis_index(axis))
        found = gradient(estimator, params, state, batch, key)
        total, real = lax.psum(found.steps, axis), any_real(batch)

        def summed(a):  # a part without a real step has no loss
            part = a * (found.steps / total).astype(a.dtype)
            return lax.psum(jnp.where(real, part, jnp.zeros_like(a)), axis)

        told = {k: a for k, a in found.metrics.items() if trees.is_floating(a)}
        loss, grads, told = jax.tree.map(summed, (found.loss, found.grads, told))
        return Gradient(loss, grads, found.state, total, told)

    def grad(params, state, batch, key):
        count = jax.tree.leaves(batch.inputs)[0].shape[1]
        if count % mesh.size:
            raise ValueError(
                f"batch: expected a multiple of the mesh's {mesh.size} devices, got "
                f"{count} examples"
            )
        keys = trees.typed_keys(batch.side.keys)
        batch = batch._replace(side=batch.side._replace(keys=keys))
        along = batch.inputs, batch.side
        spread = jax.tree.map(lambda a: by_time if a.ndim > 1 else whole, along)
        spread = Batch(*spread, context=examples)
        in_specs = whole, examples, spread, whole
        out_specs = Gradient._make((whole, whole, examples, whole, whole))
        # the sum over devices is the one above, so JAX need not find where it belongs
        return jax.shard_map(
            part, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )(params, state, batch, key)

    return Estimator(estimator.init, grad)
