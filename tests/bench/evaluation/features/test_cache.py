"""The features of an image set are taken once, and those of real images kept to the bit."""

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.evaluation.features.base import Extractor
from bench.evaluation.features.cache import FeatureSet, feature_set, real_features
from bench.evaluation.fid import Moments
from bench.run import Features, Precision


class Counting:
    """A network of two features that knows how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.stack([images.float().mean((1, 2, 3)), images.float().amax((1, 2, 3))], 1)


def mean_colour(precision: Precision = "float32", sha256: str = "0" * 64) -> Extractor:
    chosen = Features(name="torchscript", metric="fd_colour", sha256=sha256)
    return Extractor(chosen, Counting(), torch.device("cpu"), precision)


def calls(extractor: Extractor) -> int:
    assert isinstance(extractor.network, Counting)
    return extractor.network.calls


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path))
    return tmp_path / "features"


IMAGES = torch.arange(6 * 3 * 4 * 4).remainder(251).to(torch.uint8).reshape(6, 3, 4, 4)


def same(one: FeatureSet, other: FeatureSet) -> bool:
    return (
        torch.equal(one.features, other.features)
        and one.moments.count == other.moments.count
        and torch.equal(one.moments.mean, other.moments.mean)
        and torch.equal(one.moments.scatter, other.moments.scatter)
    )


def test_a_set_is_its_batches_and_its_moments_are_theirs() -> None:
    found = feature_set(IMAGES.split(4), mean_colour())
    expected = torch.stack([IMAGES.float().mean((1, 2, 3)), IMAGES.float().amax((1, 2, 3))], 1)
    # Equal bits however it is batched: sums of so few levels are exact in float32.
    assert torch.equal(found.features, expected)
    torch.testing.assert_close(found.moments.covariance, Moments.of(expected).covariance)


def test_no_images_have_no_features() -> None:
    with pytest.raises(ValueError, match="no images"):
        feature_set([], mean_colour())


@pytest.mark.usefixtures("cache")
def test_real_features_are_computed_once_and_kept_to_the_bit() -> None:
    extractor = mean_colour()
    first = real_features(IMAGES, "abc", extractor, batch=4)
    assert first.moments.count == len(IMAGES)
    done = calls(extractor)
    assert done > 0
    assert same(real_features(IMAGES, "abc", extractor, batch=4), first)
    assert calls(extractor) == done


def test_whatever_moves_the_numbers_has_its_own_entry(cache: Path) -> None:
    real_features(IMAGES, "abc", mean_colour(), batch=4)
    real_features(IMAGES, "abd", mean_colour(), batch=4)
    real_features(IMAGES, "abc", mean_colour(), batch=3)
    real_features(IMAGES[:5], "abc", mean_colour(), batch=4)
    real_features(IMAGES[..., :3], "abc", mean_colour(), batch=4)
    real_features(IMAGES, "abc", mean_colour("bfloat16"), batch=4)
    real_features(IMAGES, "abc", mean_colour(sha256="1" * 64), batch=4)
    assert len(list(cache.glob("*.safetensors"))) == 7


@pytest.mark.parametrize("damage", ["cut", "edited", "emptied", "another's"])
def test_a_damaged_entry_is_set_aside_and_computed_again(
    damage: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = real_features(IMAGES, "abc", mean_colour(), batch=4)
    (entry,) = cache.glob("*.safetensors")
    content = bytearray(entry.read_bytes())
    if damage == "cut":
        entry.write_bytes(content[:-8])
    elif damage == "edited":
        content[-1] ^= 1
        entry.write_bytes(content)
    elif damage == "emptied":
        entry.write_bytes(b"")
    else:
        real_features(IMAGES, "other contents", mean_colour(), batch=4)
        (other,) = set(cache.glob("*.safetensors")) - {entry}
        other.replace(entry)

    extractor = mean_colour()
    with caplog.at_level(logging.WARNING, "sigma-bench"):
        assert same(real_features(IMAGES, "abc", extractor, batch=4), first)
    assert calls(extractor) > 0
    (message,) = (record.getMessage() for record in caplog.records)
    assert str(entry) + ".bad" in message
    assert entry.with_name(entry.name + ".bad").exists()
    real_features(IMAGES, "abc", fresh := mean_colour(), batch=4)
    assert calls(fresh) == 0


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "file"))
    assert real_features(IMAGES, "abc", mean_colour(), batch=4).moments.count == len(IMAGES)
