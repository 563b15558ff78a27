"""Whole evaluations of untrained models whose measures are known beforehand."""

import math
import re
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from baselines.build import build_decoder, build_model
from baselines.decoders.base import Decoder
from baselines.models.base import Model
from baselines.options import DecoderSpec
from baselines.state import State
from baselines.vae import Vae
from bench.catalogue import METRICS
from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation import evaluate as evaluate_module
from bench.evaluation.context import Evaluated, EvaluationContext, Scores
from bench.evaluation.evaluate import evaluate
from bench.evaluation.features.base import Extractor
from bench.evaluation.scorer import PosteriorSample
from bench.run import Evaluation, Features, Run, Training
from bench.training.checkpoint import Trained
from tests.specs import decoder_spec, model_spec

SIDE, LATENT = 12, 3
FEATURES = Features(name="torchscript", metric="fd_colour", sha256="0" * 64)


def dataset(images: Tensor) -> Dataset:
    third = len(images) // 3
    made = Description("made", "0" * 64, 1, SIDE, third, third, third)
    return Dataset(made, *images.split(third))


def grey(sigma: float) -> Dataset:
    """300 8-bit images of N(½, σ²), a third of them for testing."""
    rng = torch.Generator().manual_seed(0)
    images = 0.5 + sigma * torch.randn(300, 1, SIDE, SIDE, generator=rng)
    return dataset(images.clamp(0, 1).mul(255).round().to(torch.uint8))


def flat(spec: DecoderSpec, *, outputs: list[float]) -> Trained:
    """A VAE that ignores its images: a posterior equal to the prior and constant outputs."""
    decoder = build_decoder(spec)
    model = build_model(
        model_spec("linear_vae", latent=LATENT),
        channels=1,
        resolution=SIDE,
        outputs=decoder.outputs,
    )
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        constants = torch.tensor(outputs).repeat_interleave(SIDE * SIDE)
        dict(model.named_parameters())["output.bias"].copy_(constants)
    vae = Vae(model, decoder)
    return Trained(vae, vae.initial_state())


def colour() -> Extractor:
    """Three features of an image: its mean, its spread and its brightest value."""

    def network(images: Tensor) -> Tensor:
        values = images.float().flatten(1)
        return torch.stack([values.mean(1), values.std(1), values.amax(1)], 1) / 255

    return Extractor(FEATURES, network, torch.device("cpu"))


def run_of(spec: DecoderSpec, **evaluation: object) -> Run:
    return Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model_spec("linear_vae", latent=LATENT),
        decoder=spec,
        training=Training(),
        evaluation=Evaluation(**{"iwae": 4, "samples": 90, "batch": 40, **evaluation}),
        seed=0,
    )


def measured(spec: DecoderSpec, data: Dataset, outputs: list[float]) -> Evaluated:
    return evaluate(run_of(spec), flat(spec, outputs=outputs), data, None)


def test_a_decoder_that_knows_nothing_needs_8_bits() -> None:
    spec = decoder_spec("categorical")
    rng = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 256, (300, 1, SIDE, SIDE), generator=rng).to(torch.uint8)
    metrics, protocol, curves = measured(spec, dataset(levels), [0.0] * 256)
    assert metrics["bits_per_dim"] == pytest.approx(8, abs=1e-6)
    assert metrics["rate"] == metrics["active_units"] == metrics["effective_latents"] == 0
    for name in ("mutual_information", "mutual_information_upper", "marginal_kl_lower"):
        assert metrics[name] == pytest.approx(0, abs=1e-12)
    assert metrics["neg_log_p"] == pytest.approx(8 * math.log(2) * SIDE**2, rel=1e-6)
    assert metrics["iwae_4_ess"] == pytest.approx(4, rel=1e-5)
    assert metrics["calibration_error"] < 0.02
    # E|X - X'| / 2 of two uniform levels is (256² - 1) / (6 · 256) of a level.
    assert abs(metrics["crps"] - (256**2 - 1) / (6 * 256 * 255)) < 4 * metrics["crps_se"]
    assert metrics["z_variance"] == pytest.approx(1, abs=0.02)
    assert "probability" in protocol["likelihood"]["units"]
    assert protocol["information"]["bound"] == math.log(100)
    assert sum(curves["pit"]) / len(curves["pit"]) == pytest.approx(1)
    assert "pit_density" not in curves
    assert len(curves["coverage"]["nominal"]) == len(curves["coverage"]["observed"])


