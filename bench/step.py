"""One training step on tensors that stay where they are, so that CUDA can replay it as a graph."""

import contextlib
import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from baselines.state import State
from baselines.vae import Terms, Vae, step_terms

logger = logging.getLogger("sigma-bench")

WARM_UP = 3
"""Steps before a capture: in them libraries choose their kernels and Adam makes its moments."""


def scaled(images: Tensor) -> Tensor:
    """8-bit images as float32 in [0, 1], channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


class Step:
    """A training step that reads and writes the same tensors at every call.

    Parameters, the optimiser's moments and the tensors of `state` are changed in place; a call
    waits for the device nowhere.

    Attributes:
        chosen: (B,) int64, where the batch lies in the 8-bit images (N, C, H, W).
        noise: (B, noise_size), standard normal. Both are filled before a call.
        terms: (len(Terms),), what the last call measured.
    """

    def __init__(
        self,
        vae: Vae,
        state: State,
        optimizer: torch.optim.Optimizer,
        images: Tensor,
        batch: int,
        precision: torch.dtype,
    ) -> None:
        device = images.device
        self.chosen = torch.zeros(batch, dtype=torch.int64, device=device)
        self.noise = torch.zeros(batch, vae.model.noise_size, device=device)
        self.terms = torch.zeros(len(Terms._fields), device=device)
        self._images, self._precision = images, precision
        self._vae = vae
        self._parameters: dict[str, Tensor] = dict(vae.named_parameters())
        self._state, self._optimizer = state, optimizer

    def __call__(self) -> None:
        batch = scaled(self._images[self.chosen])
        try:
            terms, state = step_terms(
                self._vae, self._parameters, self._state, batch, self.noise, self._precision
            )
            terms.loss.backward()
            self._optimizer.step()
        finally:
            # Backward writes where there is no gradient and adds where there is one: nothing may
            # be left, of a step that raised or a capture that failed least of all.
            self._optimizer.zero_grad()
        for name, value in state.items():
            self._state[name].copy_(value.detach())
        torch.stack([term.detach() for term in terms], out=self.terms)


def repeated(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`step` as it is on the CPU, and replayed as one CUDA graph from its fourth call on a GPU.

    SIGMA_BENCH_GRAPH=0 in the environment leaves it as it is everywhere.
    """
    if device.type != "cuda" or os.environ.get("SIGMA_BENCH_GRAPH") == "0":
        return step
    stream = torch.cuda.Stream(device)
    return functools.partial(
        next,
        replays(
            step,
            aside=functools.partial(aside, stream),
            waits=synchronisation,
            capture=functools.partial(capture, stream=stream),
        ),
    )


def replays(
    step: Callable[[], None],
    aside: Callable[[], contextlib.AbstractContextManager[None]],
    waits: Callable[[Callable[[], None]], str | None],
    capture: Callable[[Callable[[], None]], Callable[[], None]],
) -> Iterator[None]:
    """One `step` for every item: eagerly at first, then whatever `capture` made of it.

    Arguments:
        aside: the context of an eager step that a capture shall follow.
        waits: takes the last of those steps, and says where it waited for the device.
        capture: the step as a function that repeats it; it executes nothing, raises or not.
    """
    for _ in range(WARM_UP - 1):
        with aside():
            step()
        yield
    with aside():
        reason = waits(step)
    yield
    again = step
    if reason is None:
        try:
            again = capture(step)
        except Exception as error:
            reason = _first_cause(error)
    if reason is not None:
        logger.warning("no CUDA graph, so training is slower, with equal numbers: %s", reason)
    while True:
        again()
        yield


def _first_cause(error: BaseException) -> str:
    # What ends a capture complains of "a previous error", which is the one to tell.
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def aside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on `stream`, after what was asked for before and before what comes later."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def synchronisation(step: Callable[[], None]) -> str | None:
    """Call `step` once; returns where it waited for the device, which no graph can, or None.

    A capture would find that out too, but one that fails leaves torch's allocator and random
    numbers in a state that is hard to mend.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if "called a synchronizing CUDA operation" in str(warning.message):
            return f"{warning.filename}:{warning.lineno} waits for the device"
    return None


_failed: list[torch.cuda.CUDAGraph] = []


def capture(step: Callable[[], None], stream: torch.cuda.Stream) -> Callable[[], None]:
    """`step` as one CUDA graph, which was warmed up on `stream`; nothing is executed.

    Raises:
        Exception: what `step` or the capture raised; all is then as it was before.
    """
    graph = torch.cuda.CUDAGraph()
    # The outer context brings the stream back where an older torch forgets it after a failure.
    with torch.cuda.stream(stream):
        try:
            with torch.cuda.graph(graph, stream=stream):
                step()
        except BaseException:
            # The allocator goes on asking a graph whose capture failed: it must not be freed.
            _failed.append(graph)
            # The default generator goes on believing in the capture: it gets a new inside.
            generator = torch.cuda.default_generators[stream.device.index]
            generator.graphsafe_set_state(torch.Generator(stream.device))
            raise
    return graph.replay
