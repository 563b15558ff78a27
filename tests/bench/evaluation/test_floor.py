"""The distance of real images from real ones: what it is, and that it is taken once."""

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.evaluation.features.base import Extractor
from bench.evaluation.features.cache import FeatureSet, feature_set
from bench.evaluation.fid import distance_between
from bench.evaluation.floor import floor
from bench.run import Features


class Colours:
    """Two features of an image; it counts the images that it is shown."""

    def __init__(self) -> None:
        self.shown = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.shown += len(images)
        values = images.float().flatten(1) / 255
        return torch.stack([values.mean(1), values.std(1)], 1)


def extractor(sha256: str = "0" * 64) -> Extractor:
    chosen = Features(name="torchscript", metric="fd_colours", sha256=sha256)
    return Extractor(chosen, Colours(), torch.device("cpu"))


def shown(of: Extractor) -> int:
    assert isinstance(of.network, Colours)
    return of.network.shown


def images(count: int, seed: int, brightest: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, brightest, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)


TEST = images(80, 0)


def frechet(one: FeatureSet, other: FeatureSet) -> dict[str, float]:
    return {"fd_colours_floor": distance_between(one.moments, other.moments)}


def taken(training: Tensor, of: Extractor, content: str = "abc", batch: int = 7) -> float:
    real = feature_set([TEST], extractor())
    return floor(training, content, real, of, frechet, batch=batch)["fd_colours_floor"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path))
    return tmp_path / "floors"


def test_the_same_images_are_at_zero_others_of_their_law_near_and_darker_ones_far() -> None:
    near = taken(images(60, 1), extractor())
    assert taken(TEST, extractor()) == pytest.approx(0, abs=1e-9)
    assert 0 < 100 * near < taken(images(60, 1, 128), extractor(), "darker")


def test_it_is_taken_once_and_kept_to_the_bit(cache: Path) -> None:
    first = extractor()
    value = taken(images(60, 1), first)
    assert shown(first) == 60
    again = extractor()
    assert taken(images(60, 1), again) == value
    assert shown(again) == 0
    assert len(list(cache.glob("*.json"))) == 1


def test_whatever_moves_it_has_its_own_entry(cache: Path) -> None:
    taken(images(60, 1), extractor())
    taken(images(50, 1), extractor())
    taken(images(60, 1), extractor(), "other")
    taken(images(60, 1), extractor(), batch=8)
    taken(images(60, 1), extractor("1" * 64))
    assert len(list(cache.glob("*.json"))) == 5


def test_a_damaged_entry_is_set_aside_and_taken_again(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    value = taken(images(60, 1), extractor())
    (path,) = cache.glob("*.json")
    kept = json.loads(path.read_text())
    kept["distances"]["fd_colours_floor"] = 0.0
    path.write_text(json.dumps(kept))
    with caplog.at_level(logging.WARNING, "sigma-bench"):
        assert taken(images(60, 1), extractor()) == value
    assert "is torn or was edited" in caplog.text
    assert path.with_name(f"{path.name}.bad").exists()


def test_a_cache_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = taken(images(60, 1), extractor())
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "file"))
    of = extractor()
    assert taken(images(60, 1), of) == value
    assert shown(of) == 60
