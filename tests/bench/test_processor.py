"""What the processor is, and that its rates are measured once, apart, and told without torch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from bench import processor


class Measured:
    """In place of the process that measures: what it says, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def run(self, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        self.asked += 1
        told = json.dumps({"float32": 100.0 * self.asked, "bfloat16": 150.0 * self.asked**2})
        return subprocess.CompletedProcess("python", 0, told)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured()
    monkeypatch.setattr(subprocess, "run", made.run)
    return made


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


def test_fields_are_of_the_first_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("no /proc/cpuinfo")
    told = Path("/proc/cpuinfo").read_text()  # once, since the clock's rate changes
    monkeypatch.setattr(Path, "read_text", lambda path: told)
    for line in told.split("\n\n")[0].splitlines():
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


def test_the_gain_is_measured_once_and_kept(cache: Path, measured: Measured) -> None:
    assert processor.bfloat16_gain() == 1.5
    (kept,) = cache.glob("*.json")
    told = json.loads(kept.read_text())
    assert told["flop_per_second"] == {"float32": 100, "bfloat16": 150}
    assert told["torch"] == version("torch")
    assert asked_again() == 1.5
    assert measured.asked == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"bfloat16_gain": null}'])
def test_a_torn_file_is_measured_again(cache: Path, measured: Measured, content: str) -> None:
    processor.bfloat16_gain()
    (kept,) = cache.glob("*.json")
    kept.write_text(content)
    assert asked_again() == 3
    assert json.loads(kept.read_text())["bfloat16_gain"] == 3


@pytest.mark.parametrize("name", processor.INSTRUCTION_SETS)
def test_another_instruction_set_is_another_measurement(
    cache: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert processor.bfloat16_gain() == 1.5
    monkeypatch.setenv(name, "AVX2")
    assert asked_again() == 3
    monkeypatch.delenv(name)
    assert asked_again() == 1.5


def asked_again() -> float | None:
    """What the next process hears."""
    processor.bfloat16_gain.cache_clear()
    return processor.bfloat16_gain()


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
    tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "file"))
    assert [processor.bfloat16_gain(), asked_again()] == [1.5, 3]


def test_another_process_measures_from_any_folder_without_torch_in_this_one(
    cache: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; from bench.processor import bfloat16_gain; gain = bfloat16_gain(); "
        "print(gain, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    gain, loaded = done.stdout.split()
    assert loaded == "False", done.stderr
    (kept,) = cache.glob("*.json")
    rates = json.loads(kept.read_text())["flop_per_second"]
    assert float(gain) == rates["bfloat16"] / rates["float32"]
