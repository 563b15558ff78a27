"""The README's examples as a user has them: the printed blocks, and the printed command."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def section(title: str) -> str:
    """The text below a heading, up to the next."""
    return README.read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def blocks(title: str) -> dict[str, str]:
    """The code blocks of a section, by language."""
    return dict(re.findall(r"```(\w+)\n(.*?)```", section(title), re.DOTALL))


def run_printed(
    printed: Mapping[str, str], folder: Path, settings: Iterable[str]
) -> subprocess.CompletedProcess[str]:
    """Run the printed command in a folder, on the CPU with two jobs and changed settings."""
    script, *command = shlex.split(printed["console"])
    assert script == "sigma-bench"
    done = subprocess.run(
        [sys.executable, "-m", "bench", *command, "--device", "cpu", "--jobs", "2"]
        + [word for setting in settings for word in ("--set", setting)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(README.parent)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done
