"""Binarised data: probabilities, splits and names."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import data
from bench.data import sources
from bench.data.binary import binarise, binarised, drawn, split_binarised
from bench.data.fingerprint import Parts
from bench.training.step import scaled
from tests.refusal import refused


def ramp(count: int, seed: int = 0) -> np.ndarray:
    """Grey images (N, 1, 28, 28), each with every level three times or more, in its own order."""
    rng, levels = np.random.default_rng(seed), np.arange(784) % 256
    return np.stack([rng.permutation(levels).reshape(1, 28, 28) for _ in range(count)]).astype("u1")


@pytest.fixture
def grey(tmp_path: Path, cache: Path) -> str:
    path = tmp_path / "grey.npz"
    np.savez(path, images=ramp(200)[:, 0])
    return f"npz:{path}"


def test_a_value_is_white_with_its_probability() -> None:
    """0 never, 255 always, and every level as often as its intensity says: 900 draws or more."""
    images = ramp(300)
    made = drawn(images, "content", "train")
    assert set(np.unique(made)) == {0, 255}
    share = np.array([(made[images == level] == 255).mean() for level in range(256)])
    p = np.arange(256) / 255
    assert share[0] == 0
    assert share[255] == 1
    error = np.abs(share - p)[1:-1] / np.sqrt(p * (1 - p) / 900)[1:-1]
    assert error.max() < 5
    assert error.mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.15)


def test_a_draw_is_a_function_of_content_and_part(monkeypatch: pytest.MonkeyPatch) -> None:
    images = ramp(20)
    first = drawn(images, "a", "train")
    assert not np.array_equal(first, drawn(images, "b", "train"))
    assert not np.array_equal(first, drawn(images, "a", "test"))
    monkeypatch.setattr("bench.data.binary.PIECE", 100)
    assert np.array_equal(first, drawn(images, "a", "train"))
    # Of NumPy's guaranteed stream: the same on every machine.
    known = drawn(np.arange(256, dtype=np.uint8), "content", "test") == 255
    assert (known.sum(), known[:128].sum()) == (131, 34)


def test_both_ways_have_the_same_images_to_score(grey: str) -> None:
    static, resampled, plain = (data.load(grey + how) for how in ("@static", "@resampled", ""))
    for split in ("validation", "test"):
        one, other = (getattr(each, split) for each in (static, resampled))
        assert torch.equal(one, other)
        assert set(one.unique().tolist()) == {0, 255}
    assert set(static.train.unique().tolist()) == {0, 255}
    # Grey images have all 256 levels.
    assert len(resampled.train[0].unique()) == 256
    contents = {each.description.content for each in (static, resampled, plain)}
    assert len(contents) == 3
    sizes = [(len(each.train), len(each.validation), len(each.test)) for each in (static, plain)]
    assert sizes[0] == sizes[1] == (140, 20, 40)
    # As published, the static training images are a draw of the resampled ones: E 2p(1-p).
    one, other = (sources.resolve(grey + how).read().train for how in ("@static", "@resampled"))
    assert np.abs(one / 255 - other / 255)[:140].mean() == pytest.approx(1 / 3, abs=0.01)


def test_training_images_are_measured_in_one_draw(grey: str) -> None:
    dataset = data.load(f"{grey}@resampled")
    once, again = dataset.drawn_once(), dataset.drawn_once()
    assert torch.equal(once.train, again.train)
    assert once.test is dataset.test
    assert set(once.train.unique().tolist()) == {0, 255}
    gap = (once.train.double() - dataset.train.double()) / 255
    assert gap.abs().mean() == pytest.approx(1 / 3, abs=0.01)
    assert len(dataset.train[0].unique()) == 256


def test_a_split_seed_moves_no_image(grey: str) -> None:
    usual, other = (data.load(f"{grey}@resampled", seed) for seed in (0, 7))
    for split in ("train", "validation", "test"):
        one, two = (getattr(each, split).flatten(1) for each in (usual, other))
        assert sorted(map(bytes, one.numpy())) == sorted(map(bytes, two.numpy()))
    assert torch.equal(usual.test, other.test)


def test_an_official_test_part_stays_one() -> None:
    made = binarise("some", "static", Parts(ramp(60), ramp(30, 1)))
    assert (len(made.train), len(made.test), made.validation) == (60, 30, 5)


def test_a_cut_is_part_of_a_larger_one(grey: str) -> None:
    small, large = (sources.resolve(f"{grey}@static[:{n}]").read() for n in (40, 80))
    of_large = set(map(bytes, large.train))
    assert set(map(bytes, small.train)) <= of_large
    assert data.load(f"{grey}@static[:80]").description.train == 70


def test_what_is_known_before_it_is_prepared() -> None:
    assert data.training_images("mnist5k@static") == 3500
    assert data.training_images("mnist@28@resampled[:600]") == 550
    assert data.frames("mnist5k@static") == 1
    assert data.stem("mnist@32@static[:9]") == "mnist"


@given(st.sampled_from(["mnist", "mnist@32", "npz:a@b.npz"]), st.sampled_from(["", "[:50]"]))
def test_names_are_taken_apart(name: str, cut: str) -> None:
    assert binarised(name + cut) is None
    assert binarised(f"{name}@static{cut}") == "static"
    assert split_binarised(f"{name}@resampled") == (name, "resampled")


def test_colour_and_too_few_are_refused(tmp_path: Path, cache: Path) -> None:
    for shape, told in (
        ((60, 28, 28, 3), "images of 3 channels are not grey"),
        ((5, 28, 28), "too few"),
    ):
        path = tmp_path / f"{len(shape)}.npz"
        np.savez(path, images=np.zeros(shape, np.uint8))
        assert told in refused(partial(data.prepare, f"npz:{path}@static"))
    assert "unknown dataset 'mnits'; did you mean 'mnist'?" in (
        refused(lambda: data.describe("mnits@static"))
    )


def test_the_dither_of_a_step_draws_a_value() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2000, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    dither = torch.rand(levels.shape, generator=generator)
    made = scaled(levels, dither, binarise=True)
    assert set(made.unique().tolist()) == {0, 1}
    share, p = made.mean(0).flatten().double(), torch.arange(256).double() / 255
    assert share[0] == 0
    assert share[255] == 1
    error = (share - p).abs() / (p * (1 - p) / 2000).sqrt()
    assert error[1:-1].max() < 5
