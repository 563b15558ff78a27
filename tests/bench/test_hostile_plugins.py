"""Plugins that print, leave, change the folder, or forget how scoring differs from training."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import data, plugins
from bench.errors import RequestError
from bench.records.store import Store

Write = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import os, sys
import numpy as np
import torch
from baselines.decoders.base import Decoder
from baselines.options import decoder
from bench.plugins import dataset
"""

ANALYTIC = """
@decoder("analytic")
class Analytic(Decoder):
    def forward(self, output, state, target=None):
        mean = self.mean(output)
        error = (mean - target).square().mean()
        return torch.distributions.Independent(
            torch.distributions.Normal(mean, error.sqrt().expand_as(mean)), 3
        )
"""

LEAVING = """
@decoder("leaving")
class Leaving(Decoder):
    def forward(self, output, state, target=None):
        print("on standard output")
        sys.exit(0)
"""

DEADLY = """
import atexit
os.write(1, b"below Python, at import")
sys.__stdout__.write("by the original stream")
atexit.register(print, "at exit")

@decoder("quitting")
class Quitting(Decoder):
    def forward(self, output, state, target=None):
        os.write(1, b"below Python")
        os.system("echo from a child process")
        os._exit(0)
"""

BLOBS = """
@dataset("{name}")
def blobs():
    {first}
    return np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), np.uint8)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(HEAD + content)
        return path

    return write


def sigma_bench(*words: object, cwd: Path, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_decoder_that_needs_the_target_fails_before_training_and_says_where(
    plugin: Callable[[str], Path], write_grid: Write, tmp_path: Path
) -> None:
    path = plugin(ANALYTIC + LEAVING)
    grid = write_grid(plugins=["mine.py"], decoders=["analytic", "leaving", "gaussian"])
    code, out, err = sigma_bench("run", grid, "--jobs", 1, "--json", cwd=tmp_path)
    assert code == 1
    records = {r["run"]["decoder"]["name"]: r for r in Store(tmp_path / "results/small").records()}
    line = (
        path.read_text().splitlines().index("        error = (mean - target).square().mean()") + 1
    )
    failure = records["analytic"]["failure"]
    assert failure["type"] == "ScoringError"
    assert failure["message"].startswith(f"{path}:{line}: TypeError: ")
    assert failure["message"].endswith(
        "scoring gives no target: σ must come from `state` or a parameter"
    )
    assert "training_seconds" not in records["analytic"]["cost"]
    # sys.exit in a plugin is a failure at once, not a worker that died three times.
    assert records["leaving"]["failure"]["type"] == "SystemExit"
    assert "sys.exit(0) was called" in records["leaving"]["failure"]["message"]
    assert "continuing from its checkpoint" not in err
    assert records["gaussian"]["status"] == "completed"
    # What a plugin prints, in a worker too, is not in the JSON.
    assert len(json.loads(out)) == 3
    assert "on standard output" in err


def test_a_plugin_that_ends_its_worker_fails_at_once_and_is_named(
    plugin: Callable[[str], Path], write_grid: Write, tmp_path: Path
) -> None:
    path = plugin(DEADLY)
    grid = write_grid(plugins=["mine.py"], decoders=["quitting"])
    code, out, err = sigma_bench("run", grid, "--jobs", 1, "--json", cwd=tmp_path)
    assert code == 1
    assert len(json.loads(out)) == 1
    for text in ("at import", "original stream", "at exit", "below Python", "a child process"):
        assert text in err
    (record,) = Store(tmp_path / "results/small").records()
    said = f"its worker left with exit code 0 in the run, as `os._exit` in {path} would"
    assert record["failure"] == {"type": "WorkerDied", "message": said}
    assert "continuing from its checkpoint" not in err


def test_a_plugin_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(RequestError, match="is a pipe; give a file"):
        plugins.load(tmp_path / "pipe.py")


def test_printing_and_another_folder_at_import_change_nothing(
    plugin: Callable[[str], Path], write_grid: Write, tmp_path: Path, tiny: Path
) -> None:
    plugin("print('hello')\nos.chdir('/')\n" + BLOBS.format(name="b", first="os.chdir('/')"))
    grid = write_grid(plugins=["mine.py"], datasets=["b"], decoders=["gaussian"], training={
        "epochs": 1, "batch": 20,
    })  # fmt: skip
    code, out, err = sigma_bench("run", grid, "--dry-run", "--json", cwd=tmp_path)
    assert code == 0, err
    assert len(json.loads(out)) == 1
    assert "hello" in err
    code, _, err = sigma_bench(
        "run", grid.name, "--results", "here", "--jobs", 1, cwd=tmp_path, SIGMA_BENCH_CACHE="cache"
    )
    assert code == 0, err
    assert list((tmp_path / "here" / "small" / "runs").glob("*/*/record.json"))
    assert list((tmp_path / "cache" / "data").glob("*.npy"))
    assert "--results here" in err


@pytest.mark.parametrize("status", ["0", "3"])
def test_a_dataset_that_calls_sys_exit_is_told_in_one_line(
    plugin: Callable[[str], Path], status: str
) -> None:
    path = plugin(BLOBS.format(name="leaves", first=f"sys.exit({status})"))
    plugins.load(path)
    with pytest.raises(RequestError, match=rf":\d+: SystemExit: {status}$"):
        data.prepare("leaves")
