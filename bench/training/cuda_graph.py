"""A training step captured as one CUDA graph."""

import contextlib
import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator

import torch

logger = logging.getLogger("sigma-bench")

WARM_UP = 3
"""Steps before a capture: in them libraries choose their kernels and Adam makes its moments."""


def maybe_graphed(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`step` as it is on the CPU, and replayed as one CUDA graph from its fourth call on a GPU.

    SIGMA_BENCH_GRAPH=0 in the environment leaves it as it is everywhere.
    """
    if device.type != "cuda" or os.environ.get("SIGMA_BENCH_GRAPH") == "0":
        return step
    stream = torch.cuda.Stream(device)
    return functools.partial(
        next,
        graphed_steps(
            step,
            on_side_stream=functools.partial(on_side_stream, stream),
            waits=find_host_sync,
            capture=functools.partial(capture, stream=stream),
        ),
    )


def graphed_steps(
    step: Callable[[], None],
    on_side_stream: Callable[[], contextlib.AbstractContextManager[None]],
    waits: Callable[[Callable[[], None]], str | None],
    capture: Callable[[Callable[[], None]], Callable[[], None]],
) -> Iterator[None]:
    """One `step` for every item: eagerly at first, then whatever `capture` made of it.

    Arguments:
        on_side_stream: the context of an eager step that a capture shall follow.
        waits: takes the last of those steps, and says where it waited for the device.
        capture: the step as a function that repeats it; it executes nothing, raises or not.
    """
    for _ in range(WARM_UP - 1):
        with on_side_stream():
            step()
        yield
    with on_side_stream():
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
def on_side_stream(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on `stream`, after what was asked for before and before what comes later."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def find_host_sync(step: Callable[[], None]) -> str | None:
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
