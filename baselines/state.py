"""State that a training step returns instead of writing: named, bias-corrected running averages."""

import torch
from torch import Tensor

State = dict[str, Tensor]
"""Tensors by name; every entry belongs to the one module that named it."""


def new_average(name: str, *shape: int) -> State:
    """An empty running average of a tensor with `shape`.

    >>> sorted(new_average("decoder.variance", 3, 1, 1))
    ['decoder.variance', 'decoder.variance.weight']
    """
    return {name: torch.zeros(shape), f"{name}.weight": torch.zeros(())}


def update_average(state: State, name: str, value: Tensor, decay: float) -> State:
    """The entries of `name` after one more `value`: m ← d·m + (1-d)·value, w ← d·w + (1-d).

    >>> update_average(new_average("a"), "a", torch.tensor(4.0), decay=0.75)
    {'a': tensor(1.), 'a.weight': tensor(0.2500)}
    """
    weight = f"{name}.weight"
    value = value.detach().reshape(state[name].shape)
    return {
        name: torch.lerp(value, state[name], decay),
        weight: decay * state[weight] + (1 - decay),
    }


def read_average(state: State, name: str) -> Tensor:
    """The average m/w, free of the pull of its empty start (Kingma & Ba 2015, section 3).

    >>> read_average(update_average(new_average("a"), "a", torch.tensor(4.0), decay=0.75), "a")
    tensor(4.)
    """
    weight = state[f"{name}.weight"]
    return state[name] / weight.clamp_min(torch.finfo(weight.dtype).tiny)


def is_empty(state: State) -> bool:
    """Whether a running average has seen no value.

    >>> state = new_average("a")
    >>> is_empty(state), is_empty(update_average(state, "a", torch.tensor(4.0), decay=0.75))
    (True, False)
    """
    weights = [value for name, value in state.items() if name.endswith(".weight")]
    return any(not weight.any() for weight in weights)