def test_a_gaussian_on_its_own_data_has_its_entropy_in_bits() -> None:
    """h(N(0, σ²)) + ln 255 nats a value, for σ of many levels."""
    spec = decoder_spec("beta", link="identity", beta=2 * 0.1**2)
    metrics, protocol, curves = measured(spec, grey(0.1), [0.5])
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.1**2)
    assert metrics["neg_log_p"] == pytest.approx(SIDE**2 * entropy, abs=4)
    bits = (entropy + math.log(255)) / math.log(2)
    assert abs(metrics["bits_per_dim"] - bits) < 4 * metrics["bits_per_dim_se"]
    assert metrics["calibration_error"] < 0.01
    # σ / √π of a Gaussian.
    assert abs(metrics["crps"] - 0.1 / math.sqrt(math.pi)) < 4 * metrics["crps_se"]
    assert curves["pit"] == pytest.approx([1] * 20, abs=0.2)
    # A bin has three levels or four.
    assert curves["pit_density"] == pytest.approx([1] * 20, abs=0.4)
    assert "density" in protocol["likelihood"]["units"]


def test_a_constant_reconstructs_with_the_spread_of_its_images() -> None:
    """Without covariance SSIM is C2 / (s² + C2), where equal means leave that alone."""
    metrics, protocol, _ = measured(decoder_spec("beta", beta=0.02), grey(0.1), [0.0])
    assert metrics["psnr"] == pytest.approx(-20 * math.log10(0.1), abs=0.1)
    assert metrics["psnr"] == pytest.approx(-10 * math.log10(metrics["mse"]), abs=0.05)
    assert pytest.approx(metrics["ssim"], abs=0.01) == 0.03**2 / (0.1**2 + 0.03**2)
    assert protocol["reconstruction"]["images"] == 100


def test_what_is_no_likelihood_has_no_measure_of_one() -> None:
    metrics, protocol, curves = measured(decoder_spec("bernoulli"), grey(0.1), [0.0])
    gone = {"neg_log_p", "distortion", "bits_per_dim", "iwae_4"}
    assert not (gone | {"calibration_error", "crps", "z_variance"}) & metrics.keys()
    assert {"rate", "mse", "mutual_information", "neg_log_p_fitted_sigma"} <= metrics.keys()
    assert "no likelihood" in protocol["calibration"]["absent"]
    assert curves.keys() == {"spectrum"}


def test_a_sigma_is_fitted_to_images_that_are_neither_trained_on_nor_scored() -> None:
    """With the mean at ½ it is the validation images' own σ: the other splits are black."""
    spec = decoder_spec("gaussian", link="identity")
    data, sigma = grey(0.1), 0.1
    black = torch.zeros_like(data.train)
    data = Dataset(data.description, black, data.validation, black)
    metrics, protocol, _ = measured(spec, data, [0.5])
    assert metrics["sigma_fitted"] == pytest.approx(sigma, rel=0.02)
    density = 0.5 * math.log(2 * math.pi * sigma**2) + 0.5 * (0.5 / sigma) ** 2
    assert metrics["neg_log_p_fitted_sigma"] == pytest.approx(SIDE**2 * density, rel=0.05)
    assert protocol["likelihood"]["fitted_sigma_split"] == "validation"

    trial = run_of(spec, split="validation")
    metrics = evaluate(trial, flat(spec, outputs=[0.5]), data, None).metrics
    assert metrics["mse"] == pytest.approx(sigma**2, rel=0.04)
    assert not {"sigma_fitted", "neg_log_p_fitted_sigma"} & metrics.keys()
    entropy = SIDE**2 * (0.5 * math.log(2 * math.pi * sigma**2) + 0.5)
    assert metrics["neg_log_p_cross_fitted_sigma"] == pytest.approx(entropy, rel=0.1)


