"""A training step compared with a tutorial's, and with the machine's matrix products."""

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from bench.processor import threads
from bench.run import Precision
from bench.speed.pairs import Arm, Finding, alternate
from bench.speed.plain import Plain
from bench.speed.setting import Setting
from bench.speed.workload import Workload, others, release
from bench.training.checkpoint import Epoch
from bench.training.train import train

WARM = 2
"""Steps of the plain loop before the clock starts; ours has an epoch before it."""

GROUPS = {
    "convolutions and products": r"conv|gemm|::(add|ba)?(d?b?mm)\b|addmm|xmma|cutlass|wgrad|dgrad",
    "optimiser": r"adam|multi_tensor",
    "data": r"::(randperm|randn|normal_|index|index_select|gather)\b|distribution|index_kernel",
}
"""Which operator or kernel is which part of a step, by name; the others are element-wise, sums
and copies."""

REST = "element-wise, sums and copies"
OUTSIDE = "outside operators"


def ours(setting: Setting, work: Workload, precision: Precision) -> Arm:
    """The second epoch of `bench.training.train`; seconds a step."""

    def arm() -> float:
        return _train(setting, work, precision)["seconds"] / setting.size.steps

    return arm


def _train(
    setting: Setting,
    work: Workload,
    precision: Precision,
    on_epoch: Callable[[Epoch], None] = lambda line: None,
) -> Epoch:
    items = work.data(setting.size.steps * work.batch)
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        return train(work.run(precision, epochs=2), items, Path(folder), on_epoch).history[-1]


def plain(setting: Setting, work: Workload) -> Arm:
    """The plain loop's steps after the first few; seconds a step."""
    count = setting.size.steps
    items = work.data((WARM + count) * work.batch)
    loop = Plain.of(work.run("float32", epochs=1), items, setting.device)

    def arm() -> float:
        steps = loop.epoch(items, work.batch)
        for _ in range(WARM):
            next(steps)
        setting.wait()
        start = time.perf_counter()
        for _ in steps:
            pass
        setting.wait()
        return (time.perf_counter() - start) / count

    return arm


def loop(setting: Setting) -> Iterator[Finding]:
    """Row `training`: on a CPU with one thread, as a worker has it, and with all cores."""
    work, precision = release(setting), setting.precision
    for count in _thread_counts(setting):
        with threads(count):
            pairs = alternate(plain(setting, work), ours(setting, work, precision), setting.repeats)
        images = work.batch / min(pairs.ours)
        yield Finding(
            "training" + _on(setting, count),
            "a step: DataLoader of PIL images and ToTensor, float32, contiguous, Adam, loss.item() "
            f"/ ours in {precision}",
            pairs,
            {"threads": count, "images_per_second": images},
            f"ours trains on {images:.0f} images a second at best",
        )


def models(setting: Setting) -> Iterator[Finding]:
    """Row `models`: the same of the hierarchy and the video model, with one thread."""
    precision = setting.precision
    for work in others(setting):
        flops = step_flops(setting, work)
        with threads(1):
            pairs = alternate(plain(setting, work), ours(setting, work, precision), setting.repeats)
            best = 1 / min(peak(setting, getattr(torch, precision))() for _ in range(2))
        items, achieved = work.batch / min(pairs.ours), flops / min(pairs.ours)
        yield Finding(
            f"training, {work.name}" + _on(setting, 1),
            f"a step of `{work.name}`, size tiny, batch {work.batch}, 32x32, as in `training` / "
            f"ours in {precision}",
            pairs,
            {
                f"{work.noun}s_per_second": items,
                "flop_per_step": flops,
                "flop_per_second": achieved,
                "peak_flop_per_second": best,
                "share_of_peak": achieved / best,
            },
            f"ours trains on {items:.0f} {work.noun}s a second at best; {achieved / 1e9:.0f} of "
            f"{best / 1e9:.0f} GFLOP/s",
        )


def _thread_counts(setting: Setting) -> list[int]:
    return [setting.threads] if setting.on_cuda else sorted({1, setting.threads})


def _on(setting: Setting, count: int) -> str:
    if setting.on_cuda:
        return ""
    return f", {count} thread{'s' if count > 1 else ''}"


# -- of what the machine can do ----------------------------------------------------------------


def arithmetic(setting: Setting) -> Iterator[Finding]:
    """Row `arithmetic`: a step's FLOP/s over that of the best of several matrix products."""
    precision = setting.precision
    work = release(setting)
    flops = step_flops(setting, work)
    for count in _thread_counts(setting):
        with threads(count):
            step = ours(setting, work, precision)
            pairs = alternate(
                peak(setting, getattr(torch, precision)),
                lambda step=step: step() / flops,  # type: ignore[misc]
                setting.repeats,
            )
            shares = parts(setting, work, precision)
        achieved, best = 1 / min(pairs.ours), 1 / min(pairs.baseline)
        split = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        yield Finding(
            "arithmetic" + _on(setting, count),
            f"a FLOP in matrix products of {', '.join(map(str, setting.size.products))}, "
            f"{precision} / in our training step: the ratio is the share of the peak",
            pairs,
            {
                "threads": count,
                "flop_per_step": flops,
                "flop_per_second": achieved,
                "peak_flop_per_second": best,
                **{f"share_{name.replace(' ', '_')}": share for name, share in shares.items()},
            },
            f"{achieved / 1e9:.0f} of {best / 1e9:.0f} GFLOP/s; a step's time: {split}",
        )


def step_flops(setting: Setting, work: Workload) -> float:
    """Floating-point operations of the products of one step, forward and backward."""
    items = work.data(work.batch)
    loop = Plain.of(work.run("float32", epochs=1), items, setting.device)
    noise = torch.randn(len(items), loop.vae.model.noise_size, device=setting.device)
    with FlopCounterMode(display=False) as counter:
        loop.step(items / 255, noise)
    return float(counter.get_total_flops())


def peak(setting: Setting, precision: torch.dtype) -> Arm:
    """The best of several square matrix products; seconds per floating-point operation."""
    squares = [
        torch.randn(2, size, size, device=setting.device, dtype=precision)
        for size in setting.size.products
    ]

    def arm() -> float:
        return min(
            setting.timed(lambda pair=pair: pair[0] @ pair[1])() / (2 * len(pair[0]) ** 3)  # type: ignore[misc]
            for pair in squares
            for _ in range(2)
        )

    return arm


def parts(setting: Setting, work: Workload, precision: Precision) -> dict[str, float]:
    """How the time of our steps divides over groups of operators; sums to 1."""
    # Else the profiler writes lines to standard error at each start and stop.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * setting.on_cuda
    profiler = profile(activities=activities)
    told: list[Epoch] = []

    def on_epoch(line: Epoch) -> None:
        told.append(line)
        profiler.start() if len(told) == 1 else profiler.stop()

    seconds = _train(setting, work, precision, on_epoch)["seconds"]
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        if setting.on_cuda != (event.device_type.name == "CUDA"):
            continue
        taken = event.self_device_time_total if setting.on_cuda else event.self_cpu_time_total
        spent[group(event.key)] += taken / 1e6
    # The profiler itself slows operators down; they never take more than everything.
    whole = max(seconds, spent.total())
    shares = {name: spent[name] / whole for name in (*GROUPS, REST)}
    return {**shares, OUTSIDE: 1 - spent.total() / whole}


def group(name: str) -> str:
    """Which part of a step an operator or a kernel is, by its name."""
    for part, pattern in GROUPS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return part
    return REST
