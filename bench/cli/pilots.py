"""The command line of a pilot, and what must hold where one runs."""

from collections.abc import Sequence
from pathlib import Path

from bench.devices import native_bfloat16, resolve_precision
from bench.errors import RequestError
from bench.execution.messages import Keep
from bench.execution.trackers.find import anywhere
from bench.grid.schema import Grid
from bench.run import Features, Run


def settings(
    changes: Sequence[str], grid: Grid, device: str, features: Features | None
) -> list[str]:
    """The changes of a grid as options, and what each `auto` in it means on this engine."""
    words = [word for change in changes for word in ("--set", change)]
    for part, asked in (("training", grid.training), ("evaluation", grid.evaluation)):
        if asked.precision == "auto":
            meant = resolve_precision(asked.precision, device)
            words += ["--set", f"{part}.precision={meant}"]
    if grid.evaluation.features == "auto":
        words += ["--set", f"evaluation.features={features.name if features else 'none'}"]
    return words


def pilot_command(
    grid: str,
    results: Path,
    device: str,
    threads: int,
    per_gpu: int,
    keep: Keep,
    only: Sequence[str],
    track: Sequence[str],
) -> list[str]:
    """The words after `sigma-bench` that start a pilot, but for the settings."""
    words = ["run", grid, "--results", str(results.absolute()), "--device", device]
    words += ["--jobs", str(per_gpu), "--per-gpu", str(per_gpu), "--threads", str(threads)]
    words += ["--keep", keep, "--pilot"]
    words += [word for filter in only for word in ("--only", filter)]
    return words + [word for asked in track for word in ("--track", anywhere(asked))]


def check_precision(run: Run, device: str) -> None:
    """Raise RequestError where a GPU would compute a run's bfloat16 in software."""
    needed = {run.training.precision, run.evaluation.precision}
    if device.startswith("cuda") and "bfloat16" in needed and not native_bfloat16(device):
        raise RequestError(
            f"{device} of this node does not compute bfloat16, which `auto` means on a cluster's "
            "GPUs; --set training.precision=float32 lets it in"
        )
