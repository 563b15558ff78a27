"""A run's files as bytes come out as they went in, or not at all."""

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.execution.parcel import Torn, pack, sealed, unpack

names = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyz_é", min_size=1, max_size=8), min_size=1, max_size=3
).map("/".join)
files = st.dictionaries(names, st.binary(max_size=200), min_size=1, max_size=5).filter(
    # No name is also a folder's.
    lambda made: not any(one.startswith(f"{other}/") for one in made for other in made)
)


def write(folder: Path, content: dict[str, bytes]) -> list[Path]:
    for name, held in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held)
    return [folder / name for name in content]


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@given(files)
def test_what_is_packed_comes_out(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]
) -> None:
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    unpack(pack(here, write(here, content)), there)
    assert read(there) == content


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(files, st.data())
def test_a_torn_parcel_writes_nothing(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes], data: st.DataObject
) -> None:
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    whole = pack(here, write(here, content))
    torn = whole[: data.draw(st.integers(1, len(whole) - 1))]
    with pytest.raises(Torn):
        unpack(torn, there)
    assert read(there) == {}


@given(files, st.data())
def test_a_changed_byte_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes], data: st.DataObject
) -> None:
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    changed = bytearray(pack(here, write(here, content)))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Torn):
        unpack(bytes(changed), there)
    assert read(there) == {}


def test_an_empty_parcel_has_no_files(tmp_path: Path) -> None:
    assert pack(tmp_path, [tmp_path / "missing"]) == b""
    unpack(b"", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_big_parcel(tmp_path: Path) -> None:
    content = {"runs/a/checkpoint.pt": bytes(range(256)) * (1 << 18)}  # 64 MiB
    unpack(pack(tmp_path / "here", write(tmp_path / "here", content)), tmp_path / "there")
    assert read(tmp_path / "there") == content


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/outside"])
def test_a_parcel_stays_inside_its_folder(name: str, tmp_path: Path) -> None:
    there = tmp_path / "store" / "there"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr(name, b"evil")
    with pytest.raises(Torn, match="outside the store"):
        unpack(sealed(archive.getvalue()), there)
    assert read(tmp_path) == {}


def test_the_record_is_written_last(tmp_path: Path) -> None:
    """Where any other file cannot be written there is no record: the run does not count as done."""
    here, there = tmp_path / "here", tmp_path / "there"
    parcel = pack(here, write(here, {"runs/a/record.json": b"{}", "runs/a/weights": b"w"}))
    (there / "runs" / "a" / "weights").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        unpack(parcel, there)
    assert not (there / "runs" / "a" / "record.json").exists()
