"""A trained run is loaded from its folder alone, and makes the images that its measures saw."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench import data
from bench.errors import RequestError
from bench.evaluation.load import load_run
from bench.evaluation.scorer import Scorer, eight_bit
from bench.grid.expand import Row
from bench.rng import normal
from bench.run import Run
from bench.training.checkpoint import Trained
from bench.training.train import train
from bench.training.weights import load, save


@pytest.fixture
def file(tiny: Path, tmp_path: Path) -> Path:
    """Data that a test may take away."""
    return Path(shutil.copy(tiny, tmp_path / "own.npz"))


@pytest.fixture
def images(file: Path) -> Tensor:
    return data.load(f"npz:{file}").train


@pytest.fixture
def trained(
    expand: Callable[..., list[Row]], images: Tensor, file: Path, tmp_path: Path
) -> tuple[Run, Trained, Path]:
    """A run with state of its decoder and of its model, and its folder."""
    model = {"name": "conv_vae_tf", "width": 2, "latent": 3}
    run = expand(datasets=[f"npz:{file}"], decoders=["optimal"], models=[model])[0].runs[0]
    folder = tmp_path / run.id
    done = train(run, images, folder)
    save(done, folder)
    (folder / "run.json").write_text(json.dumps({"id": run.id, **run.model_dump(mode="json")}))
    return run, done, folder


def test_samples_are_those_of_the_scorer_and_need_no_data(
    trained: tuple[Run, Trained, Path], file: Path, images: Tensor
) -> None:
    run, done, folder = trained
    shape, kept = images.shape[1:], images[:9].clone()
    (elsewhere := folder.parent / "elsewhere").mkdir()
    moved = shutil.move(folder, elsewhere / "run")
    file.unlink()
    loaded = load_run(moved)
    assert loaded.run == run
    scorer = Scorer(done.vae.eval(), done.state, torch.float32)
    noise = normal((5, 3), 7, "samples", device="cpu")
    assert loaded.sample(5, seed=7).equal(scorer.generate(noise))
    assert loaded.sample(5).shape == (5, *shape)
    assert not loaded.sample(5).equal(loaded.sample(5, seed=1))
    again = loaded.reconstruct(kept)
    noise = normal((9, 3), 0, "posterior draw", device="cpu")
    assert again.equal(scorer.reconstruct(kept, noise))
    assert loaded.reconstruct(kept / 255).equal(again)
    assert 0 <= again.min() <= again.max() <= 1


def test_images_of_another_shape_are_refused(trained: tuple[Run, Trained, Path]) -> None:
    with pytest.raises(ValueError, match=r"images are \(N, 1, 28, 28\), not \(2, 28, 28\)"):
        load_run(trained[2]).reconstruct(torch.zeros(2, 28, 28))


def test_what_training_left_is_what_is_loaded(
    trained: tuple[Run, Trained, Path], images: Tensor
) -> None:
    run, done, folder = trained
    again = load(run, folder, images)
    assert again.history == done.history
    for name, value in done.vae.state_dict().items():
        assert again.vae.state_dict()[name].equal(value)
    assert again.state.keys() == done.state.keys()
    assert all(again.state[name].equal(value) for name, value in done.state.items())


def without_shape(path: Path) -> None:
    save_file(load_file(path), path)


def test_weights_of_older_versions_have_the_shape_of_their_data(
    trained: tuple[Run, Trained, Path], file: Path
) -> None:
    folder = trained[2]
    expected = load_run(folder).sample(3)
    without_shape(folder / "weights.safetensors")
    assert load_run(folder).sample(3).equal(expected)
    file.unlink()
    with pytest.raises(RequestError, match=r"without the shape of the images, and the data set"):
        load_run(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def other(path: Path) -> None:
    save_file({"head.weight": torch.zeros(3)}, path, {"image_shape": "[1, 28, 28]"})


@pytest.mark.parametrize(
    ("name", "harm", "says"),
    [
        ("weights.safetensors", Path.unlink, "not kept .*delete the folder"),
        ("weights.safetensors", cut, "cannot be read as trained weights"),
        ("weights.safetensors", lambda path: path.write_bytes(b""), "cannot be read as trained"),
        ("weights.safetensors", other, "holds other weights than the run's"),
        ("history.jsonl", Path.unlink, "No such file"),
        ("run.json", Path.unlink, "No such file"),
        ("run.json", cut, "cannot be read as a run"),
        ("run.json", lambda path: path.write_text("[]"), "no JSON object"),
        ("run.json", lambda path: path.write_text("{}"), "cannot be read as a run"),
    ],
)
def test_a_missing_or_damaged_file_is_told_in_one_line(
    trained: tuple[Run, Trained, Path], name: str, harm: Callable[[Path], object], says: str
) -> None:
    path = trained[2] / name
    harm(path)
    with pytest.raises(RequestError, match=says) as caught:
        load_run(trained[2])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_eight_bits_are_what_a_run_was_trained_on(images: Tensor) -> None:
    assert eight_bit(images / 255).equal(images)
