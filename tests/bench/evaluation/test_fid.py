"""The Fréchet distance against closed forms, NumPy and pytorch-fid."""

import importlib.metadata
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from bench.evaluation.features.base import build
from bench.evaluation.features.cache import feature_set
from bench.evaluation.features.networks.inception import Inception
from bench.evaluation.fid import Moments, frechet_distance

SCIPY = tuple(int(part) for part in importlib.metadata.version("scipy").split(".")[:2])
peer_runs = pytest.mark.skipif(
    SCIPY >= (1, 18), reason="pytorch-fid 0.3.0 calls sqrtm(disp=...), which SciPy 1.18 removed"
)
peer_warns = pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated")

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def between(one: Moments, other: Moments) -> float:
    return frechet_distance(one.mean, one.covariance, other.mean, other.covariance)


# -- moments -----------------------------------------------------------------------------------


@few
@given(sizes=st.lists(st.integers(1, 7), min_size=2, max_size=8), seed=seeds)
def test_moments_of_any_split_are_those_of_numpy(sizes: list[int], seed: int) -> None:
    # The offset is what a sum of squares would lose its digits to.
    rows = 1e4 + normal(sum(sizes), 5, seed=seed)
    streamed = sum(
        (Moments.of(part) for part in torch.split(rows, sizes)[1:]), Moments.of(rows[: sizes[0]])
    )
    assert streamed.count == len(rows)
    np.testing.assert_allclose(streamed.mean, rows.numpy().mean(0), rtol=1e-14)
    np.testing.assert_allclose(
        streamed.covariance, np.cov(rows.numpy(), rowvar=False), rtol=1e-7, atol=1e-9
    )


def test_one_sample_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 samples, not 1"):
        _ = Moments.of(torch.zeros(1, 3)).covariance


# -- the distance ------------------------------------------------------------------------------


@few
@given(st.floats(-9, 9), st.floats(1e-3, 9), st.floats(-9, 9), st.floats(1e-3, 9))
def test_in_one_dimension_it_is_the_distance_of_mean_and_deviation(
    mean1: float, sigma1: float, mean2: float, sigma2: float
) -> None:
    found = frechet_distance(
        torch.tensor([mean1]).double(),
        torch.tensor([[sigma1]]).double() ** 2,
        torch.tensor([mean2]).double(),
        torch.tensor([[sigma2]]).double() ** 2,
    )
    expected = (mean1 - mean2) ** 2 + (sigma1 - sigma2) ** 2
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_for_diagonal_covariances_dimensions_add_up() -> None:
    mean1, mean2, sigma1, sigma2 = normal(4, 50, seed=0)
    expected = (mean1 - mean2).square().sum() + (sigma1.abs() - sigma2.abs()).square().sum()
    found = frechet_distance(mean1, sigma1.square().diag(), mean2, sigma2.square().diag())
    assert found == pytest.approx(expected.item(), rel=1e-10)


@few
@given(seed=seeds, dimension=st.integers(1, 12), samples=st.integers(2, 20))
def test_it_is_symmetric_never_negative_and_blind_to_rotation(
    seed: int, dimension: int, samples: int
) -> None:
    rows = normal(2, samples, dimension, seed=seed)
    mixing = normal(dimension, dimension, seed=seed + 1)
    rotation = torch.linalg.qr(normal(dimension, dimension, seed=seed + 2)).Q
    one, other = rows[0], rows[1] @ mixing + 1
    distance = between(Moments.of(one), Moments.of(other))
    scale = one.square().sum().item() + other.square().sum().item()
    near = 1e-6 * scale
    assert distance >= 0
    assert between(Moments.of(other), Moments.of(one)) == pytest.approx(distance, abs=near)
    rotated = between(Moments.of(one @ rotation), Moments.of(other @ rotation))
    assert rotated == pytest.approx(distance, abs=near)
    assert between(Moments.of(one), Moments.of(one)) == pytest.approx(0, abs=near)


def test_a_point_mass_against_a_gaussian_leaves_the_trace() -> None:
    covariance = torch.cov(normal(5, 30, seed=3))
    mean = torch.ones(5).double()
    found = frechet_distance(mean, torch.zeros(5, 5), 3 * mean, covariance)
    assert found == pytest.approx(20 + covariance.trace().item(), rel=1e-12)


def test_singular_covariances_on_one_plane_are_those_of_the_plane() -> None:
    plane = torch.linalg.qr(normal(200, 4, seed=1)).Q
    one, other = normal(40, 4, seed=2), normal(30, 4, seed=3) @ normal(4, 4, seed=4)
    inside = between(Moments.of(one), Moments.of(other))
    embedded = between(Moments.of(one @ plane.T), Moments.of(other @ plane.T))
    assert embedded == pytest.approx(inside, rel=1e-6)


def test_covariances_on_crossing_planes_share_nothing() -> None:
    one = torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0]))
    other = torch.diag(torch.tensor([0.0, 0.0, 3.0, 4.0]))
    assert frechet_distance(torch.zeros(4), one, torch.zeros(4), other) == pytest.approx(10)


def test_what_is_not_finite_is_refused() -> None:
    eye, bad = torch.eye(3), torch.full((3, 3), math.nan)
    zero, huge = torch.zeros(3), torch.full((3,), math.inf)
    for moment in ((zero, eye, zero, bad), (zero, bad, zero, eye), (huge, eye, zero, eye)):
        with pytest.raises(ValueError, match="must be finite"):
            frechet_distance(*moment)


