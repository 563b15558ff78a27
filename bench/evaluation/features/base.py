"""Feature networks for distances between sets of images: which there are, found and loaded.

torch is imported where something is computed: `list`, `status` and `--dry-run` resolve without it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import RequestError, nearest
from bench.evaluation.features import networks
from bench.evaluation.features.network import Network
from bench.run import Features, Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _networks() -> tuple[Network, ...]:
    """One of each class that a file of the package `networks` defines."""
    files = [f"{networks.__name__}.{file.name}" for file in pkgutil.iter_modules(networks.__path__)]
    found = [
        value()
        for file in files
        for value in vars(import_module(file)).values()
        if isinstance(value, type) and issubclass(value, Network) and value.__module__ == file
    ]
    return tuple(sorted(found, key=lambda network: (network.place, network.name)))


NETWORKS = _networks()
"""Every feature network, in the order in which `auto` looks for them."""

# On a CPU the activations of few images stay in its caches and in memory that is already mapped.
CPU_IMAGES_AT_ONCE = 8


def network_named(name: str) -> Network:
    """The feature network that runs call `name`; raises `RequestError` where there is none."""
    for network in NETWORKS:
        if network.name == name:
            return network
    known = [network.name for network in NETWORKS]
    raise RequestError(f"unknown feature network '{name}'; {nearest(name, known)}")


def resolve(word: str) -> Features | None:
    """The network that a grid's `features` asks for, found without torch; None for no features.

    `auto` is the first automatic network of `NETWORKS` that is on this machine, else none. Raises
    `RequestError` for an unknown word and for weights that are not there.
    """
    if word == "none":
        return None
    if word == "auto":
        here = (one for one in NETWORKS if one.automatic and one.is_here())
        return next((one.find(one.name) for one in here), None)
    for network in NETWORKS:
        if (found := network.find(word)) is not None:
            return found
    words = ["auto", "none", *(word for network in NETWORKS for word in network.words)]
    raise RequestError(f"unknown features '{word}'; {nearest(word, words)}")


@dataclass(frozen=True)
class Extractor:
    """A feature network on a device: 8-bit images (B, C, H, W) in, float32 features (B, F) out.

    Of videos (B, T, C, H, W) it takes the features of every frame, (B · T, F).

    Attributes:
        features: what a run says of the network.
        network: takes 8-bit images (b, 3, H, W) on `device`, whose equal channels may share memory.
    """

    features: Features
    network: Callable[[Tensor], Tensor]
    device: torch.device
    precision: Precision = "float32"

    def __call__(self, images: Tensor) -> Tensor:
        """The features (B, F) of 8-bit `images`; a single channel is repeated to 3.

        Raises `RequestError` for another number of channels, ValueError for another type.
        """
        import torch

        if images.dtype != torch.uint8:
            raise ValueError(f"features are taken of uint8 images, not of {images.dtype}")
        images = images.flatten(0, -4)
        refuse_channels(images.shape[1], "evaluation.features to none")
        step = CPU_IMAGES_AT_ONCE if self.device.type == "cpu" else len(images)
        reduced = torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )
        with torch.inference_mode(), reduced:
            return torch.cat(
                [
                    self.network(part.to(self.device).expand(-1, 3, -1, -1)).float()
                    for part in torch.split(images, step)
                ]
            )


def refuse_channels(channels: int, setting: str) -> None:
    """Raise `RequestError` unless images have 1 or 3 channels; `setting` is what to set."""
    if channels not in (1, 3):
        raise RequestError(
            f"features need images of 1 or 3 channels, not {channels}; set {setting}"
        )


def build(
    features: Features, device: str | torch.device, precision: Precision = "float32"
) -> Extractor:
    """Load the network that a run chose on `device`.

    float32 is the default because bfloat16, 1.7 times as fast on a CPU that has it, moves the
    distance between sets of 1000 digits by 0.4 to 4 %.

    Raises `RequestError` where the file is unreadable or holds something else.
    """
    import torch

    target = torch.device(device)
    load = network_named(features.name).load
    # Construction draws weights that are then overwritten; the caller's generator must not notice.
    with torch.random.fork_rng(devices=[]):
        return Extractor(features, load(Path(features.source), target), target, precision)
