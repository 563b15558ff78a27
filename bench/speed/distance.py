"""Features and their Fréchet distance: our functions compared with those of pytorch-fid."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.evaluation.features.base import build
from bench.evaluation.fid import Moments, frechet_distance
from bench.rng import generator
from bench.speed import peer
from bench.speed.pairs import Finding, alternate
from bench.speed.setting import Setting


def distance(setting: Setting) -> Iterator[Finding]:
    """Row `distance`: between two sets of features of Inception's size."""
    size = setting.size
    one, other = (_features(size.rows, size.features, index) for index in (0, 1))
    moments = Moments.of(one), Moments.of(other)
    theirs = [part.numpy() for m in moments for part in (m.mean, m.covariance)]
    found: dict[str, float] = {}

    def ours() -> None:
        found["ours"] = frechet_distance(*(p for m in moments for p in (m.mean, m.covariance)))

    def usual() -> None:
        found["theirs"] = peer.distance(*theirs)

    compares = (
        f"pytorch-fid's calculate_frechet_distance / ours, {size.features} features of "
        f"{size.rows} images, one BLAS thread"
    )
    if not peer.runs():
        ours()
        yield Finding("distance", compares, None, {"distance": found["ours"]}, peer.CANNOT_RUN)
        return
    pairs = alternate(setting.timed(usual), setting.timed(ours), setting.repeats)
    apart = abs(found["ours"] / found["theirs"] - 1)
    facts = {"distance": found["ours"], "relative_difference": apart}
    yield Finding("distance", compares, pairs, facts, f"the two values are {apart:.1e} apart")


def _features(rows: int, features: int, index: int) -> Tensor:
    """Rectified normal numbers, correlated as features are, (rows, features) in float64."""
    stream = generator(0, "features", index)
    normal = torch.randn(rows + features, features, generator=stream, dtype=torch.float64)
    return (normal[:rows] @ normal[rows:] / math.sqrt(features)).relu()


# -- features ----------------------------------------------------------------------------------


def features(setting: Setting) -> Iterator[Finding]:
    """Row `features`: every installed network that another library has too, in its own way."""
    for name in setting.size.networks:
        network = peer.Network.find(name, setting.device, setting.folder)
        if network is not None:
            yield _extraction(setting, network)


def _extraction(setting: Setting, network: peer.Network) -> Finding:
    count, name = setting.size.pictures, network.spec.name
    real, generated = pictures(setting, count)
    files = [
        peer.write(part, setting.folder / f"{name}-{i}") for i, part in enumerate((real, generated))
    ]
    extractor = build(network.spec, setting.device)

    # Libraries choose their kernels at the first call.
    extractor(real[:1])
    network.activations(files[0][:1])
    last: dict[str, Tensor] = {}

    def ours_arm() -> None:
        last["ours"] = extractor(real)

    def their_arm() -> None:
        last["theirs"] = torch.from_numpy(network.activations(files[0]))

    pairs = alternate(setting.timed(their_arm), setting.timed(ours_arm), setting.repeats)
    ours_distance = _between(last["ours"], extractor(generated))
    their_distance = _between(last["theirs"], torch.from_numpy(network.activations(files[1])))
    apart = abs(ours_distance / their_distance - 1)
    return Finding(
        f"features, {name}",
        f"pytorch-fid's get_activations on PNG files, batch {peer.BATCH}, one loader / ours on "
        f"the same {count} images in memory, {extractor.precision}; {network.weights}",
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


def _between(one: Tensor, other: Tensor) -> float:
    first, second = Moments.of(one), Moments.of(other)
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)
