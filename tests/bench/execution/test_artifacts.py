"""The pictures of a run: samples at other temperatures, and samples that share levels."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from baselines.build import build_decoder, build_model
from baselines.vae import Vae
from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation.reconstruction import Quality, by_frame, psnr, ssim
from bench.evaluation.rollouts import Rollouts
from bench.evaluation.scorer import Scorer, eight_bit
from bench.execution.artifacts import save, sharing, write_picture
from bench.run import Evaluation, Run, Training
from bench.training.checkpoint import Trained
from tests.sequences import FUTURE, PAST, clips, dataset, gaussian, run_of, walk
from tests.specs import decoder_spec, model_spec

SIDE = 16
MODELS: dict[str, dict[str, object]] = {
    "hierarchical": {"width": 8, "middle": 4, "latent": 2, "groups": "2@1 1@4 1@8"},
    "linear_vae": {"latent": 3},
}


def saved(name: str, folder: Path, temperatures: tuple[float, ...] = ()) -> dict[str, str]:
    torch.manual_seed(0)
    decoder = decoder_spec("gaussian")
    model = model_spec(name, **MODELS[name])
    vae = Vae(
        build_model(model, channels=1, resolution=SIDE, outputs=1),
        build_decoder(decoder),
    )
    images = torch.zeros(40, 1, SIDE, SIDE, dtype=torch.uint8)
    run = Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model,
        decoder=decoder,
        training=Training(),
        evaluation=Evaluation(temperatures=temperatures),
        seed=0,
    )
    made = Description("made", "0" * 64, 1, SIDE, 40, 40, 40)
    trained = Trained(vae.eval(), vae.initial_state())
    return save(run, trained, Dataset(made, images, images, images), folder)


def tiles(path: Path) -> npt.NDArray[np.uint8]:
    """The images of a picture, (rows, 8, SIDE, SIDE)."""
    pixels = np.asarray(Image.open(path).convert("L"))[1:, 1:]
    rows, columns = (side // (SIDE + 1) for side in pixels.shape)
    cells = pixels.reshape(rows, SIDE + 1, columns, SIDE + 1)[:, :-1, :, :-1]
    return cells.transpose(0, 2, 1, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns"), [(7, 3), (6, 3), (2, 5)])
def test_a_sheet_is_that_of_torchvision(
    count: int, columns: int, channels: int, tmp_path: Path
) -> None:
    images = torch.randint(0, 256, (count, channels, 5, 4), dtype=torch.uint8)
    write_picture(tmp_path / "sheet.png", images, columns)
    expected = make_grid(images, nrow=columns, padding=1, pad_value=255).permute(1, 2, 0)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), expected.numpy())


def test_each_row_of_a_hierarchy_shares_more_levels(tmp_path: Path) -> None:
    artifacts = saved("hierarchical", tmp_path)
    rows = tiles(tmp_path / artifacts["groups"])
    assert rows.shape[:2] == (3, 8)
    samples = tiles(tmp_path / artifacts["samples"])
    assert np.array_equal(rows[0], samples[0])
    # The first image lends its levels to the others of each row.
    assert all(np.array_equal(row[0], rows[0, 0]) for row in rows)
    far = np.abs(rows.astype(float) - rows[:1, :1]).mean((1, 2, 3))
    assert far[0] > far[1] > far[2] > 0


def test_a_single_latent_has_no_levels_to_share(tmp_path: Path) -> None:
    assert saved("linear_vae", tmp_path).keys() == {
        "weights", "samples", "reconstructions", "history"
    }  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_near_temperature_zero_samples_are_one_image(name: str, tmp_path: Path) -> None:
    artifacts = saved(name, tmp_path, (1e-6, 0.5))
    warm, half, cold = (
        tiles(tmp_path / artifacts[picture]).astype(float)
        for picture in ("samples", "samples_t0.5", "samples_t1e-06")
    )
    assert warm.shape == half.shape == cold.shape == (8, 8, SIDE, SIDE)
    assert np.array_equal(cold, np.broadcast_to(cold[:1, :1], cold.shape))
    spread = [picture.std((0, 1)).mean() for picture in (warm, half, cold)]
    assert spread[0] > spread[1] > spread[2] == 0


def test_at_most_five_levels_are_fixed() -> None:
    noise = torch.arange(24.0).view(3, 8)
    rows = sharing(noise, {f"{side}x{side}": 1 for side in range(1, 9)}).view(-1, 3, 8)
    assert len(rows) == 1 + 5
    for shared, row in enumerate(rows):
        assert torch.equal(row[:, :shared], noise[:1, :shared].expand(3, -1))
        assert torch.equal(row[:, shared:], noise[:, shared:])


@pytest.mark.parametrize(("side", "measure"), [(8, psnr), (12, ssim)])
def test_a_sheet_shows_the_truth_its_best_its_worst_rollout_and_the_mean(
    side: int, measure: Quality, tmp_path: Path
) -> None:
    spec, videos = gaussian(0.1), clips(6, side=side)
    vae = walk(spec, side=side, step=0.2)
    trained = Trained(vae, vae.initial_state())
    artifacts = save(run_of(spec, rollouts=2), trained, dataset(videos), tmp_path)
    assert artifacts.keys() == {"weights", "rollouts", "reconstructions", "history"}
    columns = PAST + FUTURE
    sheet = np.asarray(Image.open(tmp_path / artifacts["rollouts"]).convert("L"))
    assert sheet.shape == (4 * 4 * (side + 1) + 1, columns * (side + 1) + 1)
    assert (sheet[:: side + 1] == 255).all()
    assert (sheet[:, :: side + 1] == 255).all()
    cells = sheet[1:, 1:].reshape(16, side + 1, columns, side + 1)[:, :-1, :, :-1]
    strips = torch.tensor(cells.transpose(0, 2, 1, 3)).view(4, 4, columns, 1, side, side)
    assert torch.equal(strips[:, 0], videos[:4])
    assert torch.equal(strips[:, :, :PAST], videos[:4, None, :PAST].expand(-1, 4, -1, -1, -1, -1))
    # Two rollouts are measured; four are made to choose from, of the same streams.
    rollouts = Rollouts(Scorer(vae, {}, torch.float32), videos[:4], 0)
    made = rollouts.predicted(slice(None), range(4)).mean.unflatten(0, (4, 4))
    quality = torch.stack([by_frame(measure, videos[:4, PAST:], of).mean(1) for of in made])
    clip = torch.arange(4)
    for strip, chosen in ((1, quality.argmax(0)), (2, quality.argmin(0))):
        assert torch.equal(strips[:, strip, PAST:], eight_bit(made[chosen, clip]))
    assert torch.equal(strips[:, 3, PAST:], eight_bit(made.mean(0)))


def test_reconstructed_frames_stand_beside_the_true_ones(tmp_path: Path) -> None:
    spec, videos = gaussian(0.1), clips(20, side=SIDE)
    vae = walk(spec, side=SIDE, step=0.0)
    trained = Trained(vae, vae.initial_state())
    artifacts = save(run_of(spec), trained, dataset(videos), tmp_path)
    pairs = tiles(tmp_path / artifacts["reconstructions"]).reshape(32, 2, SIDE, SIDE)
    # Without noise a frame is predicted to be the one before it.
    before, after = (videos[:8, part, 0].numpy() for part in (slice(0, -1), slice(1, None)))
    assert np.array_equal(pairs[:, 0], after.reshape(32, SIDE, SIDE))
    assert np.array_equal(pairs[:, 1], before.reshape(32, SIDE, SIDE))
