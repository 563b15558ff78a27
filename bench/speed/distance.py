"""Features and their Fréchet distance: our functions compared with those of pytorch-fid."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_fid import fid_score
from torch import Tensor, nn
from torchvision.models import inception_v3

from bench.errors import RequestError
from bench.evaluation.features.base import build, network_named, resolve
from bench.evaluation.features.networks.efficientnet import SIZE, efficientnet_network
from bench.evaluation.features.networks.inception import inception_network
from bench.evaluation.fid import Moments, frechet_distance
from bench.rng import generator, seeded
from bench.run import Features
from bench.speed.pairs import Finding, alternate
from bench.speed.setting import Setting

THEIR_BATCH = 50
"""pytorch-fid's default."""


def distance(setting: Setting) -> Iterator[Finding]:
    """Row `distance`: between two sets of features of Inception's size."""
    size = setting.size
    one, other = (_features(size.rows, size.features, index) for index in (0, 1))
    moments = Moments.of(one), Moments.of(other)
    theirs = [part.numpy() for m in moments for part in (m.mean, m.covariance)]
    found: dict[str, float] = {}

    def ours() -> None:
        found["ours"] = frechet_distance(*(p for m in moments for p in (m.mean, m.covariance)))

    def peer() -> None:
        found["theirs"] = _their_distance(*theirs)

    compares = (
        f"pytorch-fid's calculate_frechet_distance / ours, {size.features} features of "
        f"{size.rows} images, one BLAS thread"
    )
    if not peer_runs():
        ours()
        note = "pytorch-fid cannot run with this SciPy, which has no sqrtm(disp=...) any more"
        yield Finding("distance", compares, None, {"distance": found["ours"]}, note)
        return
    pairs = alternate(setting.timed(peer), setting.timed(ours), setting.repeats)
    apart = abs(found["ours"] / found["theirs"] - 1)
    facts = {"distance": found["ours"], "relative_difference": apart}
    yield Finding("distance", compares, pairs, facts, f"the two values are {apart:.1e} apart")


def peer_runs() -> bool:
    """Whether pytorch-fid's distance works with the installed SciPy."""
    try:
        _their_distance(np.zeros(2), np.eye(2), np.zeros(2), np.eye(2))
    except TypeError:  # SciPy 1.18 removed an argument of its matrix root
        return False
    return True


def _their_distance(*moments: np.ndarray) -> float:
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


def _features(rows: int, features: int, index: int) -> Tensor:
    """Rectified normal numbers, correlated as features are, (rows, features) in float64."""
    stream = generator(0, "features", index)
    normal = torch.randn(rows + features, features, generator=stream, dtype=torch.float64)
    return (normal[:rows] @ normal[rows:] / math.sqrt(features)).relu()


# -- features ----------------------------------------------------------------------------------


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


def features(setting: Setting) -> Iterator[Finding]:
    """Row `features`: every installed network that another library has too, in its own way.

    Inception has random weights where it is not installed.
    """
    for name in setting.size.networks:
        found = _network(name, setting.folder)
        if found is not None:
            yield _extraction(setting, *found)


def _network(name: str, folder: Path) -> tuple[Features, str, Callable[[Path], nn.Module]] | None:
    peers: dict[str, Callable[[Path], nn.Module]] = {
        "inception": inception_network,
        "efficientnet_lite0": lambda weights: Resized(efficientnet_network(weights)),
    }
    if name not in peers:
        return None
    try:
        spec = resolve(name)
        said = "its weights"
    except RequestError:
        if name != "inception":
            return None
        weights = random_inception(folder / "inception.pth")
        spec, said = network_named(name).of(weights), "random weights"
    assert spec is not None
    return spec, said, peers[name]


def random_inception(path: Path) -> Path:
    """Write random Inception weights (He initialisation) with the published names and shapes."""
    with seeded(0, "inception", device="cpu"):
        network = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path


def _extraction(
    setting: Setting, spec: Features, said: str, load: Callable[[Path], nn.Module]
) -> Finding:
    count = setting.size.pictures
    real, generated = pictures(setting, count)
    files = [
        write(part, setting.folder / f"{spec.name}-{i}") for i, part in enumerate((real, generated))
    ]
    extractor = build(spec, setting.device)
    network = load(Path(spec.source)).to(setting.device).eval()
    dimension = network_named(spec.name).dimension

    def theirs(paths: list[Path]) -> np.ndarray:
        batch = min(THEIR_BATCH, len(paths))
        with _silent():
            taken: np.ndarray = fid_score.get_activations(
                paths, network, batch, dimension, setting.device
            )
            return taken

    # Libraries choose their kernels at the first call.
    extractor(real[:1])
    theirs(files[0][:1])
    last: dict[str, Tensor] = {}

    def ours_arm() -> None:
        last["ours"] = extractor(real)

    def their_arm() -> None:
        last["theirs"] = torch.from_numpy(theirs(files[0]))

    pairs = alternate(setting.timed(their_arm), setting.timed(ours_arm), setting.repeats)
    ours_distance = _between(last["ours"], extractor(generated))
    their_distance = _between(last["theirs"], torch.from_numpy(theirs(files[1])))
    apart = abs(ours_distance / their_distance - 1)
    return Finding(
        f"features, {spec.name}",
        f"pytorch-fid's get_activations on PNG files, batch {THEIR_BATCH}, one loader / ours on "
        f"the same {count} images in memory, {extractor.precision}; {said}",
        pairs,
        {
            "images_per_second": count / min(pairs.ours),
            "distance": ours_distance,
            "relative_difference": apart,
        },
        f"{count / min(pairs.ours):.0f} images a second; the distance to other images is "
        f"{apart:.1e} off what pytorch-fid's features give",
    )


def pictures(setting: Setting, count: int) -> tuple[Tensor, Tensor]:
    """Two sets of 8-bit images (count, 1, 28, 28) on the CPU: digits, and others with noise."""
    both = setting.digits[torch.arange(2 * count) % len(setting.digits)]
    noise = 40 * torch.randn(both[count:].shape, generator=generator(0, "pictures"))
    return both[:count], (both[count:] + noise).clamp(0, 255).byte()


def write(images: Tensor, folder: Path) -> list[Path]:
    """The images as PNG files, in order."""
    folder.mkdir()
    paths = [folder / f"{number:05}.png" for number in range(len(images))]
    for path, image in zip(paths, images[:, 0].numpy(), strict=True):
        Image.fromarray(image).save(path)
    return paths


def _between(one: Tensor, other: Tensor) -> float:
    first, second = Moments.of(one), Moments.of(other)
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
