"""Squire, Trapp (1998), "Using complex variables to estimate derivatives"."""

import numpy as np

EPSILON = 1e-30


def _moved(tree, path, index, by=1.0):
    """`tree` with one coordinate (`...`: all) of the array at `path` moved along the
    imaginary.
    """
    if not path:
        moved = np.array(tree, complex)
        moved[index] += 1j * EPSILON * by
        return moved
    key, *rest = path
    if isinstance(tree, dict):
        return {**tree, key: _moved(tree[key], rest, index, by)}
    items = [_moved(a, rest, index, by) if i == key else a for i, a in enumerate(tree)]
    return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)


def _paths(tree, path=()):
    if isinstance(tree, dict):
        for key in sorted(tree):
            yield from _paths(tree[key], (*path, key))
    elif isinstance(tree, tuple):
        for i, a in enumerate(tree):
            yield from _paths(a, (*path, i))
    else:
        yield path, np.asarray(tree)


def _functional(out, cotangents):
    leaves = [a for _, a in _paths(out)]
    return sum((w * a).sum() for w, a in zip(cotangents, leaves, strict=True))


def complex_slopes(
    reference, params, carry, xs, side, cotangents, seed=0
) -> list[tuple[np.ndarray, float]]:
    """For each leaf a random direction and the slope along it: one run a leaf, so that
    a thousand steps are not too many. Arguments as those of `complex_step`.
    """
    rng = np.random.default_rng(seed)
    arguments, found = (params, carry, xs), []
    for path, leaf in list(_paths(arguments)):
        v = np.where(np.isnan(leaf), 0.0, rng.normal(size=leaf.shape))
        out = reference(*_moved(arguments, path, ..., v), side)
        found.append((v, np.imag(_functional(out, cotangents)) / EPSILON))
    return found


def complex_step(reference, params, carry, xs, side, cotangents) -> list[np.ndarray]:
    """The gradient of Σ cotangent · output, a leaf each of (params, carry, xs).

    Args:
      reference: `(params, carry, xs, side) -> (carry, ys)`.
      params, carry, xs, side: NumPy arrays in dicts and tuples.
      cotangents: of the leaves of (carry, ys).
    """
    arguments, found = (params, carry, xs), []
    for path, leaf in list(_paths(arguments)):
        d = np.zeros(leaf.shape)
        for index in np.ndindex(leaf.shape):
            if np.isnan(leaf[index]):  # padding: nothing reads it
                continue
            out = reference(*_moved(arguments, path, index), side)
            d[index] = np.imag(_functional(out, cotangents)) / EPSILON
        found.append(d)
    return found
