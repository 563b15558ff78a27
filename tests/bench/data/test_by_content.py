"""Images that came from another machine are found by their hash, and are the same images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import data
from bench.data import by_content
from bench.data.fingerprint import Parts
from bench.errors import RequestError


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of images of a machine that is then left: its path is gone, and so is its cache."""
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images[:30], test_images=images[30:])
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "cache"))
    return f"npz:{tmp_path / 'own.npz'}"


@pytest.mark.parametrize("split_seed", [0, 3])
def test_sent_images_are_the_same_data_set(
    split_seed: int, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = data.load(elsewhere, split_seed)
    content = loaded.description.content
    parts = by_content.published(elsewhere, split_seed)
    assert by_content.here(elsewhere, content, split_seed)

    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "another cache"))
    Path(elsewhere.removeprefix("npz:")).unlink()
    assert not by_content.here(elsewhere, content, split_seed)
    by_content.keep(elsewhere, content, split_seed, parts)
    assert by_content.here(elsewhere, content, split_seed)
    again = data.load(elsewhere, split_seed, content=content)
    assert again.description == loaded.description
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(again, split), getattr(loaded, split))
    with pytest.raises(RequestError, match="there is no such file"):
        data.load(elsewhere, split_seed)


def test_images_that_were_damaged_on_their_way_are_not_kept(elsewhere: str) -> None:
    train, test, validation = by_content.published(elsewhere, 0)
    content = data.prepare(elsewhere).content
    damaged = train.copy()
    damaged[0, 0, 0, 0] ^= 1
    with pytest.raises(RequestError, match="damaged on their way"):
        by_content.keep(elsewhere, content, 0, Parts(damaged, test, validation))
    assert not by_content.kept(elsewhere, content, 0)


def test_a_damaged_copy_is_not_computed_on(elsewhere: str, tmp_path: Path) -> None:
    content = data.prepare(elsewhere).content
    by_content.keep(elsewhere, content, 0, by_content.published(elsewhere, 0))
    (copy,) = tmp_path.glob("cache/data/content-*.npy")
    copy.write_bytes(copy.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(RequestError, match="no longer in the cache"):
        data.load(elsewhere, content=content)