@peer_runs
@peer_warns
@pytest.mark.parametrize("dimension", [3, 64, 192])
def test_it_equals_pytorch_fids_function(dimension: int) -> None:
    from pytorch_fid.fid_score import calculate_frechet_distance

    one = normal(500, dimension, seed=5) @ normal(dimension, dimension, seed=6)
    other = normal(400, dimension, seed=7).abs() * 3
    expected = calculate_frechet_distance(
        one.numpy().mean(0),
        np.cov(one.numpy(), rowvar=False),
        other.numpy().mean(0),
        np.cov(other.numpy(), rowvar=False),
    )
    assert between(Moments.of(one), Moments.of(other)) == pytest.approx(expected, rel=1e-6)


# -- the whole path against pytorch-fid's ------------------------------------------------------


@pytest.fixture(scope="module")
def weights(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Inception weight file with the published names and shapes and random contents."""
    shapes = json.loads((shared_data / "fid_inception_state_dict_shapes.json").read_text())
    generator = torch.Generator().manual_seed(0)

    def fill(name: str, shape: list[int]) -> Tensor:
        if name.endswith("num_batches_tracked"):
            return torch.tensor(0)
        if name.endswith(("bn.weight", "running_var")):
            return 0.5 + torch.rand(shape, generator=generator)
        # He's initialisation keeps the activations' scale from layer to layer.
        scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        return scale * torch.randn(shape, generator=generator)

    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save({name: fill(name, shape) for name, shape in shapes.items()}, path)
    return path


@pytest.fixture(scope="module")
def sets(shared_data: Path) -> tuple[Tensor, Tensor]:
    """Two sets of photographs, 8 bits, `(N, 3, 32, 32)`; the second one is darkened."""
    with np.load(shared_data / "cifar10_train_first4000.npz", allow_pickle=False) as archive:
        images = torch.from_numpy(archive["images"][:26].transpose(0, 3, 1, 2).copy())
    return images[:12], images[12:] // 3


BATCH = 8  # divides neither set


def png_folder(images: Tensor, folder: Path) -> Path:
    folder.mkdir()
    for number, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def ours(sets: tuple[Tensor, Tensor], weights: Path) -> list[Moments]:
    extractor = build(Inception().of(weights), "cpu")
    return [feature_set(torch.split(images, BATCH), extractor).moments for images in sets]


@pytest.fixture(scope="module")
def theirs(
    sets: tuple[Tensor, Tensor], weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[np.ndarray]:
    """What pytorch-fid reads from the same images as PNG files and makes of them."""
    from pytorch_fid.fid_score import get_activations
    from pytorch_fid.inception import InceptionV3

    state = torch.load(weights, weights_only=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytorch_fid.inception.load_state_dict_from_url", lambda *_, **__: state)
        network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
    activations = []
    for images in sets:
        files = sorted(png_folder(images, tmp_path_factory.mktemp("png") / "set").iterdir())
        activations.append(get_activations(files, network, BATCH, 2048, "cpu", num_workers=0))
    return activations


def test_our_moments_are_those_of_pytorch_fids_activations(
    ours: list[Moments], theirs: list[np.ndarray]
) -> None:
    for found, activations in zip(ours, theirs, strict=True):
        assert found.count == len(activations)
        covariance = np.cov(activations, rowvar=False)
        np.testing.assert_allclose(found.mean, activations.mean(0), rtol=1e-4, atol=1e-5)
        gap = np.linalg.norm(found.covariance.numpy() - covariance)
        assert gap < 1e-4 * np.linalg.norm(covariance)


@peer_runs
@peer_warns
@pytest.mark.filterwarnings("ignore:Matrix is (singular|ill-conditioned)")
def test_our_path_equals_pytorch_fids_on_the_same_png_files(
    ours: list[Moments], theirs: list[np.ndarray]
) -> None:
    from pytorch_fid.fid_score import calculate_frechet_distance

    # Its matrix root of a singular product takes a minute at 2048 features. A rotation leaves the
    # distance as it is, and so does dropping the directions in which all activations are 0.
    basis = np.linalg.qr(np.concatenate(theirs).T).Q
    inside = [activations @ basis for activations in theirs]
    expected = calculate_frechet_distance(
        *(moment for rows in inside for moment in (rows.mean(0), np.cov(rows, rowvar=False)))
    )
    assert expected > 1
    assert between(*ours) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@peer_runs
def test_our_path_equals_pytorch_fids_command(
    sets: tuple[Tensor, Tensor], ours: list[Moments], weights: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"TORCH_HOME": str(tmp_path / "torch")}
    cached = tmp_path / "torch" / "hub" / "checkpoints" / Inception.file
    cached.parent.mkdir(parents=True)
    cached.symlink_to(weights)
    folders = [
        str(png_folder(images, tmp_path / name)) for name, images in zip("ab", sets, strict=True)
    ]
    command = [sys.executable, "-m", "pytorch_fid", *folders, "--batch-size", str(BATCH)]
    done = subprocess.run(
        [*command, "--device", "cpu", "--num-workers", "0"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert between(*ours) == pytest.approx(float(done.stdout.split("FID:")[1]), rel=1e-3)
