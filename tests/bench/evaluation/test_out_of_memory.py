"""Where memory runs out fewer are worked on at once, and the numbers stay what they were."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from baselines.build import build_decoder, build_model
from baselines.vae import Vae
from bench.evaluation.calibration import pit_counts
from bench.evaluation.cmmd import cmmd
from bench.evaluation.features.base import Extractor, build
from bench.evaluation.features.cache import feature_set
from bench.evaluation.iwae import importance_weighted
from bench.evaluation.kid import kernel_distance
from bench.evaluation.likelihood import distortion, squared_error
from bench.evaluation.mind import mind
from bench.evaluation.out_of_memory import Chunks
from bench.evaluation.precision_recall import manifold
from bench.evaluation.scorer import Scorer, score
from bench.rng import generator, seeded
from bench.run import Features
from tests.specs import decoder_spec, model_spec

# How many rows a matrix product has decides on some CPUs how it rounds, so what is computed from a
# network's output is equal up to rounding: 1e-7 · √784 = 3e-6 of a float32 sum over an image.
ROUNDING = 1e-5
IMAGES = torch.randint(0, 256, (200, 1, 28, 28), dtype=torch.uint8)
NOISE = torch.randn(200, 3)
FEATURES = Features(name="torchscript", metric="fd_x", sha256="0" * 64, source="x.pt")


def limited(function: Callable[..., Any], most: int) -> Callable[..., Any]:
    """`function`, for which memory suffices while its first argument has up to `most` rows."""

    def call(first: Tensor, *others: Any, **options: Any) -> Any:
        if len(first) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return function(first, *others, **options)

    return call


def scorer(decoder: str, **options: object) -> Scorer:
    torch.manual_seed(0)
    made = build_decoder(decoder_spec(decoder, **options))
    model = build_model(
        model_spec("linear_vae", latent=3), channels=1, resolution=28, outputs=made.outputs
    )
    return Scorer(Vae(model, made), {}, torch.float32)


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scorer, str, int], Scorer]:
    """The same VAE, of which one function raises for more than so many images."""

    def cramp(of: Scorer, place: str, most: int) -> Scorer:
        owner, name = (of.vae.decoder, "forward") if place == "decoder" else (of.vae.model, place)
        monkeypatch.setattr(owner, name, limited(getattr(owner, name), most))
        return replace(of)

    return cramp


# -- the mechanism ---------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 200), most=st.integers(1, 200), first=st.integers(1, 200))
def test_all_items_are_worked_on_by_as_many_as_fit(count: int, most: int, first: int) -> None:
    chunks, items = Chunks(first), torch.arange(count)
    work = limited(lambda part: part, most)
    done = chunks.attempt(count, lambda size: torch.cat([work(p) for p in items.split(size)]))
    assert done.equal(items)
    asked = min(first, count)
    # The largest of its halves that fits, and no smaller one.
    assert chunks.size == first if asked <= most else most / 2 < chunks.size + 0.5 <= most + 0.5


def test_one_warning_is_given_and_the_size_stays(caplog: pytest.LogCaptureFixture) -> None:
    chunks, tried = Chunks(512), []

    def work(size: int) -> int:
        tried.append(size)
        if size > 100:
            raise MemoryError
        return size

    with caplog.at_level(logging.WARNING, "sigma-bench"):
        assert [chunks.attempt(512, work), chunks.attempt(512, work)] == [64, 64]
    assert tried == [512, 256, 128, 64, 64]
    (message,) = (record.getMessage() for record in caplog.records)
    assert "512 at once" in message
    assert "64" in message


def test_what_is_too_much_for_one_item_goes_up() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Chunks(8).attempt(8, lambda size: limited(len, 0)(IMAGES[:size]))


def test_other_errors_go_up_at_once() -> None:
    def work(size: int) -> None:
        tried.append(size)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    tried: list[int] = []
    with pytest.raises(RuntimeError, match="mat1"):
        Chunks(8).attempt(8, work)
    assert tried == [8]


def test_a_failed_attempt_holds_nothing_and_has_drawn_nothing() -> None:
    alive: list[object] = []
    numbers = torch.Generator().manual_seed(0)
    first = torch.rand(4, generator=torch.Generator().manual_seed(0))

    class Big:
        def __init__(self) -> None:
            alive.append(None)

        def __del__(self) -> None:
            alive.pop()

    def work(size: int) -> Tensor:
        assert not alive
        drawn, _held = torch.rand(4, generator=numbers), Big()
        if size > 2:
            raise MemoryError
        return drawn

    assert Chunks(8).attempt(8, work, numbers).equal(first)


# -- what is measured with it ----------------------------------------------------------------------


@pytest.fixture(params=[100, 7, 1])
def most(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("place", ["decoder", "decode", "encode"])
@pytest.mark.parametrize("decoder", ["per_pixel", "bitwise_categorical"])
def test_scores_do_not_follow_the_memory(
    cramped: Callable[[Scorer, str, int], Scorer], decoder: str, place: str, most: int
) -> None:
    """PIT values are randomised for a discrete decoder: the numbers are those of one pass."""

    def measured(of: Scorer) -> Iterator[Tensor]:
        drawing = generator(0, "test")
        measures = {
            "distortion": distortion,
            "squared_error": squared_error,
            "pit": lambda drawn: pit_counts(drawn, drawing),
        }
        found = score(of, IMAGES, 0, "draw", measures, drawing)
        yield from (found["distortion"], found["squared_error"])
        assert found["pit"].sum(1).sub(1).abs().max() < 1e-9
        yield found["pit"].mean(0)

    of = scorer(decoder)
    whole = list(measured(of))
    parts = list(measured(small := cramped(of, place, most)))
    torch.testing.assert_close(parts[:2], whole[:2], rtol=ROUNDING, atol=0)
    # A value next to a cell's edge may fall on its other side: ten of them at most. Other random
    # numbers would move 120 of the 156,800.
    torch.testing.assert_close(parts[2], whole[2], rtol=0, atol=10 / IMAGES.numel())
    assert small.chunks.size <= most


@pytest.mark.parametrize("place", ["decoder", "decode", "encode"])
def test_a_bound_does_not_follow_the_memory(
    cramped: Callable[[Scorer, str, int], Scorer], place: str, most: int
) -> None:
    of = scorer("per_pixel")
    whole = importance_weighted(of, IMAGES[:150], 5, 0)
    # A decoder sees draws and images apart, and the first are fewer.
    parts = importance_weighted(cramped(of, place, min(most, 2)), IMAGES[:150], 5, 0)
    torch.testing.assert_close(parts.log_p, whole.log_p, rtol=ROUNDING, atol=0)
    for name in ("monte_carlo_variance", "effective_draws"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-2, atol=0)


def test_pictures_do_not_follow_the_memory(
    cramped: Callable[[Scorer, str, int], Scorer], most: int
) -> None:
    of = scorer("per_pixel")
    means, again = of.generate(NOISE), of.reconstruct(IMAGES, NOISE)
    small = cramped(of, "decoder", most)
    torch.testing.assert_close(small.generate(NOISE), means)
    torch.testing.assert_close(small.reconstruct(IMAGES, NOISE), again)


@pytest.mark.parametrize(
    ("decoder", "place"),
    [
        ("per_pixel", "decoder"),
        ("bitwise_categorical", "decoder"),
        ("per_pixel", "generate"),
        # Its draws are rejected now and then, so they follow each other in one order only.
        ("student_t", "generate"),
    ],
)
def test_draws_are_the_same_to_the_bit(
    cramped: Callable[[Scorer, str, int], Scorer], decoder: str, place: str, most: int
) -> None:
    of = scorer(decoder)
    for parameter in of.vae.model.parameters():
        nn.init.zeros_(parameter)  # so no CPU's matrix product rounds, whatever its rows
    with seeded(0, "test", device="cpu"):
        whole = of.sample(NOISE)
    with seeded(0, "test", device="cpu"):
        assert cramped(of, place, most).sample(NOISE).equal(whole)


def test_features_do_not_follow_the_memory(most: int) -> None:
    def network(images: Tensor) -> Tensor:
        values = images.float().flatten(1)
        return torch.stack([values.mean(1), values.std(1)], 1)

    wide = Extractor(FEATURES, network, torch.device("cpu"))
    narrow = replace(wide, network=limited(network, min(most, 6)))
    whole, parts = (feature_set(IMAGES.split(120), of) for of in (wide, narrow))
    torch.testing.assert_close(parts.features, whole.features)
    # float64, but of float32 features.
    torch.testing.assert_close(
        parts.moments.covariance, whole.moments.covariance, rtol=ROUNDING, atol=0
    )


def test_a_users_network_that_gets_no_memory_is_not_at_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Brightest(nn.Module):
        forward = staticmethod(limited(lambda images: images.amax((2, 3)), 5))

    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: Brightest())
    extractor = build(FEATURES, "cpu")
    expected = IMAGES[:20].amax((2, 3)).expand(-1, 3) / 255
    torch.testing.assert_close(feature_set([IMAGES[:20]], extractor).features, expected)


def test_distances_do_not_follow_the_memory(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = torch.randn(300, 8), 0.9 * torch.randn(200, 8)
    whole = (*kernel_distance(one, other), *manifold(one, other), cmmd(one, other))
    monkeypatch.setattr(Tensor, "__matmul__", limited(Tensor.__matmul__, most))
    monkeypatch.setattr(Tensor, "topk", limited(Tensor.topk, most))
    parts = (*kernel_distance(one, other), *manifold(one, other), cmmd(one, other))
    assert parts == pytest.approx(whole, rel=1e-9)


def test_directions_do_not_follow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = torch.randn(300, 8), 0.9 * torch.randn(200, 8)
    whole = mind(one, other, directions=100)
    sort = Tensor.sort

    def cramped(values: Tensor, dim: int) -> Any:
        if values.shape[1] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sort(values, dim)

    monkeypatch.setattr(Tensor, "sort", cramped)
    assert mind(one, other, directions=100) == pytest.approx(whole, rel=1e-9)


SCRIPT = """
import re, resource, sys, torch
from pathlib import Path
from baselines.build import build_decoder, build_model
from baselines.options import DECODERS, MODELS
from baselines.vae import Vae
from bench.evaluation.likelihood import distortion
from bench.evaluation.scorer import Scorer, score

decoder = build_decoder(DECODERS["per_pixel"]())
model = build_model(
    MODELS["conv_vae"](width=128, latent=4), channels=1, resolution=28, outputs=decoder.outputs
)
vae = Vae(model, decoder)
scorer = Scorer(vae, vae.initial_state(), torch.float32)
images = torch.randint(0, 256, (128, 1, 28, 28), dtype=torch.uint8)
measure = lambda: score(scorer, images, 0, "draw", {"distortion": distortion})["distortion"]
whole = measure()
score(scorer, images[:1], 0, "draw", {"distortion": distortion})
held = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
# For 128 images a map of 128 channels at their own size is 49 MiB, and the map before it 25: what a
# CPU's convolution needs beside them decides nothing.
resource.setrlimit(resource.RLIMIT_AS, (held + (60 << 20),) * 2)
assert (measure() / whole - 1).abs().max() < 1e-5
print(scorer.chunks.size)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space")
def test_a_process_whose_memory_is_limited_goes_on_with_less() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) < 128
    assert "out of memory with 128 at once" in done.stderr
