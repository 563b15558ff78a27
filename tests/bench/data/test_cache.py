"""What lies in the cache is checked before it is believed."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.data import describe, load, prepare
from bench.errors import RequestError


@pytest.fixture(params=["images", "videos"])
def name(tmp_path: Path, cache: Path, request: pytest.FixtureRequest) -> str:
    """A small dataset, prepared."""
    items = np.random.default_rng(0).integers(0, 256, (20, 3, 28, 28), np.uint8)
    if request.param == "videos":
        np.savez(tmp_path / "x.npz", videos=items)
    else:
        np.savez(tmp_path / "x.npz", images=items[:, 0])
    name = f"npz:{tmp_path / 'x.npz'}"
    prepare(name)
    return name


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)


def garble(file: Path) -> None:
    file.write_bytes(b"{]" * 200)


def swap(file: Path) -> None:
    np.save(file, np.load(file)[::-1])


def retype(file: Path) -> None:
    np.save(file, np.load(file).astype(np.int8))


@pytest.mark.parametrize(
    ("suffix", "harm"),
    [
        *((".npy", harm) for harm in (truncate, empty, flip, garble, swap, retype)),
        *((".json", harm) for harm in (truncate, empty, garble)),
    ],
)
def test_a_damaged_file_is_set_aside_and_built_again(
    name: str,
    cache: Path,
    suffix: str,
    harm: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = load(name)
    # Copied, for harm done in place reaches whoever maps the file.
    train, test = whole.train.clone(), whole.test.clone()
    (file,) = cache.glob(f"*{suffix}")
    harm(file)
    harmed = file.read_bytes()
    with caplog.at_level(logging.WARNING, "sigma-bench"):
        again = load(name)
        load(name)
    assert again.description == whole.description
    assert again.train.equal(train)
    assert again.test.equal(test)
    assert [record.name for record in caplog.records] == ["sigma-bench"]
    assert str(file) in caplog.text
    assert file.with_name(f"{file.name}.bad").read_bytes() == harmed


def test_images_of_another_dataset_are_not_believed(
    name: str, tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sidecar and images that agree with each other, but not with what is known of the name."""
    content = prepare("mnist5k").content
    (own,) = cache.glob("npz-*.npy")
    (cache / "mnist5k.npy").write_bytes(own.read_bytes())
    said = json.loads((cache / "mnist5k.json").read_bytes())
    said["facts"] = json.loads(own.with_suffix(".json").read_bytes())["facts"]
    (cache / "mnist5k.json").write_text(json.dumps(said))
    assert load("mnist5k").description.content == content
    assert "set aside" in caplog.text


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_half_a_pair_is_only_unfinished(
    name: str, cache: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a kill between the two files leaves."""
    before = prepare(name)
    (file,) = cache.glob(f"*{suffix}")
    file.unlink()
    assert prepare(name) == before
    assert not caplog.records
    assert not list(cache.glob("*.bad"))


def test_a_whole_pair_is_not_written_again(name: str, cache: Path) -> None:
    stamps = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    load(name)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == stamps


def test_a_whole_pair_is_enough_for_a_cache_that_cannot_be_written(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("filelock.FileLock", refuse)
    assert len(load(name).train) == 14


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(RequestError, match=r"file/data cannot be written .*SIGMA_BENCH_CACHE"):
        load(name)


def test_a_damaged_sidecar_describes_nothing(name: str, cache: Path) -> None:
    (sidecar,) = cache.glob("*.json")
    sidecar.write_text("{")
    assert describe(name) is None


def test_each_split_seed_has_its_own_pair(name: str, cache: Path) -> None:
    assert describe(name, split_seed=1) is None
    other = load(name, split_seed=1)
    assert other.description == describe(name, split_seed=1)
    assert len(list(cache.glob("*.npy"))) == len(list(cache.glob("*.json"))) == 2
    assert not other.test.equal(load(name).test)


def test_the_images_are_mapped_and_a_copy_is_made_of_what_is_written_to(
    name: str, cache: Path
) -> None:
    first, second = load(name), load(name)
    (file,) = cache.glob("*.npy")
    assert str(file) in Path("/proc/self/maps").read_text()
    held, before = file.read_bytes(), second.train.clone()
    first.train.zero_()
    assert second.train.equal(before)
    assert file.read_bytes() == held


def test_whoever_has_the_images_keeps_them_when_the_cache_is_deleted(
    name: str, cache: Path
) -> None:
    dataset = load(name)
    shutil.rmtree(cache)
    assert dataset.train.equal(load(name).train)


def test_processes_that_prepare_at_once_agree(name: str, cache: Path) -> None:
    for file in cache.iterdir():
        file.unlink()
    script = "import sys, bench.data; print(bench.data.prepare(sys.argv[1]).content)"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    results = [process.communicate() for process in processes]
    assert results == [(prepare(name).content + "\n", "")] * 4
    assert not list(cache.glob("*.bad")) + list(cache.glob(".*.partial"))


def test_a_sidecar_without_frames_is_of_images(cache: Path) -> None:
    """As all were before there were sequences: it stays valid, and nothing is written again."""
    before = prepare("mnist5k")
    sidecar = cache / "mnist5k.json"
    said = json.loads(sidecar.read_bytes())
    assert said["facts"].pop("frames") == 1
    sidecar.write_text(json.dumps(said))
    stamps = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert prepare("mnist5k") == before
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == stamps


def test_sequences_larger_than_what_is_copied_at_once(tmp_path: Path, cache: Path) -> None:
    """More frames than images in a piece: one sequence is copied at a time."""
    videos = np.random.default_rng(0).integers(0, 256, (12, 1100, 28, 28), np.uint8)
    np.savez(tmp_path / "long.npz", videos=videos)
    train = load(f"npz:{tmp_path / 'long.npz'}").train
    assert {bytes(one) for one in train.numpy()} <= {bytes(one) for one in videos}
