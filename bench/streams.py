"""Random numbers by name: every consumer has its own stream, fixed by (seed, name, index)."""

import hashlib

import torch


def stream_seed(seed: int, name: str, index: int = 0) -> int:
    """63 bits from the sha256 of (seed, name, index); a new name shifts no other stream."""
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
