"""Whole evaluations of a model of videos whose predictions are known."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.distributions import Categorical
from baselines.options import DecoderSpec
from bench.data import Dataset
from bench.errors import RequestError
from bench.evaluation.context import Evaluated
from bench.evaluation.evaluate import evaluate
from bench.evaluation.features.base import Extractor
from bench.evaluation.features.video import VideoExtractor, build_video, resolve_video
from bench.metrics import find
from bench.run import Features
from bench.training.checkpoint import Trained
from tests.refusal import refused
from tests.sequences import FUTURE, PAST, clips, dataset, gaussian, run_of, walk
from tests.specs import decoder_spec

FEATURES = Features(name="torchscript", metric="fd_colour", sha256="0" * 64)
LEVEL = 1 / 255


def constant(count: int, frames: int = PAST + FUTURE) -> Tensor:
    """Videos that stand still at a level of their own, 60 to 99 of 255."""
    levels = 60 + torch.arange(count) % 40
    return levels.to(torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, frames, 1, 4, 4).contiguous()


def colour() -> Extractor:
    """Two features of an image: its mean and its spread."""

    def network(images: Tensor) -> Tensor:
        values = images.float().flatten(1) / 255
        return torch.stack([values.mean(1), values.std(1)], 1)

    return Extractor(FEATURES, network, torch.device("cpu"))


def measured(
    spec: DecoderSpec,
    data: Dataset,
    options: dict[str, Any] | None = None,
    extractor: Extractor | None = None,
    videos: VideoExtractor | None = None,
    **evaluation: Any,
) -> Evaluated:
    vae = walk(spec, side=data.test.shape[-1], **options or {})
    features = None if extractor is None else FEATURES
    run = run_of(spec, features=features, **evaluation)
    return evaluate(run, Trained(vae, vae.initial_state()), data, extractor, videos)


def test_every_number_has_an_entry_an_error_and_a_curve() -> None:
    metrics, protocol, curves = measured(gaussian(0.05), dataset(clips(20)), rollouts=4, clips=12)
    own = {name for name in metrics if (entry := find(name)) and entry.home == "prediction"}
    both = {
        f"{name}_{which}" for name in ("psnr", "ssim") for which in ("best_4", "mean_4", "copy")
    }
    scores = {
        f"prediction_{name}{which}"
        for name in ("crps", "calibration_error")
        for which in ("", "_first", "_last")
    }
    assert own == {*both, *scores, "rollout_diversity"}
    assert all(metrics[f"{name}_se"] > 0 for name in own)
    by_horizon = curves["by_horizon"]
    assert by_horizon["horizon"] == [1, 2, 3]
    assert all(len(values) == FUTURE for values in by_horizon.values())
    assert {"crps", "calibration_error", "diversity", "psnr_best", "ssim_copy"} < by_horizon.keys()
    for name, of in (("prediction_crps", "crps"), ("psnr_best_4", "psnr_best")):
        assert metrics[name] == pytest.approx(sum(by_horizon[of]) / FUTURE)
    assert metrics["prediction_crps_last"] == pytest.approx(by_horizon["crps"][-1])
    for which in ("first", "last"):
        assert sum(curves["prediction_pit"][which]) / 20 == pytest.approx(1)
    said = protocol["prediction"]
    assert (said["clips"], said["rollouts"], said["given"], said["predicted"]) == (12, 4, 2, 3)


def test_without_rollouts_there_are_no_measures_of_them() -> None:
    metrics, protocol, curves = measured(gaussian(0.05), dataset(clips(5)))
    assert not any((entry := find(name)) and entry.home == "prediction" for name in metrics)
    assert not {"by_horizon", "prediction_pit"} & curves.keys()
    assert protocol["prediction"]["given"] == PAST


def test_one_rollout_has_no_diversity() -> None:
    metrics, _, curves = measured(gaussian(0.05), dataset(clips(5)), rollouts=1)
    assert metrics["psnr_best_1"] == metrics["psnr_mean_1"]
    assert "rollout_diversity" not in metrics
    assert "diversity" not in curves["by_horizon"]


def test_what_is_no_likelihood_has_pictures_alone() -> None:
    metrics, protocol, curves = measured(decoder_spec("bernoulli"), dataset(clips(5)), rollouts=2)
    assert {"psnr_best_2", "ssim_mean_2", "rollout_diversity"} <= metrics.keys()
    assert not {"prediction_crps", "prediction_calibration_error"} & metrics.keys()
    assert not {"crps", "calibration_error"} & curves["by_horizon"].keys()
    assert "no likelihood" in protocol["prediction"]["absent"]
    assert "prediction_pit" not in curves


def test_values_that_have_a_law_only_given_others_have_no_mixture_of_rollouts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As green of a coupled mixture has, given red; single frames are scored as ever."""
    monkeypatch.setattr(Categorical, "has_marginals", False)
    metrics, protocol, _ = measured(decoder_spec("categorical"), dataset(clips(5)), rollouts=2)
    assert {"psnr_best_2", "rollout_diversity", "crps", "bits_per_dim"} <= metrics.keys()
    assert not {"prediction_crps", "prediction_calibration_error"} & metrics.keys()
    assert "cumulative" in protocol["prediction"]["absent"]