def test_as_many_training_images_as_are_scored_have_a_likelihood_of_their_own() -> None:
    """σ is 0.1 as the decoder has it; the first training images scatter twice as much."""
    spec, sigma = decoder_spec("beta", link="identity", beta=2 * 0.1**2), 0.1
    wide, narrow = grey(0.2).train, grey(sigma)
    train = torch.cat([wide, torch.zeros_like(wide)])
    data = Dataset(narrow.description, train, narrow.validation, narrow.test)
    metrics, protocol, _ = measured(spec, data, [0.5])
    for name, spread in (("neg_log_p", sigma), ("neg_log_p_train", 0.2)):
        density = 0.5 * math.log(2 * math.pi * sigma**2) + 0.5 * (spread / sigma) ** 2
        assert abs(metrics[name] - SIDE**2 * density) < 4 * metrics[f"{name}_se"], name
    assert protocol["likelihood"]["train_images"] == 100

    fewer = Dataset(narrow.description, wide[:30], narrow.validation, narrow.test)
    assert measured(spec, fewer, [0.5]).protocol["likelihood"]["train_images"] == 30
    trial = evaluate(run_of(spec, split="validation"), flat(spec, outputs=[0.5]), data, None)
    assert "neg_log_p_train" not in trial.metrics
    assert "neg_log_p_train" not in measured(decoder_spec("bernoulli"), data, [0.0]).metrics


def test_images_that_the_mean_meets_exactly_have_no_refitted_density() -> None:
    """It is infinite."""
    black = dataset(torch.zeros(30, 1, SIDE, SIDE, dtype=torch.uint8))
    metrics = measured(decoder_spec("gaussian", link="identity"), black, [0.0]).metrics
    assert metrics["sigma_fitted"] == 0
    assert "neg_log_p_fitted_sigma" not in metrics


@pytest.mark.parametrize(("log_sigma", "share"), [(-7.0, 1), (-6.1, 1), (-5.9, 0), (-2.0, 0)])
def test_values_whose_sigma_the_clip_holds_are_counted(log_sigma: float, share: float) -> None:
    """Below the bound a soft clip passes less than half of the gradient."""
    spec = decoder_spec("per_pixel", link="identity", min_log_sigma=-6.0)
    metrics = measured(spec, grey(0.1), [0.5, log_sigma]).metrics
    assert metrics["sigma_at_floor"] == share
    open_below = decoder_spec("per_pixel", link="identity", min_log_sigma=None)
    assert "sigma_at_floor" not in measured(open_below, grey(0.1), [0.5, log_sigma]).metrics


def test_a_bound_says_that_few_draws_count() -> None:
    """Encodings far too wide for their images: of 16 draws one is all of the sum."""
    spec = decoder_spec("beta", link="identity", beta=2 * 0.01**2)
    trained = flat(spec, outputs=[0.5])
    with torch.no_grad():
        trained.vae.model.get_parameter("output.weight").fill_(0.2)
    metrics, protocol, _ = evaluate(run_of(spec, iwae=16), trained, grey(0.1), None)
    assert metrics["iwae_16_ess"] < 1.5
    assert "loose" in protocol["likelihood"]["iwae_bound"]
    # An error of the mean of 100 images that each scatter by far more than a nat.
    assert metrics["iwae_16_monte_carlo_se"] > 1
    well, protocol, _ = measured(spec, grey(0.1), [0.5])
    assert well["iwae_4_ess"] > 3.9
    assert "iwae_bound" not in protocol["likelihood"]


