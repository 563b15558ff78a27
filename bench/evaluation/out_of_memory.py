"""Retry with half the batch when memory runs out, so that evaluation survives any memory."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor

from bench.devices import out_of_memory

T = TypeVar("T")
_log = logging.getLogger("sigma-bench")


class Chunks:
    """A number of items to work on at once, halved for good whenever memory runs out."""

    def __init__(self, size: int = sys.maxsize) -> None:
        self.size = size

    def attempt(self, count: int, work: Callable[[int], T], *generators: Generator) -> T:
        """The result of `work(size)`, where `size` of its `count` items may be held at once.

        When memory runs out it is called again with half the size and with `generators` rewound.
        Raises the error of memory where a single item is too many.
        """
        first = size = max(1, min(self.size, count))
        states = [generator.get_state() for generator in generators]
        while True:
            try:
                result = work(size)
                break
            except (MemoryError, RuntimeError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
            # Only outside the handler are the error and the tensors of its traceback freed.
            size //= 2
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
        if size < first:
            self.size = size
            _log.warning("out of memory with %d at once: going on with %d", first, size)
        return result


def joined(of: Callable[..., Tensor], inputs: Sequence[Tensor], size: int) -> Tensor:
    """`of` applied to inputs (B, ...), `size` items at a time."""
    return cat([of(*part) for part in zip(*(value.split(size) for value in inputs), strict=True)])


def cat(parts: Sequence[Tensor]) -> Tensor:
    """The concatenated parts; a single part is returned as it is, without a copy."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))
