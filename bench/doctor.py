"""Checks of this machine: what works, and how to repair what does not."""

import importlib.util
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from bench import data
from bench.devices import cuda_capabilities, resolve_precision
from bench.errors import RequestError
from bench.evaluation.features.base import NETWORKS
from bench.files import cache_root
from bench.processor import rates


class Finding(NamedTuple):
    """The result of one check; `broken` keeps the main job from running."""

    verdict: Literal["ok", "note", "broken"]
    what: str
    found: str
    remedy: str = ""


REQUIRED = ("torch", "torchvision", "optuna", "pandas", "scipy", "seaborn", "pytorch-fid")


def examine() -> list[Finding]:
    """All checks, those that others depend on first."""
    findings = [_python(), *_versions()]
    if importlib.util.find_spec("torch") is not None:
        findings += [_torchvision(), *_devices()]
    return [*findings, *_data(), *_features(), _disk()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding(
        "ok" if fits else "note", "python", version, "" if fits else "3.11 to 3.13 are tested"
    )


def _versions() -> list[Finding]:
    findings = []
    for name in REQUIRED:
        try:
            findings.append(Finding("ok", name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            findings.append(Finding("broken", name, "not installed", f"pip install {name}"))
    return findings


def _torchvision() -> Finding:
    try:
        import torchvision.ops  # noqa: F401
    except Exception as error:  # a mismatched pair fails in many ways, always at import
        remedy = "install torch and torchvision together, from the same index"
        return Finding("broken", "torch with torchvision", str(error).splitlines()[0], remedy)
    return Finding("ok", "torch with torchvision", "from one build family")


def _devices() -> list[Finding]:
    import torch

    findings = []
    expected, seen = len(cuda_capabilities()), torch.cuda.device_count()
    if expected == seen:
        names = [torch.cuda.get_device_name(index) for index in range(seen)]
        findings.append(Finding("ok", "CUDA devices", ", ".join(names) or "none: runs use the CPU"))
    else:
        told = f"the driver shows {expected}, torch {seen}"
        findings.append(
            Finding("broken", "CUDA devices", told, "match torch's build and the driver")
        )
    for device in ("cpu", *(f"cuda:{index}" for index in range(seen))):
        precision = resolve_precision("auto", device)
        findings.append(
            Finding("ok", f"{device} precision", f"auto means {precision}; {_speed(device)}")
        )
    return findings


def _speed(device: str) -> str:
    """The rate of a matrix product in both precisions."""
    measured = rates(device, 8192 if device.startswith("cuda") else 1024)
    return ", ".join(f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in measured.items())


def _data() -> list[Finding]:
    findings = []
    for name in data.names():
        # The main job needs the embedded set, so it is read; the others are only looked for.
        remedy = data.remedy(name)
        if name in data.fetchable():
            remedy += ", or set SIGMA_BENCH_DATA to a folder that has it"
        try:
            here = data.prepare(name) if name == "mnist5k" else data.available(name)
        except RequestError as error:
            findings.append(Finding("broken", f"data {name}", "cannot be read", str(error)))
            continue
        if here:
            findings.append(Finding("ok", f"data {name}", "here"))
        else:
            findings.append(Finding("note", f"data {name}", "not here", remedy))
    return findings


def _features() -> list[Finding]:
    findings = []
    for what, network in ((f"features {one.name}", one) for one in NETWORKS if one.automatic):
        try:
            found = network.find(network.name)
        except RequestError as error:
            findings.append(Finding("note", what, "not here", str(error)))
        else:
            metric = found.metric if found else "unknown"
            findings.append(Finding("ok", what, f"here: distances are {metric}"))
    return findings


def _disk() -> Finding:
    root: Path = cache_root()
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free / 1e9
    enough = free > 2
    return Finding(
        "ok" if enough else "note",
        "cache",
        f"{cache_root()}, {free:.0f} GB free",
        "" if enough else "set SIGMA_BENCH_CACHE to a larger disk",
    )