class OffGrid(Decoder):
    """A user's decoder whose distribution has a density and no cumulative distribution."""

    def forward(self, output: Tensor, state: State, target: Tensor | None = None) -> Distribution:
        class Unknown(Normal):
            def cdf(self, value: Tensor) -> Tensor:
                raise NotImplementedError

        class Whole(Distribution):
            has_rsample = False
            log_prob = staticmethod(Independent(Unknown(output, 0.1), 3).log_prob)
            mean, variance = output, torch.full_like(output, 0.01)

        return Whole(output.shape[:1], output.shape[1:], validate_args=False)


def test_a_distribution_without_single_values_keeps_its_other_measures() -> None:
    spec = decoder_spec("beta", link="identity", beta=0.02)
    trained = flat(spec, outputs=[0.5])
    trained.vae.decoder = OffGrid(link="identity")
    metrics, protocol, curves = evaluate(run_of(spec), trained, grey(0.1), None)
    expected = measured(spec, grey(0.1), [0.5]).metrics
    gone = {"bits_per_dim", "calibration_error", "crps", "z_variance"}
    # Means of float32 sums over an image, which the two distributions round in their own ways.
    assert metrics == pytest.approx(
        {k: v for k, v in expected.items() if k.removesuffix("_se") not in gone}, rel=1e-5
    )
    assert "cumulative" in protocol["calibration"]["absent"]
    assert curves.keys() == {"spectrum"}


def test_a_model_without_one_gaussian_latent_has_no_information() -> None:
    spec = decoder_spec("beta", link="identity", beta=0.02)
    trained = flat(spec, outputs=[0.5])
    inner = trained.vae.model

    class Wrapped(nn.Module):
        image_shape, noise_size, parts = inner.image_shape, inner.noise_size, inner.parts
        encode, draw = staticmethod(inner.encode), staticmethod(inner.draw)
        target, scored = staticmethod(inner.target), staticmethod(inner.scored)
        is_sequence, data_shape = inner.is_sequence, inner.data_shape

        def top(self, context: object) -> None:
            return None

    trained.vae.model = cast(Model, Wrapped())
    metrics, protocol, _ = evaluate(run_of(spec), trained, grey(0.1), None)
    own = {metric.name for metric in METRICS if metric.home == "information"}
    assert not own & metrics.keys()
    assert "latent" in protocol["information"]["absent"]


def test_one_image_has_no_information() -> None:
    spec = decoder_spec("beta", link="identity", beta=0.02)
    trained, data = flat(spec, outputs=[0.5]), dataset(grey(0.1).test[:3])
    run = run_of(spec, samples=0, iwae=0)
    metrics, protocol, _ = evaluate(run, trained, data, None)
    assert "mutual_information" not in metrics
    assert "one image" in protocol["information"]["absent"]


def test_distances_tell_means_from_draws() -> None:
    """Means of a flat model are one colour; its draws are the data, with their noise."""
    spec = decoder_spec("beta", link="identity", beta=0.02)
    run, trained = run_of(spec, features=FEATURES), flat(spec, outputs=[0.5])
    metrics, protocol, _ = evaluate(run, trained, grey(0.1), colour())
    means, drawn = metrics["fd_colour"], metrics["fd_colour_sampled"]
    assert means == pytest.approx(metrics["fd_colour_reconstruction"], rel=1e-6)
    assert drawn < 0.001 < 0.05 < means
    assert metrics["kd_colour"] > 10 * metrics["kd_colour_se"] > 0
    # One colour against a spread of σ: along every direction W₂ is at least the spread's part.
    assert metrics["md_colour"] > 0.9 * 3 * means > 100 * metrics["md_colour_floor"]
    assert (metrics["precision_colour"], metrics["recall_colour"]) == (0, 0)
    assert (metrics["density_colour"], metrics["coverage_colour"]) == (0, 0)
    again = evaluate(run, trained, grey(0.1), colour()).metrics
    assert again == metrics  # the same evaluation on the same machine: equal bits
    assert protocol["distance"]["neighbours"] == 3
    assert protocol["distance"]["density_neighbours"] == 5
    means_alone = run_of(spec, features=FEATURES, distances=("means",))
    found = evaluate(means_alone, trained, grey(0.1), colour()).metrics
    assert found == {k: v for k, v in metrics.items() if k not in
                     ("fd_colour_sampled", "fd_colour_reconstruction")}  # fmt: skip


