"""pytorch-fid, used as its own command does: PNG files in, features and a distance out."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_fid import fid_score
from torch import Tensor, nn
from torchvision.models import inception_v3

from bench.errors import RequestError
from bench.evaluation.features.base import network_named, resolve
from bench.evaluation.features.networks.efficientnet import SIZE, efficientnet_network
from bench.evaluation.features.networks.inception import inception_network
from bench.rng import seeded
from bench.run import Features

BATCH = 50
"""pytorch-fid's default."""

CANNOT_RUN = "pytorch-fid cannot run with this SciPy, which has no sqrtm(disp=...) any more"


def runs() -> bool:
    """Whether pytorch-fid's distance works with the installed SciPy."""
    try:
        distance(np.zeros(2), np.eye(2), np.zeros(2), np.eye(2))
    except TypeError:  # SciPy 1.18 removed an argument of its matrix root
        return False
    return True


def distance(*moments: np.ndarray) -> float:
    """The Fréchet distance of mean, covariance, mean, covariance."""
    with _silent():
        return float(fid_score.calculate_frechet_distance(*moments))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Hide pytorch-fid's progress bar and output, and the warnings of what it calls."""
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield


class Resized(nn.Module):
    """EfficientNet-Lite0 for pytorch-fid's loop: images in [0, 1] in, a list of feature maps out.

    Its preprocessing is that of `bench.evaluation.features`.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor) -> list[Tensor]:
        resized = nn.functional.interpolate(
            images * 255, (SIZE, SIZE), mode="bilinear", antialias=True
        )
        maps: Tensor = self.network.extract_features((resized - 127) / 128)
        return [maps]


@dataclass(frozen=True)
class Network:
    """A feature network that both sides have, and what its weights are."""

    spec: Features
    weights: str
    network: nn.Module
    device: str

    @classmethod
    def find(cls, name: str, device: str, folder: Path) -> "Network | None":
        """The network of that name; None where no other library has it, or it is not installed.

        Inception has random weights where it is not installed.
        """
        loaders: dict[str, Callable[[Path], nn.Module]] = {
            "inception": inception_network,
            "efficientnet_lite0": lambda weights: Resized(efficientnet_network(weights)),
        }
        if name not in loaders:
            return None
        try:
            spec, said = resolve(name), "its weights"
        except RequestError:
            if name != "inception":
                return None
            weights = random_inception(folder / "inception.pth")
            spec, said = network_named(name).of(weights), "random weights"
        assert spec is not None
        network = loaders[name](Path(spec.source)).to(device).eval()
        return cls(spec, said, network, device)

    def activations(self, paths: list[Path]) -> np.ndarray:
        """The features of PNG files, (N, F)."""
        dimension = network_named(self.spec.name).dimension
        with _silent():
            taken: np.ndarray = fid_score.get_activations(
                paths, self.network, min(BATCH, len(paths)), dimension, self.device
            )
            return taken


def random_inception(path: Path) -> Path:
    """Write random Inception weights (He initialisation) with the published names and shapes."""
    with seeded(0, "inception", device="cpu"):
        network = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path


def write(images: Tensor, folder: Path) -> list[Path]:
    """Grey images (N, 1, H, W), 8 bits, as PNG files, in order."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:05}.png" for number in range(len(images))]
    for path, image in zip(paths, images[:, 0].numpy(), strict=True):
        Image.fromarray(image).save(path)
    return paths
