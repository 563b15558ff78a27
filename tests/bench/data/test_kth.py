"""KTH's archives of AVI files: which frames become clips, and of what pixels."""

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.data import fetch, frames, kth, load, prepare
from bench.data.images import Images
from bench.data.kth import FOLDER, FRAMES, RANGES, VIDEOS, clip_starts, decoded, frame_ranges
from tests.bench.data.conftest import Server
from tests.refusal import refused

PERSONS = (16, 17, 20, 21)
"""The last for training, the first and the last for validation, and the first for testing."""


def avi(greys: Images, width: int = 160, height: int = 120) -> bytes:
    """A video in MPEG-4 whose frames are ramps from left to right, shifted by their grey."""
    content = io.BytesIO()
    with av.open(content, mode="w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 4_000_000
        ramp = np.linspace(0, 100, width).astype(np.uint8)
        for grey in greys:
            planes = np.full((height * 3 // 2, width), 128, np.uint8)
            planes[:height] = grey + ramp
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return content.getvalue()


def stretched(luma: npt.NDArray[np.floating[Any]]) -> Images:
    """Full-range grey of 8-bit video levels (ITU-R BT.601)."""
    return ((luma - 16) * 255 / 219).clip(0, 255).round().astype(np.uint8)


def archives(folder: Path) -> None:
    """Two videos a person and action, of 90 frames, of which 1 to 85 have somebody in them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["Training: person11", ""]
    for place, action in enumerate(VIDEOS):
        with zipfile.ZipFile(folder / f"{action}.zip", "w") as packed:
            for person in PERSONS:
                for scene in (1, 2):
                    name = f"person{person:02d}_{action}_d{scene}"
                    greys = np.full(90, 20 + 4 * person + place, np.uint8)
                    packed.writestr(f"{name}_uncomp.avi", avi(greys))
                    lines.append(f"{name}\t\tframes\t1-85")
    lines.append("person13_handclapping_d3 *missing*")
    (folder / RANGES).write_text("\r\n".join(lines))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of few persons."""
    folder = tmp_path_factory.mktemp("kth")
    archives(folder)
    return folder


@pytest.fixture
def place(made: Path, raw: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same where they belong, with as many videos as they should have."""
    (raw / FOLDER).mkdir()
    for path in made.iterdir():
        (raw / FOLDER / path.name).write_bytes(path.read_bytes())
    for action in VIDEOS:
        monkeypatch.setitem(VIDEOS, action, 2 * len(PERSONS))
    return raw / FOLDER


def test_persons_are_split_as_svg_splits_them(place: Path) -> None:
    dataset = load("kth")
    description = dataset.description
    # Each person has 12 videos of 2 clips.
    assert (description.train, description.validation, description.test) == (24, 48, 24)
    assert (description.frames, frames("kth")) == (FRAMES, FRAMES)
    assert tuple(dataset.test.shape) == (24, 40, 1, 64, 64)
    for persons, part in (
        ([16], dataset.train),
        ([17, 20], dataset.validation),
        ([21], dataset.test),
    ):
        # The left end of the middle 120 pixels of 160 is a fifth of the way up the ramp.
        darkest = part.numpy()[:, :, 0, :, 0].mean((1, 2))
        expected = [
            float(stretched(np.array(20 + 4 * person + action + 13.0)))
            for person in persons
            for action in range(6)
        ]
        assert np.abs(np.sort(darkest)[::4] - np.sort(expected)).max() < 3


def test_pixels_are_the_middle_of_the_luma_in_full_range(place: Path) -> None:
    pixels = load("kth").train.numpy()
    luma = np.linspace(0, 100, 160).astype(np.uint8) + 20.0 + 4 * 16
    row = stretched(luma)[None, 20:140].repeat(120, 0)
    peer = np.asarray(Image.fromarray(row).resize((64, 64), Image.Resampling.BILINEAR))
    darkest = pixels[pixels[:, 0, 0].mean((1, 2)).argmin(), 0, 0]
    # The codec loses a little.
    assert np.abs(darkest.astype(int) - peer).mean() < 2


def test_decoding_agrees_with_the_librarys_own_grey() -> None:
    video = avi(np.arange(20, 120, 10, dtype=np.uint8))
    with av.open(io.BytesIO(video), mode="r") as container:
        peer = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    found = decoded(video)
    assert found.shape == (10, 120, 160, 1)
    assert np.abs(found[..., 0].astype(int) - np.stack(peer)).max() <= 1


def test_a_torn_video_yields_the_frames_before() -> None:
    """person01_boxing_d4 is published so."""
    video = avi(np.arange(60, dtype=np.uint8))
    whole, kept = decoded(video), decoded(video[: len(video) // 2])
    assert 10 < len(kept) < 60
    np.testing.assert_array_equal(kept[:-1], whole[: len(kept) - 1])
    for junk in (b"", b"no video" * 100, video[:100]):
        with pytest.raises(ValueError, match=r"no frame"):
            decoded(junk)


def test_a_stretch_behind_the_end_of_a_torn_video_yields_nothing(place: Path) -> None:
    whole = prepare("kth@28").train
    path = place / RANGES
    text = path.read_text()
    path.write_text(
        text.replace("_boxing_d1\t\tframes\t1-85", "_boxing_d1\t\tframes\t1-45, 51-200")
    )
    # Per video of that name: the clip from frame 1, and the one from frame 51.
    assert prepare("kth@28").train == whole
    path.write_text(text.replace("_boxing_d1\t\tframes\t1-85", "_boxing_d1\t\tframes\t52-200"))
    assert prepare("kth@28").train == whole - 2


@given(
    ranges=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 200)), max_size=6).map(
        lambda some: [(first, first + more) for first, more in some]
    )
)
def test_clips_lie_in_stretches_and_share_no_frame(ranges: list[tuple[int, int]]) -> None:
    starts = clip_starts(ranges)
    within = [set(range(first - 1, last)) for first, last in ranges]
    clips = [set(range(start, start + FRAMES)) for start in starts]
    assert all(any(clip <= stretch for stretch in within) for clip in clips)
    assert len(set().union(*clips)) == FRAMES * len(clips)


def test_stretches_apart_hold_as_many_clips_as_fit() -> None:
    assert clip_starts([(1, 120), (200, 238), (300, 339)]) == [0, 40, 80, 299]


def test_the_published_list_is_parsed() -> None:
    """Lines as they are in it: tabs and blanks, stretches out of order, a missing video."""
    text = (
        "Training:   person11, 12, 13\r\n\r\n"
        "person07_handclapping_d2    \tframes\t1-102, 103-248\r\n"
        "person07_jogging_d4\t\tframes\t1-64, 270-332, 194-264, 490-570\r\n"
        "person13_handclapping_d3 *missing*\r\n"
    )
    assert frame_ranges(text) == {
        "person07_handclapping_d2": [(1, 102), (103, 248)],
        "person07_jogging_d4": [(1, 64), (270, 332), (194, 264), (490, 570)],
    }


def test_what_does_not_fit_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(VIDEOS, "walking", 100)
        assert "walking.zip: it holds 8 videos instead of 100" in refused(lambda: prepare("kth"))
    text = (place / RANGES).read_text()
    (place / RANGES).write_text(text.replace("person16_boxing_d1", "person99_boxing_d1"))
    assert "does not list person16_boxing_d1" in refused(lambda: prepare("kth"))
    (place / RANGES).unlink()
    assert f"there is no {place / RANGES}" in refused(lambda: prepare("kth"))
    (place / RANGES).write_text(text)
    content = (place / "boxing.zip").read_bytes()
    (place / "boxing.zip").write_bytes(content[:5000])
    assert "boxing.zip: it is no whole zip file" in refused(lambda: prepare("kth"))
    harmed = bytearray(content)
    harmed[len(content) // 30] ^= 8
    (place / "boxing.zip").write_bytes(harmed)
    message = refused(lambda: prepare("kth"))
    assert "`sigma-bench fetch kth`" in message


def test_a_video_of_another_size_is_told(place: Path) -> None:
    with zipfile.ZipFile(place / "boxing.zip", "w") as packed:
        for number in range(1, 9):
            name = f"person{number:02d}_boxing_d1_uncomp.avi"
            packed.writestr(name, avi(np.zeros(3, np.uint8), width=64, height=48))
    listed = "".join(f"person{number:02d}_boxing_d1 frames 1-3\n" for number in range(1, 9))
    (place / RANGES).write_text(listed)
    assert "a video of 64x48 pixels" in refused(lambda: prepare("kth"))


def test_without_the_decoder_the_error_names_the_extra(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert 'pip install "sigma-vae-bench[video]"' in refused(lambda: prepare("kth"))


def test_fetched_archives_are_whole(
    place: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    server.files |= whole
    monkeypatch.setattr(kth, "URL", f"{server.url}/")
    (place / "running.zip").write_bytes(b"torn")
    (place / "walking.zip").unlink()
    (place / RANGES).unlink()
    fetch("kth")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == whole
    assert sorted(server.asked) == [f"/{RANGES}", "/running.zip", "/walking.zip"]


@pytest.mark.parametrize("name", ["jogging.zip", RANGES])
def test_a_page_instead_of_a_file_is_not_kept(
    name: str, place: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files |= {path.name: path.read_bytes() for path in place.iterdir()}
    server.files[name] = b"<html>moved</html>"
    monkeypatch.setattr(kth, "URL", f"{server.url}/")
    (place / name).unlink()
    assert "try again" in refused(lambda: fetch("kth"))
    assert not (place / name).exists()