def test_frames_are_compared_with_real_ones_of_their_places() -> None:
    """Still videos, predicted to brighten by 10 levels a frame: h · 10 levels at horizon h.

    Reconstructions follow the true frame before them, so they are 10 levels off.
    """
    drift = 10 * LEVEL
    metrics, protocol, curves = measured(
        gaussian(0.02),
        dataset(constant(40)),
        {"step": 0.0, "drift": drift},
        colour(),
        samples=30,
        batch=7,
    )
    # The model's are of the first 30 clips, whose levels have a mean and a spread of their own.
    levels = constant(40)[:, 0, 0, 0, 0].double() / 255
    bias = levels.mean() - levels[:30].mean()
    apart = levels.std() - levels[:30].std()

    def expected(shift: float) -> float:
        return float((shift - bias) ** 2 + apart**2)

    found = curves["by_horizon"]["fd"]
    assert found == pytest.approx([expected(h * drift) for h in (1, 2, 3)], rel=1e-4)
    near = expected(drift)
    assert metrics["fd_colour_reconstruction"] == pytest.approx(near, rel=0.02)
    assert metrics["fd_colour"] > 3 * near
    # Single pixels of σ = 0.02 leave the spread of a frame.
    assert metrics["fd_colour_sampled"] > metrics["fd_colour"]
    assert {"kd_colour", "precision_colour", "recall_colour"} <= metrics.keys()
    said = protocol["distance"]
    assert (said["samples"], said["real_images"], said["videos"]) == (90, 120, 30)
    assert "rollout" in said["samples_are"]
    assert "places" in said["reconstructions_are"]


def test_the_distance_of_videos_sees_what_changes() -> None:
    """Both see the drift; in the means of frames it is 2, in their changes 1, of 10 levels."""
    drift, data = 10 * LEVEL, constant(40)
    metrics, protocol, _ = measured(
        gaussian(0.02), dataset(data), {"step": 0.0, "drift": drift}, colour(), samples=40
    )
    # Real videos stand still: the changes have no direction among their components.
    assert protocol["distance"]["video_components"] == 1
    assert metrics["fd_video_colour"] == pytest.approx((2 * drift) ** 2, rel=1e-3)


def test_a_longer_horizon_is_compared_with_later_frames() -> None:
    """Videos that brighten by one level a frame, predicted rightly."""
    levels = constant(20, frames=9) + torch.arange(9, dtype=torch.uint8).view(-1, 1, 1, 1)
    metrics, protocol, curves = measured(
        gaussian(0.02),
        dataset(levels),
        {"step": 0.0, "drift": LEVEL, "horizon": 7},
        colour(),
        samples=20,
        rollouts=2,
    )
    assert curves["by_horizon"]["fd"] == pytest.approx([0] * 7, abs=1e-8)
    assert metrics["fd_colour_reconstruction"] == pytest.approx(0, abs=1e-8)
    assert protocol["distance"]["real_images"] == 140
    assert metrics["psnr_copy"] < 45 < 58 < metrics["psnr_best_2"]


def test_cached_features_of_one_place_are_not_those_of_another() -> None:
    """Videos that brighten ever faster, predicted to stand still from three places."""
    frames = torch.tensor([0, 1, 3, 7, 15, 31], dtype=torch.uint8).view(-1, 1, 1, 1)
    data = dataset(constant(20, frames=6) + frames)
    for past in (1, 2, 3):
        options = {"step": 0.0, "past": past, "future": 2}
        curves = measured(gaussian(0.02), data, options, colour(), samples=20, batch=4).curves
        gaps = frames[past : past + 2].double().flatten() - frames[past - 1].item()
        expected = (gaps * LEVEL).square().tolist()
        assert curves["by_horizon"]["fd"] == pytest.approx(expected, rel=1e-3)


