"""A step: what an eager call and a replay do, and what is left of one that failed."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.decoders.gaussian import OptimalGaussian
from baselines.vae import step_terms
from bench.training import cuda_graph
from bench.training.cuda_graph import WARM_UP, graphed_steps, maybe_graphed
from bench.training.step import scaled
from tests.bench.training.small_training import EVERYTHING, SmallTraining, equal


def test_steps_in_place_are_the_loop_of_functions() -> None:
    """To the bit on one machine: `step_terms`, backward, Adam, and the state passed on."""
    ours, plain = SmallTraining(), SmallTraining()
    adam = torch.optim.Adam(plain.vae.parameters(), lr=0.01, fused=True)
    parameters: dict[str, Tensor] = dict(plain.vae.named_parameters())
    state = plain.vae.initial_state()
    for number in range(5):
        ours.fill(number)
        ours.step()
        chosen, noise = plain.fill(number)
        terms, state = step_terms(plain.vae, parameters, state, scaled(plain.images[chosen]), noise)
        terms.loss.backward()
        adam.step()
        adam.zero_grad()
        assert torch.equal(ours.step.terms, torch.stack([term.detach() for term in terms]))
        for name, value in state.items():
            assert torch.equal(ours.state[name], value)
    for mine, theirs in zip(ours.vae.parameters(), plain.vae.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_step_writes_where_it_wrote_before() -> None:
    """A replayed graph knows addresses, no names."""
    training = SmallTraining()
    training.fill(0)
    training.step()
    tensors = [*training.vae.parameters(), *training.state.values(), training.step.terms]
    before = [value.data_ptr() for value in tensors]
    for number in range(3):
        training.fill(number)
        training.step()
    tensors = [*training.vae.parameters(), *training.state.values(), training.step.terms]
    assert [value.data_ptr() for value in tensors] == before
    assert not any(value.requires_grad for value in training.state.values())


@pytest.mark.parametrize("where", ["forward", "update"])
def test_a_step_that_raised_changed_nothing(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training, undisturbed = SmallTraining(), SmallTraining()
    for number in range(2):
        for each in (training, undisturbed):
            each.fill(number)
            each.step()
    training.fill(2)
    with monkeypatch.context() as patch:
        patch.setattr(OptimalGaussian, where, broken)
        with pytest.raises(RuntimeError, match="a decoder's own"):
            training.step()
    assert equal(training.everything(), undisturbed.everything())
    assert all(parameter.grad is None for parameter in training.vae.parameters())


def broken(*arguments: object) -> None:
    raise RuntimeError("a decoder's own")


STREAM: Any = None
"""No stream: what would use it is replaced."""


class Recorder:
    """A capture without a device: it notes what ran, and in what context."""

    def __init__(self, waits: str | None = None, error: Exception | None = None) -> None:
        self.ran: list[str] = []
        self._waits, self._error, self._where = waits, error, "eager"

    def step(self) -> None:
        self.ran.append(self._where)

    @contextlib.contextmanager
    def aside(self, stream: object) -> Iterator[None]:
        self._where = "aside"
        yield
        self._where = "eager"

    def waits(self, step: Callable[[], None]) -> str | None:
        step()
        return self._waits

    def capture(self, step: Callable[[], None], stream: object) -> Callable[[], None]:
        if self._error is not None:
            raise self._error
        return lambda: self.ran.append("replay")

    def run(self, count: int) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cuda_graph, "on_side_stream", self.aside)
            patch.setattr(cuda_graph, "find_host_sync", self.waits)
            patch.setattr(cuda_graph, "capture", self.capture)
            steps = graphed_steps(self.step, STREAM)
            for _ in range(count):
                next(steps)
        return self.ran


def test_every_call_is_one_step_whatever_becomes_of_the_capture(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warm = ["aside"] * WARM_UP
    with caplog.at_level(logging.WARNING):
        for count in range(6):
            assert Recorder().run(count) == (warm + ["replay"] * 3)[:count]
        assert not caplog.records
        for recorder in (Recorder(waits="a line"), Recorder(error=RuntimeError("no such kernel"))):
            caplog.clear()
            assert recorder.run(6) == warm + ["eager"] * 3
            assert len(caplog.records) == 1
    assert "no such kernel" in caplog.text


def test_the_reason_told_is_the_first_one(caplog: pytest.LogCaptureFixture) -> None:
    """Ending a broken capture raises an error of its own, whose context is the cause."""
    end = RuntimeError("operation failed due to a previous error during capture")
    end.__context__ = TypeError("the cause\nand where to report it")
    with caplog.at_level(logging.WARNING):
        Recorder(error=end).run(WARM_UP + 1)
    assert caplog.messages == [
        "no CUDA graph, so training is slower, with equal numbers: TypeError: the cause"
    ]


def test_a_step_goes_on_after_a_capture_that_failed_inside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the capture did to Python's side (gradients) is undone; the numbers stay."""
    training, undisturbed = SmallTraining(), SmallTraining()

    def capture(step: Callable[[], None], stream: object) -> Callable[[], None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.optimiser, "update", broken)
            step()
        raise AssertionError("unreachable")

    def waits(step: Callable[[], None]) -> None:
        step()

    monkeypatch.setattr(cuda_graph, "on_side_stream", contextlib.nullcontext)
    monkeypatch.setattr(cuda_graph, "find_host_sync", waits)
    monkeypatch.setattr(cuda_graph, "capture", capture)
    steps = graphed_steps(training.step, STREAM)
    for number in range(6):
        training.fill(number)
        next(steps)
        undisturbed.fill(number)
        undisturbed.step()
    assert equal(training.everything(), undisturbed.everything())


def test_no_graph_where_there_is_none_or_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Recorder().step
    assert maybe_graphed(step, torch.device("cpu")) == step
    monkeypatch.setenv("SIGMA_BENCH_GRAPH", "0")
    assert maybe_graphed(step, torch.device("cuda:0")) == step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_a_replayed_step_is_the_eager_one(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    eager, graphed = SmallTraining("cuda:0", **options), SmallTraining("cuda:0", **options)
    advance = maybe_graphed(graphed.step, torch.device("cuda:0"))
    for number in range(WARM_UP + 4):
        eager.fill(number)
        eager.step()
        graphed.fill(number)
        advance()
        torch.testing.assert_close(graphed.everything(), eager.everything())
    assert not caplog.records


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_decoder_that_waits_is_trained_without_a_graph(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = OptimalGaussian.sigma
    monkeypatch.setattr(
        OptimalGaussian,
        "sigma",
        lambda *given: torch.ones((), device="cuda:0") * original(*given).item(),
    )
    training = SmallTraining("cuda:0")
    advance = maybe_graphed(training.step, torch.device("cuda:0"))
    for number in range(WARM_UP + 2):
        training.fill(number)
        advance()
    assert "waits for the device" in caplog.text
    assert torch.rand(2, device="cuda:0").isfinite().all()
