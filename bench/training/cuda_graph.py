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
    return functools.partial(next, graphed_steps(step, torch.cuda.Stream(device)))


def graphed_steps(step: Callable[[], None], stream: torch.cuda.Stream) -> Iterator[None]:
    """One `step` for every item: eager ones on `stream`, then replays of what was captured there.

    Where the step waits for the device or the capture fails, all steps are eager.
    """
    for _ in range(WARM_UP - 1):
        with on_side_stream(stream):
            step()
        yield
    with on_side_stream(stream):
        reason = find_host_sync(step)
    yield
    again = step
    if reason is None:
        try:
            again = capture(step, stream)
        except Exception as error:
            reason = _first_cause(error)
    if reason is not None:
        logger.warning("no CUDA graph, so training is slower, with equal numbers: %s", reason)
    while True:
        again()
        yield


def _first_cause(error: BaseException) -> str:
    # The error that ends a capture only says "a previous error": that one is the reason.
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def on_side_stream(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on `stream`, after what the current stream has queued and before what follows."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def find_host_sync(step: Callable[[], None]) -> str | None:
    """Call `step` once; returns where it waited for the device, which no graph can, or None.

    A capture would find that out too, but a failed capture leaves torch's allocator and random
    numbers in a state that is hard to repair.
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
    """`step`, warmed up on `stream`, as a function that replays it; nothing is executed here.

    Raises:
        Exception: what `step` or the capture raised; all is then as it was before.
    """
    graph = torch.cuda.CUDAGraph()
    # The outer context restores the stream: an older torch does not after a failed capture.
    with torch.cuda.stream(stream):
        try:
            with torch.cuda.graph(graph, stream=stream):
                step()
        except BaseException:
            # The allocator still refers to a graph whose capture failed: it must not be freed.
            _failed.append(graph)
            # Reset the CUDA generator; it still thinks that a capture is in progress.
            generator = torch.cuda.default_generators[stream.device.index]
            generator.graphsafe_set_state(torch.Generator(stream.device))
            raise
    return graph.replay
