"""PyTorch `nn.RNN`, `nn.LSTM`, `nn.GRU` on all cores; on a GPU that is cuDNN."""

import functools
import os

import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from benchmarks._cases import Case, inputs, weights
from benchmarks._contestants._contract import (
    Contestant,
    Declined,
    Program,
    back,
    half_square,
)
from bptt_jax.interop.torch import to_state_dict

MODULES = dict(elman=nn.RNN, lstm=nn.LSTM, gru=nn.GRU)


def _build(case: Case, device: str) -> Program:
    torch.set_num_threads(os.cpu_count() or 1)
    module = MODULES[case.cell](case.I, case.H, num_layers=case.depth)
    ours = functools.partial(to_state_dict, cells=case.cells)
    state = ours(weights(case))
    module.load_state_dict({n: torch.tensor(np.asarray(a)) for n, a in state.items()})
    module = module.to(device)
    xs = torch.tensor(inputs(case), device=device, requires_grad=True)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def gradient():
        module.zero_grad(set_to_none=True)
        xs.grad = None
        loss = half_square(module(xs)[0])
        loss.backward()
        wait()
        return loss

    def forward():
        with torch.no_grad():
            ys = module(xs)[0]
        wait()
        return ys

    def gradients():
        loss = gradient().detach().cpu().numpy()
        grads = {
            n: jnp.asarray(p.grad.cpu().numpy()) for n, p in module.named_parameters()
        }
        return loss, back(ours, weights(case), grads), xs.grad.cpu().numpy()

    def answers():
        return forward().cpu().numpy(), *gradients()[1:]

    peak = torch.cuda.max_memory_allocated if device == "cuda" else None
    return Program(gradient, forward, answers, gradients, peak=peak)


def _build_gpu(case: Case, compilations: int = 1) -> Program:
    del compilations
    if not torch.cuda.is_available():
        raise Declined(f"torch {torch.__version__} sees no CUDA device")
    return _build(case, "cuda")


torch_cpu = Contestant("torch", lambda case, _=1: _build(case, "cpu"))
torch_gpu = Contestant("torch (cuDNN)", _build_gpu)
