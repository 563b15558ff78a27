"""The latents in use, of posteriors that are known: counts by hand, whatever the chunks."""

import pytest
import torch
from torch import Tensor

from baselines.build import build_decoder, build_model
from baselines.models.base import Context, Draw, Model, Moments, gaussian_rate
from baselines.state import State
from baselines.vae import Vae
from bench.data import Dataset
from bench.data.dataset import Description
from bench.evaluation import activity
from bench.evaluation.context import Evaluated, EvaluationContext
from bench.evaluation.likelihood import rate_by_part
from bench.evaluation.scorer import Scorer, Summed, score
from bench.run import Evaluation, Run, Training
from tests.specs import decoder_spec, model_spec

SIDE, COUNT = 16, 100
IMAGES = torch.zeros(COUNT, 1, SIDE, SIDE, dtype=torch.uint8)
IMAGES[::2] = 255


Channels = tuple[tuple[float, ...], ...]


class Known(Model):
    """Posteriors N(c ± a, v) by channel, + for a white image and - for a black one."""

    a: Channels = ((0.05, 0.2, 1.0), (0.05, 0.11, 0.2, 0.0, 0.0))
    c: Channels = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0, 0.0))
    v: Channels = ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0, 0.25))
    sides: tuple[int, ...] = (1, 4)

    @property
    def parts(self) -> dict[str, int]:
        return {
            f"{side}x{side}": len(own) * side**2
            for side, own in zip(self.sides, self.a, strict=True)
        }

    @property
    def noise_size(self) -> int:
        return sum(self.parts.values())

    def encode(self, images: Tensor, state: State, *, training: bool) -> tuple[Context, State]:
        return (2 * images.mean((1, 2, 3)) - 1,), {}

    def posteriors(self, sign: Tensor) -> tuple[Moments, ...]:
        def maps(channels: Tensor, side: int) -> Tensor:
            return channels[..., None, None].expand(-1, -1, side, side)

        return tuple(
            (
                maps(torch.tensor(c) + sign[:, None] * torch.tensor(a), side),
                maps(torch.tensor(v).log().expand(len(sign), -1), side),
            )
            for a, c, v, side in zip(self.a, self.c, self.v, self.sides, strict=True)
        )

    def draw(self, context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        posteriors = self.posteriors(context[0])
        rate = torch.stack([gaussian_rate(*part).flatten(1).sum(1) for part in posteriors], dim=1)
        output = noise.new_zeros(len(noise), 1, SIDE, SIDE)
        return Draw(output, rate, rate.sum(1), {}, posteriors)


class Far(Known):
    """The same, far from the prior: a variance of 0.04 beside a squared mean of a million."""

    c = ((1000.0, 1000.0, 1000.0), Known.c[1])


class Single(Known):
    a, c, v, sides = Known.a[:1], Known.c[:1], Known.v[:1], (1,)


class Unknown(Known):
    def draw(self, *args: object, **options: object) -> Draw:
        return super().draw(*args, **options)._replace(posteriors=None)  # type: ignore[arg-type]


def context(model: Model, images: Tensor = IMAGES, most: int = 512) -> EvaluationContext:
    decoder = build_decoder(decoder_spec("gaussian"))
    vae = Vae(model, decoder)
    run = Run(
        dataset="made",
        content="0" * 64,
        split_seed=0,
        model=model_spec("linear_vae"),
        decoder=decoder_spec("gaussian"),
        training=Training(),
        evaluation=Evaluation(),
        seed=0,
    )
    made = Description("made", "0" * 64, 1, SIDE, *3 * (len(images),))
    scorer = Scorer(vae, vae.initial_state(), torch.float32, most)
    return EvaluationContext(run, scorer, Dataset(made, images, images, images), None)


def sums(of: EvaluationContext) -> dict[str, Tensor]:
    return score(of.scorer, of.images, 0, "draw", activity.measures(of))


def counted(of: EvaluationContext) -> Evaluated:
    return activity.summarise(of, sums(of))


def known(kind: type[Model] = Known) -> Model:
    return kind(channels=1, resolution=SIDE)


@pytest.mark.parametrize("kind", [Known, Far])
def test_units_move_and_channels_have_a_rate(kind: type[Model]) -> None:
    """The variance is a²; the rate ½(c² + a² + v - 1 - ln v) a position, of which there are 16.

    Below, a = 0.11 moves with 0.0967 nats, c = 1 stands still with 8, and so does v = ¼ with 5.1.
    """
    metrics, protocol, curves = counted(context(known(kind)))
    far = 2 * (kind is Far)
    assert metrics == {"active_units": 2 + 32, "active_channels": 1 + 3 + far}
    assert protocol == {"activity": {"active_variance": 0.01, "active_channel_rate": 0.1}}
    assert curves["active_by_part"] == {
        "parts": ["1x1", "4x4"],
        "units": [2, 32],
        "channels": [1 + far, 3],
    }


def test_the_sums_are_those_of_the_closed_forms() -> None:
    found = sums(context(known()))
    a, c = (torch.tensor([*x[0], *(of for of in x[1] for _ in range(16))]).double()
            for x in (Known.a, Known.c))  # fmt: skip
    torch.testing.assert_close(found["posterior_mean"], COUNT * c, rtol=1e-6, atol=1e-6)
    square = COUNT * (c**2 + a**2)
    torch.testing.assert_close(found["squared_posterior_mean"], square, rtol=1e-6, atol=1e-6)
    positions = torch.tensor([1, 1, 1, *5 * (16,)])
    v = torch.tensor([*Known.v[0], *Known.v[1]]).double()
    moved = torch.tensor([x**2 for own in (*Known.a, *Known.c) for x in own]).double()
    rates = positions * (moved[:8] + moved[8:] + v - 1 - v.log()) / 2
    # A rate is a float32 difference of numbers near 1.
    torch.testing.assert_close(found["rate_by_channel"], COUNT * rates, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("most", [100, 33, 1])
def test_the_sums_do_not_follow_the_chunks(most: int) -> None:
    whole, parts = sums(context(known())), sums(context(known(), most=most))
    for name, expected in whole.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-6, atol=1e-9)


def test_an_attempt_that_ran_out_of_memory_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of an attempt's parts fails when the first has been measured."""
    of = context(known(), most=50)
    measures, whole = activity.measures(of), sums(of)
    draw, sizes = of.scorer.vae.model.draw, []

    def failing(context: Context, noise: Tensor, state: State, *, training: bool) -> Draw:
        sizes.append(len(noise))
        if len(sizes) in (1, 3):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return draw(context, noise, state, training=training)

    monkeypatch.setattr(of.scorer.vae.model, "draw", failing)
    found = score(of.scorer, of.images, 0, "draw", measures)
    assert sizes == [50, 25, 25, *4 * (12,), 2, *4 * (12,), 2]
    for name, expected in whole.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-9)