def test_temperature_scales_the_noise_of_rollouts() -> None:
    """At horizon h the spread over clips is √(s² + h t² step²)."""
    step = 0.05
    metrics, protocol, _ = measured(
        gaussian(0.02),
        dataset(constant(400)),
        {"step": step},
        colour(),
        samples=400,
        distances=("means",),
        temperatures=(0.01, 2.0),
    )
    assert metrics["fd_colour_t0.01"] < 0.001 * metrics["fd_colour"]
    assert metrics["fd_colour_t2"] > 3 * metrics["fd_colour"]
    assert "rollouts" in protocol["distance"]["tempered_are"]


# -- the Fréchet video distance --------------------------------------------------------------------


class Ends(nn.Module):
    """Called as the published I3D; the mean of the first, and of the last, frame."""

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        if rescale or resize or not return_features:
            raise RuntimeError("called otherwise")
        if x.shape[1] != 3 or x.shape[3] != 224 or x.shape[4] != 224:
            raise RuntimeError("of another shape")
        return torch.stack([x[:, :, 0].mean((1, 2, 3)), x[:, :, -1].mean((1, 2, 3))], 1)


class Flat(nn.Module):
    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        return x.mean()


def script(module: nn.Module, folder: Path) -> Path:
    path = folder / f"{type(module).__name__.lower()}.pt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.script")
        torch.jit.script(module).save(str(path))
    return path


def test_an_i3d_sees_whole_videos_between_minus_one_and_one(tmp_path: Path) -> None:
    chosen = resolve_video(str(script(Ends(), tmp_path)))
    assert (chosen.name, chosen.metric, len(chosen.sha256)) == ("i3d", "fvd", 64)
    videos = torch.zeros(3, 5, 1, 8, 8, dtype=torch.uint8)
    videos[:, -1] = torch.tensor([0, 51, 255], dtype=torch.uint8).view(-1, 1, 1, 1)
    found = build_video(chosen, "cpu")(videos)
    torch.testing.assert_close(found, torch.tensor([[-1, -1], [-1, -0.6], [-1, 1]]))


def test_its_distance_is_of_the_given_and_the_predicted_frames(tmp_path: Path) -> None:
    """First frames agree; the last is 3 · 10 levels too bright, on a range of 2."""
    extractor = build_video(resolve_video(str(script(Ends(), tmp_path))), "cpu")
    metrics, protocol, _ = measured(
        gaussian(0.02),
        dataset(constant(20)),
        {"step": 0.0, "drift": 10 * LEVEL},
        videos=extractor,
        clips=15,
    )
    assert metrics["fvd"] == pytest.approx((2 * 30 * LEVEL) ** 2, rel=1e-4)
    said = protocol["prediction"]["fvd"]
    assert said["weights_sha256"] == extractor.features.sha256
    assert (said["videos"], said["frames"], said["dimension"]) == (15, PAST + FUTURE, 2)
    right = measured(gaussian(0.02), dataset(constant(20)), {"step": 0.0}, videos=extractor)
    assert right.metrics["fvd"] == pytest.approx(0, abs=1e-9)


def test_a_file_that_is_no_such_network_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pt"
    assert str(missing) in refused(lambda: resolve_video(str(missing)))
    text = tmp_path / "text.pt"
    text.write_text("no network")
    assert "TorchScript" in refused(lambda: build_video(resolve_video(str(text)), "cpu"))
    videos = torch.zeros(2, 5, 1, 8, 8, dtype=torch.uint8)
    flat = build_video(resolve_video(str(script(Flat(), tmp_path))), "cpu")
    assert "features (B, F) for videos" in refused(lambda: flat(videos))
    ends = build_video(resolve_video(str(script(Ends(), tmp_path))), "cpu")
    assert "evaluation.fvd" in refused(lambda: ends(videos.expand(-1, -1, 2, -1, -1)))


def test_an_image_network_of_other_keywords_is_refused(tmp_path: Path) -> None:
    network = build_video(resolve_video(str(script(nn.Identity(), tmp_path))), "cpu")
    with pytest.raises(RequestError, match="identity"):
        network(torch.zeros(2, 5, 1, 8, 8, dtype=torch.uint8))
