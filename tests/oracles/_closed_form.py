"""Backpropagation through time as in the textbook: one step after another.

Each function takes `(params, carry, xs, side, d_carry, d_ys)` and returns
`((carry, ys), (d_params, d_carry, d_xs))`. Batch axes are summed by `outer`.
"""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def outer(a, d):
    return a.reshape(-1, a.shape[-1]).T @ d.reshape(-1, d.shape[-1])


def total(d):
    return d.reshape(-1, d.shape[-1]).sum(0)


def elman_tanh_step(p, carry, x):
    (h,) = carry
    new = np.tanh(x @ p["w_x"] + h @ p["w_h"] + p["b"])
    return (new,), (x, h, new)


def elman_relu_step(p, carry, x):
    (h,) = carry
    new = np.maximum(x @ p["w_x"] + h @ p["w_h"] + p["b"], 0)
    return (new,), (x, h, new)


def _elman_back(p, x, h, dz):
    d_p = dict(w_x=outer(x, dz), w_h=outer(h, dz), b=total(dz))
    return d_p, (dz @ p["w_h"].T,), dz @ p["w_x"].T


def elman_tanh_back(p, kept, d):
    x, h, new = kept
    return _elman_back(p, x, h, d[0] * (1 - new**2))


def elman_relu_back(p, kept, d):
    x, h, new = kept
    return _elman_back(p, x, h, d[0] * (new > 0))


def lstm_step(p, carry, x):
    h, c = carry
    a = x @ p["w_x"] + h @ p["w_h"] + p["b"]
    ai, af, ag, ao = np.split(a, 4, -1)
    i, f, g, o = sigmoid(ai), sigmoid(af), np.tanh(ag), sigmoid(ao)
    new_c = f * c + i * g
    return (o * np.tanh(new_c), new_c), (x, h, c, i, f, g, o, new_c)


def lstm_back(p, kept, d):
    x, h, c, i, f, g, o, new_c = kept
    dh, dc = d
    do = dh * np.tanh(new_c)
    dc = dc + dh * o / np.cosh(new_c) ** 2
    di, df, dg = dc * g, dc * c, dc * i
    da = np.concatenate(
        [di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], -1
    )
    d_p = dict(w_x=outer(x, da), w_h=outer(h, da), b=total(da))
    return d_p, (da @ p["w_h"].T, dc * f), da @ p["w_x"].T


def gru_after_step(p, carry, x):
    (h,) = carry
    xr, xz, xn = np.split(x @ p["w_x"] + p["b"], 3, -1)
    hr, hz, hn = np.split(h @ p["w_h"], 3, -1)
    q = hn + p["b_n"]
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    n = np.tanh(xn + r * q)
    return ((1 - z) * n + z * h,), (x, h, r, z, n, q)


def gru_after_back(p, kept, d):
    x, h, r, z, n, q = kept
    (dh,) = d
    dan = dh * (1 - z) * (1 - n**2)
    dar = dan * q * r * (1 - r)
    daz = dh * (h - n) * z * (1 - z)
    dx_side = np.concatenate([dar, daz, dan], -1)
    dh_side = np.concatenate([dar, daz, dan * r], -1)
    d_p = dict(
        w_x=outer(x, dx_side),
        w_h=outer(h, dh_side),
        b=total(dx_side),
        b_n=total(dan * r),
    )
    return d_p, (dh * z + dh_side @ p["w_h"].T,), dx_side @ p["w_x"].T


def gru_before_step(p, carry, x):
    (h,) = carry
    xr, xz, xn = np.split(x @ p["w_x"] + p["b"], 3, -1)
    wr, wz, wn = np.split(p["w_h"], 3, -1)
    r, z = sigmoid(xr + h @ wr), sigmoid(xz + h @ wz)
    n = np.tanh(xn + (r * h) @ wn)
    return ((1 - z) * n + z * h,), (x, h, r, z, n)


def gru_before_back(p, kept, d):
    x, h, r, z, n = kept
    (dh,) = d
    wr, wz, wn = np.split(p["w_h"], 3, -1)
    dan = dh * (1 - z) * (1 - n**2)
    drh = dan @ wn.T
    dar = drh * h * r * (1 - r)
    daz = dh * (h - n) * z * (1 - z)
    da = np.concatenate([dar, daz, dan], -1)
    d_w_h = np.concatenate([outer(h, dar), outer(h, daz), outer(r * h, dan)], -1)
    d_p = dict(w_x=outer(x, da), w_h=d_w_h, b=total(da))
    return d_p, (dh * z + drh * r + dar @ wr.T + daz @ wz.T,), da @ p["w_x"].T


def bptt(step, back):
    """The loop: masked steps change nothing, resets put zeros before a step."""

    def run(params, carry, xs, side, d_carry, d_ys):
        kind = type(carry)
        carry = tuple(carry) if isinstance(carry, tuple) else (carry,)
        d = list(d_carry) if isinstance(d_carry, tuple) else [d_carry]
        T, ys, kept = len(xs), [], []
        shape = np.shape(carry[0])[:-1]
        real = (
            np.ones((T, *shape), bool) if side.mask is None else np.asarray(side.mask)
        )
        begun = np.zeros((T, *shape), bool) if side.resets is None else side.resets
        real, begun = real[..., None], np.asarray(begun)[..., None]
        xs = np.where(real, xs, 0.0)
        for t in range(T):
            carry = tuple(np.where(begun[t], 0.0, a) for a in carry)
            after, what = step(params, carry, xs[t])
            carry = tuple(
                np.where(real[t], a, b) for a, b in zip(after, carry, strict=True)
            )
            kept.append(what)
            ys.append(carry[0])
        d_params = {k: np.zeros_like(v) for k, v in params.items()}
        d_xs = np.zeros_like(xs)
        for t in reversed(range(T)):
            d[0] = d[0] + d_ys[t]
            through = tuple(np.where(real[t], a, 0.0) for a in d)
            d_p, d_before, d_x = back(params, kept[t], through)
            d_params = {k: d_params[k] + d_p[k] for k in d_params}
            d_xs[t] = d_x
            d = [
                np.where(begun[t], 0.0, np.where(real[t], a, b))
                for a, b in zip(d_before, d, strict=True)
            ]
        if issubclass(kind, tuple):
            return (kind(*carry), np.stack(ys)), (d_params, kind(*d), d_xs)
        return (carry[0], np.stack(ys)), (d_params, d[0], d_xs)

    return run


CLOSED_FORMS = {
    "elman": bptt(elman_tanh_step, elman_tanh_back),
    "elman, relu": bptt(elman_relu_step, elman_relu_back),
    "lstm": bptt(lstm_step, lstm_back),
    "gru": bptt(gru_after_step, gru_after_back),
    "gru, reset before": bptt(gru_before_step, gru_before_back),
}
