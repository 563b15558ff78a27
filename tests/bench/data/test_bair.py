"""The archive of BAIR robot pushing, in its published form, with few sequences."""

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import bair, fetch, frames, load, prepare
from bench.data.bair import ARCHIVE, FOLDER
from bench.data.images import Images
from tests.bench.data.conftest import Server
from tests.bench.data.examples import example, field, record
from tests.refusal import refused

NOISE = np.random.default_rng(2)
TRAIN = NOISE.integers(0, 256, (14, 30, 64, 64, 3), np.uint8)
TEST = NOISE.integers(0, 256, (3, 30, 64, 64, 3), np.uint8)


def sequence(video: Images) -> bytes:
    """A record: both cameras, the robot's action and place in each frame."""
    features = {}
    for number, image in enumerate(video):
        pixels = image.tobytes()
        features[f"{number}/image_main/encoded"] = field(1, field(1, pixels[::-1]))
        features[f"{number}/image_aux1/encoded"] = field(1, field(1, pixels))
        features[f"{number}/action"] = field(2, field(1, bytes(16)))
        features[f"{number}/endeffector_pos"] = field(2, field(1, bytes(12)))
    return record(example(features))


def archive(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        for name, held in files.items():
            member = tarfile.TarInfo(f"softmotion30_44k/{name}")
            member.size = len(held)
            packed.addfile(member, io.BytesIO(held))
    return content.getvalue()


def files() -> dict[str, bytes]:
    whole = [sequence(video) for video in TRAIN]
    return {
        "train/traj_10_to_13.tfrecords": b"".join(whole[10:]),
        "train/traj_0_to_9.tfrecords": b"".join(whole[:10]),
        "test/traj_0_to_2.tfrecords": b"".join(map(sequence, TEST)),
        "train/notes.txt": b"no records",
    }


@pytest.fixture
def place(raw: Path, cache: Path) -> Path:
    """Where the archive belongs."""
    (raw / FOLDER).mkdir()
    return raw / FOLDER / ARCHIVE


def test_the_archive_is_read_as_it_is_published(place: Path, cache: Path) -> None:
    place.write_bytes(archive(files()))
    dataset = load("bair")
    description = dataset.description
    assert (description.train, description.validation, description.test) == (13, 1, 3)
    assert (description.frames, description.channels, frames("bair")) == (30, 3, 30)
    np.testing.assert_array_equal(dataset.test, TEST.transpose(0, 1, 4, 2, 3))
    seen = {one.tobytes() for part in (dataset.train, dataset.validation) for one in part.numpy()}
    assert seen == {one.tobytes() for one in TRAIN.transpose(0, 1, 4, 2, 3)}
    # Nothing is unpacked, and nothing temporary stays.
    assert {path.name for path in place.parent.iterdir()} == {ARCHIVE}
    assert {path.suffix for path in cache.iterdir()} <= {".npy", ".json", ".lock"}


def test_the_sequences_are_mapped_and_not_held_in_memory(place: Path) -> None:
    place.write_bytes(archive(files()))
    parts = bair.read(64)
    assert isinstance(parts.train, np.memmap)
    assert not list(Path(place.parent).glob("*.partial"))


def test_frames_are_resized(place: Path) -> None:
    place.write_bytes(archive(files()))
    small = load("bair@32").test[1, 29].numpy().transpose(1, 2, 0)
    peer = Image.fromarray(TEST[1, 29]).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small, peer)


def torn(held: bytes) -> bytes:
    return held[:-100]


def flipped(held: bytes) -> bytes:
    middle = len(held) * 5 // 8  # of the third of four records
    return held[:middle] + bytes([held[middle] ^ 4]) + held[middle + 1 :]


def smaller(held: bytes) -> bytes:
    return sequence(TRAIN[0][:, :32, :32])


def shorter(held: bytes) -> bytes:
    return sequence(TRAIN[0][:29])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (torn, "record 4 is torn"),
        (flipped, "the data of record 3 are damaged"),
        (smaller, "'0/image_aux1/encoded' has 3072 bytes instead of 12288"),
        (shorter, "'29/image_aux1/encoded' has 0 bytes instead of 12288"),
    ],
)
def test_damaged_records_are_told_in_one_line(
    place: Path, harm: Callable[[bytes], bytes], reason: str
) -> None:
    name = "train/traj_10_to_13.tfrecords"
    place.write_bytes(archive({**files(), name: harm(files()[name])}))
    message = refused(lambda: prepare("bair"))
    assert f"{ARCHIVE} cannot be used (softmotion30_44k/{name}: {reason})" in message
    assert "`sigma-bench fetch bair`" in message


def test_an_archive_that_is_missing_torn_or_another_is_told(place: Path) -> None:
    assert f"there is no {place}" in refused(lambda: prepare("bair"))
    place.write_bytes(b"no archive" * 100)
    assert "cannot be used" in refused(lambda: prepare("bair"))
    place.write_bytes(archive(files())[: 1 << 20])
    assert "cannot be used" in refused(lambda: prepare("bair"))
    place.write_bytes(archive({"train/x.tfrecords": b""}))
    assert "it has no test/*.tfrecords" in refused(lambda: prepare("bair"))


def test_a_cache_that_is_full_is_told_as_such(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place.write_bytes(archive(files()))
    (tmp_path / "file").touch()
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "file"))
    assert "SIGMA_BENCH_CACHE" in refused(lambda: bair.read(64))


def test_the_archive_is_fetched_with_its_checksum(
    place: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archive(files())
    server.files["x.tar"] = content
    monkeypatch.setattr(bair, "URL", f"{server.url}/x.tar")
    assert "cannot download" in refused(lambda: fetch("bair"))
    assert not place.exists()
    monkeypatch.setattr(bair, "SHA256", hashlib.sha256(content).hexdigest())
    fetch("bair")
    assert place.read_bytes() == content
    server.asked.clear()
    fetch("bair")
    assert not server.asked
    assert prepare("bair").test == 3
