"""Named random streams: each consumer has its own, fixed by (seed, name, index)."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch


def stream_seed(seed: int, name: str, index: int = 0) -> int:
    """63 bits of the sha256 of (seed, name, index), so that a new stream changes no other."""
    digest = hashlib.sha256(f"{seed}\0{name}\0{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(
    seed: int, name: str, index: int = 0, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator at the start of the named stream."""
    return torch.Generator(device).manual_seed(stream_seed(seed, name, index))


def normal(
    shape: tuple[int, ...], seed: int, name: str, index: int = 0, *, device: torch.device | str
) -> torch.Tensor:
    """Standard normal numbers from the start of the named stream."""
    return torch.randn(shape, generator=generator(seed, name, index, device=device), device=device)


def uniform(
    shape: tuple[int, ...], seed: int, name: str, index: int = 0, *, device: torch.device | str
) -> torch.Tensor:
    """Uniform numbers on [0, 1) from the start of the named stream."""
    return torch.rand(shape, generator=generator(seed, name, index, device=device), device=device)


class Rows:
    """Random rows (count, size) of a named stream, of which only a block exists at a time.

    A row is the same whichever rows are asked for with it. Each block of `BLOCK` rows has the
    stream of its index, so that a model with many latents needs no memory for all images' noise.
    """

    BLOCK = 128
    numbers: ClassVar[Callable[..., torch.Tensor]]
    """Where a block comes from: `normal` or `uniform`."""

    def __init__(
        self, count: int, size: int, seed: int, name: str, *, device: torch.device | str
    ) -> None:
        self._count, self._size, self._seed, self._name = count, size, seed, name
        self._device = device
        self._last: tuple[int, torch.Tensor] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice) -> torch.Tensor:
        """Rows `start:stop`, (stop - start, size)."""
        start, stop, _ = rows.indices(self._count)
        # Copied, so that no more than one block is alive beside them.
        asked = torch.empty(max(0, stop - start), self._size, device=self._device)
        for index in range(start // self.BLOCK, -(-stop // self.BLOCK)):
            first = index * self.BLOCK
            low, high = max(start, first), min(stop, first + self.BLOCK)
            asked[low - start : high - start] = self._block(index)[low - first : high - first]
        return asked

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """The rows, `size` at a time."""
        for start in range(0, self._count, size):
            yield self[start : start + size]

    def _block(self, index: int) -> torch.Tensor:
        if self._last is None or self._last[0] != index:
            self._last, shape = None, (self.BLOCK, self._size)
            made = self.numbers(shape, self._seed, self._name, index, device=self._device)
            self._last = index, made
        return self._last[1]


class NormalRows(Rows):
    """Rows of standard normal numbers.

    >>> rows = NormalRows(1000, 20, seed=0, name="example", device="cpu")
    >>> rows[100:300].shape, torch.equal(rows[100:300][50:], rows[150:300])
    (torch.Size([200, 20]), True)
    """

    numbers = staticmethod(normal)


class UniformRows(Rows):
    """Rows of uniform numbers on [0, 1).

    >>> rows = UniformRows(1000, 20, seed=0, name="example", device="cpu")
    >>> bool((rows[:] >= 0).all() and (rows[:] < 1).all())
    True
    """

    numbers = staticmethod(uniform)


@contextlib.contextmanager
def seeded(seed: int, name: str, index: int = 0, *, device: torch.device | str) -> Iterator[None]:
    """Seed torch's default generators with the named stream, and restore them afterwards.

    For functions without a generator argument, such as `Distribution.sample`. Only the generators
    of the CPU and of `device` are touched.
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        chosen = stream_seed(seed, name, index)
        torch.default_generator.manual_seed(chosen)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(chosen)
        yield
