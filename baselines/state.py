"""State that a training step returns instead of writing: named, bias-corrected running averages."""

import torch
from torch import Tensor

State = dict[str, Tensor]
"""Tensors by name; every entry belongs to the one module that named it."""


def new_average(name: str, *shape: int) -> State:
    """An empty running average of a tensor with `shape`."""
    return {name: torch.zeros(shape), f"{name}.weight": torch.zeros(())}


def update_average(state: State, name: str, value: Tensor, decay: float) -> State:
    """The entries of `name` after one more `value`: m ← d·m + (1-d)·value, w ← d·w + (1-d)."""
    weight = f"{name}.weight"
    value = value.detach().reshape(state[name].shape)
    return {
        name: torch.lerp(value, state[name], decay),
        weight: decay * state[weight] + (1 - decay),
    }


def read_average(state: State, name: str) -> Tensor:
    """The average m/w, free of the pull of its empty start (Kingma & Ba 2015, section 3)."""
    weight = state[f"{name}.weight"]
    return state[name] / weight.clamp_min(torch.finfo(weight.dtype).tiny)