def test_cmmd_is_of_the_published_clip_alone() -> None:
    spec = decoder_spec("beta", link="identity", beta=0.02)
    for metric, expected in (("fd_clip", True), ("fd_clip_0a1b2c3d", False)):
        chosen = Features(name="clip", metric=metric, sha256="c" * 64)
        extractor = Extractor(chosen, colour().network, torch.device("cpu"))
        run = run_of(spec, features=chosen, distances=("means",))
        metrics, _, _ = evaluate(run, flat(spec, outputs=[0.5]), grey(0.1), extractor)
        assert ("cmmd" in metrics, "cmmd_floor" in metrics) == (expected, expected)
        if expected:
            assert 0 <= metrics["cmmd_floor"] < metrics["cmmd"]


def test_the_floor_is_of_the_data_and_no_searchs_concern() -> None:
    spec = decoder_spec("beta", link="identity", beta=0.02)
    run, data = run_of(spec, features=FEATURES), grey(0.1)
    metrics, protocol, _ = evaluate(run, flat(spec, outputs=[0.5]), data, colour())
    assert protocol["distance"]["training_images"] == 90
    # Draws of this decoder have the law of the data, and so have training images.
    assert 0 < metrics["fd_colour_floor"] < 0.001
    assert abs(metrics["kd_colour_floor"]) < metrics["kd_colour"] / 100
    other = evaluate(run, flat(spec, outputs=[0.9]), data, colour()).metrics
    assert other["fd_colour_floor"] == metrics["fd_colour_floor"]
    assert other["fd_colour"] != metrics["fd_colour"]
    many = run_of(spec, features=FEATURES, samples=1000, distances=("means",))
    few = evaluate(many, flat(spec, outputs=[0.5]), data, colour()).protocol["distance"]
    assert (few["samples"], few["training_images"]) == (1000, 100)
    trial = run_of(spec, features=FEATURES, split="validation")
    found = evaluate(trial, flat(spec, outputs=[0.5]), data, colour()).metrics
    assert not [name for name in found if name.endswith("_floor")]


def test_a_module_with_the_two_functions_adds_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its measure shares the one pass; the other numbers stay."""
    spec = decoder_spec("beta", link="identity", beta=0.02)
    before, protocol, curves = measured(spec, grey(0.1), [0.5])

    def darkest(drawn: PosteriorSample) -> Tensor:
        return drawn.images.flatten(1).amin(1)

    def summarise(context: EvaluationContext, scores: Scores) -> Evaluated:
        assert len(scores["darkest"]) == len(context.images)
        found = {"darkest": scores["darkest"].min().item()}
        return Evaluated(found, {"likelihood": {"darkest": "of all"}}, {})

    own = SimpleNamespace(measures=lambda context: {"darkest": darkest}, summarise=summarise)
    monkeypatch.setattr(evaluate_module, "MODULES", (*evaluate_module.MODULES, own))
    data = grey(0.1)
    metrics, more, same = measured(spec, data, [0.5])
    assert metrics == {**before, "darkest": pytest.approx(data.test.min().item() / 255)}
    assert more["likelihood"] == {**protocol["likelihood"], "darkest": "of all"}
    assert same == curves


def test_every_number_is_listed() -> None:
    spec = decoder_spec("beta", link="identity", beta=0.02)
    published = FEATURES.model_copy(update={"metric": "fid"})
    listed = {re.sub(r"<extractor>", "colour", metric.name) for metric in METRICS}
    found: set[str] = set()
    for chosen in (FEATURES, published):
        run = run_of(spec, features=chosen)
        metrics = evaluate(run, flat(spec, outputs=[0.5]), grey(0.1), colour()).metrics
        found |= {name.removesuffix("_se").replace("iwae_4", "iwae_K") for name in metrics}
    assert found - {"iwae_K_monte_carlo"} <= listed
