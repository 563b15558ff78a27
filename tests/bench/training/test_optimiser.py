"""From gradients to parameters: torch's own functions, closed forms, and skipped steps."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from baselines.vae import Terms, step_terms
from bench.run import Training
from bench.training.optimiser import rate_factor
from bench.training.step import scaled
from tests.bench.training.small_training import EVERYTHING, TOTAL, SmallTraining, equal


def terms(value: float = 1.0) -> Tensor:
    return torch.full((len(Terms._fields),), value)


def set_gradients(training: SmallTraining, *values: float) -> list[Tensor]:
    """The first parameters have gradients (v, 0, …), the others zero; returns all parameters."""
    parameters: list[Tensor] = list(training.vae.parameters())
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.zeros_like(parameter)
        if index < len(values):
            parameter.grad.view(-1)[0] = values[index]
    return parameters


def random_gradients(training: SmallTraining, count: int) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        parameters: list[Tensor] = list(training.vae.parameters())
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        yield parameters


@pytest.mark.parametrize(("clip", "expected"), [(1.0, (0.6, 0.8)), (10.0, (3.0, 4.0))])
def test_the_norm_over_all_parameters_is_clipped(
    clip: float, expected: tuple[float, float]
) -> None:
    """(3, 4) has norm 5; Adam's first moment is 1 - β₁ = 0.1 of what it is given."""
    training = SmallTraining(clip=clip)
    set_gradients(training, 3.0, 4.0)
    training.optimiser.update(terms())
    moments = training.optimiser.state_dict()["optimizer"]
    for index, value in enumerate(expected):
        assert moments[index]["exp_avg"].view(-1)[0].item() == pytest.approx(0.1 * value, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {}),
        (torch.optim.AdamW, {"betas": (0.9, 0.9), "weight_decay": 0.1}),
        (torch.optim.AdamW, {"betas": (0.5, 0.99), "weight_decay": 0.0}),
    ],
)
def test_adam_and_adamw_are_torchs(kind: type[torch.optim.Adam], options: dict[str, Any]) -> None:
    """Its implementation for single tensors, on all parameters, and what it keeps of each."""
    training = SmallTraining(optimizer=kind.__name__.lower(), **options)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in training.vae.parameters()]
    peer = kind(copies, lr=0.01, foreach=False, **{"weight_decay": 0.0, **options})
    for parameters in random_gradients(training, 10):
        for copy, parameter in zip(copies, parameters, strict=True):
            copy.grad = None if parameter.grad is None else parameter.grad.clone()
        training.optimiser.update(terms())
        peer.step()
    torch.testing.assert_close(list(training.vae.parameters()), copies)
    kept = training.optimiser.state_dict()["optimizer"]
    torch.testing.assert_close(kept, peer.state_dict()["state"])


def test_the_average_is_the_closed_form() -> None:
    """(1-d) Σ dᵗ⁻ⁱ θᵢ / (1 - dᵗ), which after one step is that step's weights."""
    decay, training = 0.9, SmallTraining(ema=0.9)
    seen: list[list[Tensor]] = []
    for parameters in random_gradients(training, 12):
        training.optimiser.update(terms())
        seen.append([parameter.detach().double() for parameter in parameters])
        weights = [decay ** (len(seen) - 1 - i) for i in range(len(seen))]
        for place, average in enumerate(training.optimiser.state_dict()["average"].values()):
            total = sum((w * step[place] for w, step in zip(weights, seen, strict=True)), start=0.0)
            torch.testing.assert_close(average.double(), total / sum(weights), rtol=1e-5, atol=1e-6)
    averages = [v.clone() for v in training.optimiser.state_dict()["average"].values()]
    training.optimiser.adopt_average()
    assert equal([p.detach() for p in training.vae.parameters()], averages)


def test_without_an_average_the_weights_stay() -> None:
    training = SmallTraining()
    training.advance(0, 1)
    before = training.everything()
    training.optimiser.adopt_average()
    assert equal(training.everything(), before)


