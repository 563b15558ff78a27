"""Where a number was computed: commit, versions, device; a part of every record."""

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bench import processor
from bench.devices import cores

VERSIONS = ("sigma-vae-bench", "torch", "torchvision", "optuna", "numpy", "scipy", "pytorch-fid")


def describe(device: str) -> dict[str, Any]:
    """Commit, versions and hardware of this process, without the name of a host or a user."""
    on_cuda = device.startswith("cuda")
    return {
        **_source(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: version for name in VERSIONS if (version := _version(name))},
        "device": torch.cuda.get_device_name(device) if on_cuda else _processor(),
        "device_class": "cuda" if on_cuda else "cpu",
        "cuda": torch.version.cuda if on_cuda else None,
        "threads": torch.get_num_threads(),
        **({"instruction_sets": held} if (held := processor.restrictions()) else {}),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def _source() -> dict[str, Any]:
    """The git commit of the checkout that this package is imported from."""
    package = Path(__file__).resolve().parents[1]
    top = _git(package, "rev-parse", "--show-toplevel")
    # An installed package may lie in an environment inside another project's checkout.
    if top is None or Path(top) != package.parent:
        return {"commit": None, "dirty": None}
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(package, "rev-parse", "HEAD"), "dirty": bool(changed)}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _processor() -> str:
    """The processor's name, its fastest instruction set and how many cores this process may use."""
    name = processor.field("model name") or platform.processor() or platform.machine()
    fastest = f" with {found}" if (found := processor.fastest()) else ""
    return f"{name}{fastest}, {cores()} cores"
