"""What the processor is, and that its rates are measured once, apart, and told without torch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import processor


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Each test asks anew."""
    processor.bfloat16_gain.cache_clear()
    yield
    processor.bfloat16_gain.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path))
    return tmp_path / "products"


def test_fields_are_of_the_first_processor() -> None:
    told = Path("/proc/cpuinfo")
    if not told.exists():
        pytest.skip("no /proc/cpuinfo")
    for line in told.read_text().split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        if value.strip():
            assert processor.field(name.strip()) == value.strip()
    assert processor.field("no such field") is None


def test_rates_are_of_one_thread_and_leave_the_number_alone() -> None:
    before = torch.get_num_threads()
    found = processor.rates("cpu", 256)
    assert set(found) == {"float32", "bfloat16"}
    assert all(1e7 < rate < 1e14 for rate in found.values())
    assert torch.get_num_threads() == before


def test_the_gain_is_measured_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gain = processor.bfloat16_gain()
    assert gain is not None
    assert gain > 0
    (kept,) = cache.glob("*.json")
    told = json.loads(kept.read_text())
    rates = told["flop_per_second"]
    assert gain == told["bfloat16_gain"] == rates["bfloat16"] / rates["float32"]
    assert told["torch"] == torch.__version__.partition("+")[0]

    monkeypatch.setattr(subprocess, "run", None)  # it would fail if it measured again
    processor.bfloat16_gain.cache_clear()
    assert processor.bfloat16_gain() == gain


@pytest.mark.parametrize("content", ["", "{", "[]", '{"bfloat16_gain": null}'])
def test_a_torn_file_is_measured_again(cache: Path, content: str) -> None:
    processor.bfloat16_gain()
    (kept,) = cache.glob("*.json")
    kept.write_text(content)
    processor.bfloat16_gain.cache_clear()
    again = processor.bfloat16_gain()
    assert again is not None
    assert json.loads(kept.read_text())["bfloat16_gain"] == again


def test_another_instruction_set_is_another_measurement(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor.bfloat16_gain()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    processor.bfloat16_gain.cache_clear()
    processor.bfloat16_gain()
    assert len(list(cache.glob("*.json"))) == 2


@pytest.mark.parametrize("cause", [OSError("no more processes"), None])
def test_what_cannot_be_measured_is_said_and_not_kept(
    cause: OSError | None,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run(*arguments: object, **settings: object) -> None:
        raise cause or subprocess.CalledProcessError(1, "python")

    monkeypatch.setattr(subprocess, "run", run)
    assert processor.bfloat16_gain() is None
    assert "bfloat16 could not be measured" in caplog.text
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "file"))
    assert processor.bfloat16_gain() is not None


def test_it_answers_from_any_folder_without_torch(cache: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from bench.processor import bfloat16_gain; gain = bfloat16_gain(); "
        "print(gain, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    gain, loaded = done.stdout.split()
    assert float(gain) > 0
    assert loaded == "False", done.stderr
