"""Recurrent networks over the frames of a sequence, which can be stopped and restarted."""

import math

import torch
from torch import Tensor, nn

Memory = tuple[tuple[Tensor, Tensor], ...]
"""Hidden state and cell, (B, size) each, of every LSTM layer."""


class Lstm(nn.Module):
    """An LSTM layer as wide as its input, in elementary operations.

    It has the equations and the initialisation of `nn.LSTM`, and one bias, where that has two whose
    sum alone counts. `vmap` and CUDA graphs take it.

    >>> lstm = Lstm(3)
    >>> values = torch.randn(5, 4, 3)
    >>> whole, _ = lstm(values)
    >>> first, memory = lstm(values[:, :1])
    >>> rest, _ = lstm(values[:, 1:], memory)
    >>> torch.allclose(torch.cat([first, rest], dim=1), whole, atol=1e-6)
    True
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size)
        # Four blocks of rows: input gate, forget gate, output gate, candidate.
        self.inputs = nn.Parameter(torch.empty(4 * size, size).uniform_(-bound, bound))
        self.recurrent = nn.Parameter(torch.empty(4 * size, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(4 * size).uniform_(-bound, bound))
        self.size = size

    def forward(
        self, values: Tensor, memory: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The hidden states (B, steps, size) for inputs of that shape, and the last memory."""
        # One product for all steps. Steps come first, so that each of them is contiguous.
        moved = torch.addmm(self.bias, values.transpose(0, 1).flatten(0, 1), self.inputs.T)
        recurrent = self.recurrent.T
        if memory is None:
            zeros = torch.zeros_like(values[:, 0])
            memory = zeros, zeros
        hidden, cell = memory
        found = []
        for step in moved.unflatten(0, (values.shape[1], -1)).unbind():
            sums = torch.addmm(step, hidden, recurrent)
            gates, candidate = sums.split([3 * self.size, self.size], dim=1)
            enter, keep, leave = gates.sigmoid().chunk(3, dim=1)
            cell = keep * cell + enter * candidate.tanh()
            hidden = leave * cell.tanh()
            found.append(hidden)
        return torch.stack(found, dim=1), (hidden, cell)


class Recurrence(nn.Module):
    """A linear embedding, LSTM layers and a linear read-out, in float32 also under autocast.

    >>> network = Recurrence(3, 8, 2, layers=2)
    >>> read, memory = network(torch.randn(5, 4, 3))
    >>> read.shape, len(memory)
    (torch.Size([5, 4, 2]), 2)
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Linear(inputs, hidden)
        self.layers = nn.ModuleList(Lstm(hidden) for _ in range(layers))
        self.readout = nn.Linear(hidden, outputs)

    def forward(self, values: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """Outputs (B, steps, outputs) for inputs (B, steps, inputs), and the memory after them."""
        with torch.autocast(values.device.type, enabled=False):
            values = self.embedding(values.float())
            after = []
            for place, layer in enumerate(self.layers):
                values, last = layer(values, memory[place] if memory else None)
                after.append(last)
            return self.readout(values), tuple(after)
