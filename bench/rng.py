"""Named random streams: each consumer has its own, fixed by (seed, name, index)."""

import contextlib
import hashlib
from collections.abc import Iterator

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