def test_one_latent_has_units_alone() -> None:
    metrics, protocol, curves = counted(context(known(Single)))
    assert metrics == {"active_units": 2}
    assert protocol == {"activity": {"active_variance": 0.01}}
    assert curves == {}


def test_one_image_varies_in_nothing_and_an_unknown_posterior_counts_nothing() -> None:
    metrics, _, curves = counted(context(known(), IMAGES[:1]))
    assert metrics == {"active_channels": 4}
    assert curves["active_by_part"] == {"parts": ["1x1", "4x4"], "channels": [1, 3]}
    assert counted(context(known(Unknown))) == ({}, {}, {})


def test_the_variance_is_that_of_the_images() -> None:
    values = 5 + torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)).double()
    found = activity.variance(values.sum(0), values.square().sum(0), 4000)
    torch.testing.assert_close(found, values.var(0))


@torch.no_grad()
@pytest.mark.parametrize("name", ["linear_vae", "conv_vae", "hierarchical"])
def test_every_model_shows_the_posteriors_behind_its_rates(name: str) -> None:
    """Their sizes are the parts'; the rates by channel of a part sum to the part's."""
    torch.manual_seed(0)
    options: dict[str, object] = {"width": 4} if name == "conv_vae" else {}
    if name == "hierarchical":
        options = {"width": 8, "middle": 4, "latent": 2, "groups": "2@1 1@4 2@8"}
    side = 28 if name == "conv_vae" else SIDE
    model = build_model(model_spec(name, **options), channels=1, resolution=side, outputs=1)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randint(0, 256, (20, 1, side, side), dtype=torch.uint8)
    of = context(model, images)
    parts = model.parts
    image = of.scorer.posterior(images[:1], torch.zeros(1, model.noise_size))
    assert image.posteriors is not None
    assert [mean.numel() for mean, _ in image.posteriors] == list(parts.values())
    found = score(of.scorer, images, 0, "draw", {"rate": rate_by_part})["rate"].sum(0)
    measures = {"rates": Summed(activity.rate_by_channel)}
    rates = score(of.scorer, images, 0, "draw", measures)["rates"]
    by_part = torch.stack(
        [own.sum() for own in rates.split([mean.shape[1] for mean, _ in image.posteriors])]
    )
    assert found.min() > 0.01
    torch.testing.assert_close(by_part, found, rtol=1e-5, atol=1e-6)
