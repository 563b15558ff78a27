"""Throw-away data and grids for the tests of the harness."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from bench import plugins
from bench.cli.app import main
from bench.execution.processes import Pool
from bench.grid.expand import Row
from bench.grid.expand import expand as expand_grid
from bench.grid.read import read_grid
from tests.warm import WARM

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def no_plugin_stays() -> Iterator[None]:
    """Plugins are the process's own, hence every test's."""
    yield
    plugins.forget()


@pytest.fixture
def spawned() -> None:
    """Workers start as a user's do; see `tests/warm.py`."""


@pytest.fixture(autouse=True)
def warm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process start fast."""
    if "spawned" not in request.fixturenames:
        monkeypatch.setattr(Pool, "context", WARM)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images of 28x28: two soft shapes and noise; 210 train, 30 validate, 60 test."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.2, 0.8, 28)
    shapes = np.stack([np.add.outer(ramp, ramp) / 2, np.subtract.outer(ramp, ramp) / 2 + 0.5])
    images = shapes[rng.integers(0, 2, 300)] + rng.normal(0, 0.05, (300, 28, 28))
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    np.savez(path, images=(images.clip(0, 1) * 255).round().astype(np.uint8))
    return path


@pytest.fixture
def write_grid(tmp_path: Path, tiny: Path) -> Callable[..., Path]:
    """Write a small, fast grid; keywords replace its keys, and None takes one out."""

    def write(**changes: object) -> Path:
        content = {
            "name": "small",
            "datasets": [f"npz:{tiny}"],
            "models": [{"name": "conv_vae", "width": 2, "latent": 3}],
            "decoders": ["gaussian", "optimal"],
            "seeds": [0],
            "training": {"epochs": 2, "batch": 70, "precision": "float32"},
            "evaluation": {"samples": 0, "iwae": 2, "features": "none"},
            **changes,
        }
        if isinstance(training := content["training"], dict):
            # `auto`, the grid's default, would train in another precision on another CPU.
            content["training"] = {"precision": "float32", **training}
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
        return path

    return write


@pytest.fixture
def expand(write_grid: Callable[..., Path]) -> Callable[..., list[Row]]:
    """The rows of a small grid with its data prepared."""

    def rows(**changes: object) -> list[Row]:
        grid = read_grid(str(write_grid(**changes)))
        return expand_grid(grid, device="cpu", features=None, prepare=True)

    return rows


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`sigma-bench WORDS…` in this process: its exit code, standard output and error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sigma-bench", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run