COSINE = Training(steps=TOTAL, warm_up=20, schedule="cosine")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Training(), {0: 1.0, 50: 1.0, TOTAL: 1.0}),
        (Training(warm_up=20), {0: 0.05, 9: 0.5, 19: 1.0, 20: 1.0, TOTAL: 1.0}),
        (Training(schedule="cosine"), {0: 1.0, 25: 0.5 + math.sqrt(0.125), 50: 0.5, TOTAL: 0.0}),
        (COSINE, {0: 0.05, 9: 0.5, 20: 1.0, 60: 0.5, TOTAL: 0.0}),
    ],
)
def test_the_schedule_at_its_ends_and_between(
    settings: Training, expected: dict[int, float]
) -> None:
    for step, factor in expected.items():
        found = rate_factor(torch.tensor(float(step)), settings, TOTAL).item()
        assert found == pytest.approx(factor, abs=1e-6)


def test_the_schedule_is_torchs() -> None:
    """From the end of the warm-up on, and in what Adam does: it moves a parameter whose gradient
    never changes by the learning rate."""
    training = SmallTraining(warm_up=20, schedule="cosine")
    copy = torch.nn.Parameter(torch.zeros(()))
    sgd = torch.optim.SGD([copy], lr=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, TOTAL - 20)
    for step in range(TOTAL):
        weight = set_gradients(training, 1.0)[0].view(-1)
        before = weight[0].item()
        training.optimiser.update(terms())
        expected = float(0.01 * (step + 1) / 20)
        if step >= 20:
            expected = float(cosine.get_last_lr()[0])
            sgd.step()
            cosine.step()
        assert before - weight[0].item() == pytest.approx(expected, rel=1e-3, abs=2e-7)


@pytest.mark.parametrize("why", ["large", "nan", "infinite", "terms"])
def test_a_skipped_step_changes_nothing(why: str) -> None:
    """Neither weights, moments, average and counters of the optimiser nor the decoder's state."""
    training = SmallTraining(**EVERYTHING)
    undisturbed = SmallTraining(**EVERYTHING)
    for each in (training, undisturbed):
        each.advance(0, 1)
    value = {"large": 1e7, "nan": math.nan, "infinite": math.inf, "terms": 1.0}[why]
    if why == "terms":
        set_gradients(training, value)
        training.optimiser.update(terms(math.nan))
    else:
        hook = next(training.vae.parameters()).register_hook(lambda g: torch.full_like(g, value))
        training.advance(2)
        hook.remove()
        assert training.step.terms.isnan().all()
    training.optimiser.zero_grad()
    assert training.optimiser.skipped
    assert equal(training.kept(), undisturbed.kept())
    for each in (training, undisturbed):
        each.advance(3)
    assert not training.optimiser.skipped
    assert equal(training.everything(), undisturbed.everything())


def test_flipped_images_are_mirrored() -> None:
    training, plain = SmallTraining(flips=True), SmallTraining()
    chosen, noise = training.fill(0)
    assert training.step.flipped is not None
    assert 0 < training.step.flipped.sum() < len(chosen)
    images = [
        image.flip(-1) if flipped else image
        for image, flipped in zip(plain.images[chosen], training.step.flipped, strict=True)
    ]
    batch = scaled(torch.stack(images))
    parameters: dict[str, Tensor] = dict(plain.vae.named_parameters())
    expected, _ = step_terms(plain.vae, parameters, plain.state, batch, noise)
    training.step()
    torch.testing.assert_close(training.step.terms, torch.stack([t.detach() for t in expected]))


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_no_step_asks_for_a_number(options: dict[str, Any]) -> None:
    """A fake tensor has no values: what would wait for them raises."""
    with FakeTensorMode():
        training = SmallTraining(**options)
        for _ in range(2):
            training.step()
        with pytest.raises(DataDependentOutputException):
            training.step.terms[0].item()


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_no_update_on_a_cuda_device_asks_for_a_number(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as torch can follow it without the device.

    It cannot trace `backward` there, nor its kernel with a learning rate that is a tensor.
    """
    rates: list[Tensor] = []
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *given, lr, **named: rates.append(lr))
    with FakeTensorMode(), torch.device("cuda"):
        training = SmallTraining("cuda", **options)
        for _ in range(2):
            for parameter in training.vae.parameters():
                parameter.grad = torch.zeros_like(parameter)
            training.optimiser.update(terms())
        content = training.optimiser.state_dict()
        moments = [v for entry in content["optimizer"].values() for v in entry.values()]
        kept = [*moments, *content["average"].values(), content["taken"], *rates]
        assert {value.device.type for value in kept} == {"cuda"}
        # The type that the kernel reads.
        assert {rate.dtype for rate in rates} <= {torch.float32}
