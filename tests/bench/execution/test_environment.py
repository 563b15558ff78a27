"""Where a number comes from, and which process may load what."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import processor
from bench.devices import cores
from bench.execution import environment
from bench.execution.chains import BY_HAND
from bench.execution.messages import Task
from bench.grid.expand import Row

ROOT = Path(__file__).resolve().parents[3]

PARENT = """
import sys
from bench.cli.app import main
sys.argv[0] = "sigma-bench"
try:
    main()
finally:
    print(sorted({"torch", "torchvision"} & sys.modules.keys()))
"""

WORKER = """
import json, sys
from pathlib import Path
from bench.execution.messages import Task
from bench.execution.worker import Worker
from bench.records.store import Store
task = Task.read(json.load(sys.stdin))
last = Worker("cpu").attempt(task, Store.open(Path("r"), "small"), lambda message: None)
print(last.content["status"], sorted({"torch._dynamo", "torchvision"} & sys.modules.keys()))
"""


def test_a_record_names_the_commit_of_the_checkout() -> None:
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(words, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("the tests do not run in a checkout")
    told = environment.describe("cpu")
    assert told["commit"] == head.stdout.strip()
    assert told["versions"]["torch"] == torch.__version__.partition("+")[0]


@pytest.mark.parametrize(
    "words", [["run", "--dry-run"], ["status"], ["run", "--track", "tensorboard:t"]]
)
def test_the_parent_never_imports_torch(
    words: list[str], write_grid: Callable[..., Path], tmp_path: Path, session_cache: Path
) -> None:
    if "--track" in words:
        pytest.importorskip("tensorboard")
    grid = write_grid(decoders=["optimal"])
    asked = [words[0], str(grid), "--results", "r", "--device", "cpu", *words[1:]]
    done = subprocess.run(
        [sys.executable, "-c", PARENT, *asked],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SIGMA_BENCH_CACHE": str(session_cache)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_worker_trains_and_measures_without_torchs_compiler(
    expand: Callable[..., list[Row]], tmp_path: Path
) -> None:
    """Its import takes a second, and that of torchvision contains it."""
    rows = expand(decoders=["optimal"])
    task = Task(rows[0].runs[0], BY_HAND)
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=json.dumps(task.dump()),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "completed []"


def test_a_permitted_instruction_set_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in processor.INSTRUCTION_SETS:
        monkeypatch.delenv(name, raising=False)
    assert "instruction_sets" not in environment.describe("cpu")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert environment.describe("cpu")["instruction_sets"] == {"ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("sse2 avx2", "A Processor with AVX2, "),
        ("avx2 avx512f", "A Processor with AVX-512, "),
        ("avx512_bf16 avx512f avx2", "A Processor with AVX512-BF16, "),
        ("avx2 avx512_bf16 amx_bf16", "A Processor with AMX, "),
        ("sse2", "A Processor, "),
        (None, "A Processor, "),
    ],
)
def test_processors_of_one_name_and_unlike_speed_are_two_devices(
    monkeypatch: pytest.MonkeyPatch, flags: str | None, name: str
) -> None:
    told = {"model name": "A Processor", "flags": flags}
    monkeypatch.setattr(processor, "field", told.get)
    environment._processor.cache_clear()
    assert environment.describe("cpu")["device"] == f"{name}{cores()} cores"
    environment._processor.cache_clear()
