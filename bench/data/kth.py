"""The data set `kth`: 25 persons who walk, jog, run, box, wave and clap (Schuldt et al. 2004).

The split is that of SVG (Denton and Fergus 2018, arXiv 1802.07687): persons 1 to 20 are for
training, of whom the last four are for validation here, and persons 21 to 25 for testing.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bench.data.download import Progress, download
from bench.data.fingerprint import Parts, parts_at
from bench.data.images import Images, resize
from bench.data.raw import raw_root, unfit
from bench.errors import RequestError

INSTALL = 'pip install "sigma-vae-bench[video]"'

FOLDER, RANGES = "kth", "00sequences.txt"
URL = "https://www.csc.kth.se/cvap/actions/"

VIDEOS = {
    "boxing": 100,
    "handclapping": 99,  # person13_handclapping_d3 was never published
    "handwaving": 100,
    "jogging": 100,
    "running": 100,
    "walking": 100,
}
"""The archives, and the videos in each."""

SPLITS = (range(1, 17), range(17, 21), range(21, 26))
"""The persons for training, validation and testing."""

SIDE, FRAMES, CROP = 64, 40, 120


def files() -> list[Path]:
    """The archives, and the list of the frames in which there is somebody."""
    folder = raw_root() / FOLDER
    return [*(folder / f"{action}.zip" for action in VIDEOS), folder / RANGES]


def fetch(root: Path, progress: Progress | None) -> None:
    """Download them. No checksums are published: an archive must open and hold all its videos."""
    folder = root / FOLDER
    download([f"{URL}{RANGES}"], folder / RANGES, progress=progress)
    for action in VIDEOS:
        path = folder / f"{action}.zip"
        if path.exists() and _fault(path):
            path.unlink()
        download([f"{URL}{path.name}"], path, progress=progress)
        if fault := _fault(path):
            path.unlink()
            raise RequestError(f"{URL}{path.name}: {fault}; try again")
    if not frame_ranges((folder / RANGES).read_text("latin-1")):
        (folder / RANGES).unlink()
        raise RequestError(f"{URL}{RANGES} lists no video; try again")


def _fault(path: Path) -> str:
    """What is wrong with an archive; empty for nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            found, wanted = len(_members(archive)), VIDEOS[path.stem]
    except (OSError, zipfile.BadZipFile) as error:
        return f"it is no whole zip file ({error})"
    return "" if found == wanted else f"it holds {found} videos instead of {wanted}"


def _members(archive: zipfile.ZipFile) -> dict[str, str]:
    """The videos by their names in the list, as in person01_boxing_d1."""
    named = re.compile(r"(?:.*/)?(person\d\d_[a-z]+_d\d)_uncomp\.avi")
    matches = map(named.fullmatch, archive.namelist())
    return {match[1]: match[0] for match in matches if match}


def read(resolution: int) -> Parts:
    """Clips of 40 frames by person, action and video, the middle 120x120 pixels resized.

    Raises:
        RequestError: the files are missing or damaged, or the decoder is not installed.
    """
    *archives, listed = files()
    try:
        ranges = frame_ranges(listed.read_text("latin-1"))
        train, validation, test = (_clips(archives, ranges, who, resolution) for who in SPLITS)
    except FileNotFoundError as error:
        raise unfit("kth", f"there is no {error.filename}") from error
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise unfit("kth", str(error)) from error
    whole = np.concatenate([train, validation])
    return parts_at(whole, test, resolution, validation=len(validation))


def _clips(
    archives: Iterable[Path],
    ranges: dict[str, list[tuple[int, int]]],
    persons: Iterable[int],
    resolution: int,
) -> Images:
    """(N, T, H, W, C)."""
    wanted = {f"person{person:02d}" for person in persons}
    found = [np.empty((0, FRAMES, resolution, resolution, 1), np.uint8)]
    for path in archives:
        if fault := _fault(path):
            raise ValueError(f"{path}: {fault}")
        with zipfile.ZipFile(path) as archive:
            for name, member in sorted(_members(archive).items()):
                if name.partition("_")[0] not in wanted:
                    continue
                if name not in ranges:
                    raise ValueError(f"{RANGES} does not list {name}")
                try:
                    frames = decoded(archive.read(member))
                except ValueError as error:
                    raise ValueError(f"{path}: {member}: {error}") from None
                found += _cut(frames, ranges[name], resolution)
    return np.concatenate(found)


def _cut(frames: Images, ranges: Sequence[tuple[int, int]], resolution: int) -> list[Images]:
    """The clips of a video (T, H, W, 1), each with an axis of one in front."""
    top, left = ((size - CROP) // 2 for size in frames.shape[1:3])
    if min(top, left) < 0:
        raise ValueError(f"a video of {frames.shape[2]}x{frames.shape[1]} pixels")
    # person01_boxing_d4 is published torn: it ends within its last range.
    starts = [start for start in clip_starts(ranges) if start + FRAMES <= len(frames)]
    middle = frames[:, top : top + CROP, left : left + CROP]
    return [resize(middle[None, start : start + FRAMES], resolution) for start in starts]


def frame_ranges(text: str) -> dict[str, list[tuple[int, int]]]:
    """The first and the last frame, from 1, of each stretch in which there is somebody, by video.

    >>> frame_ranges("person01_boxing_d1\\t\\tframes\\t1-95, 96-185")
    {'person01_boxing_d1': [(1, 95), (96, 185)]}
    """
    lines = re.findall(r"^(person\d\d_[a-z]+_d\d)\s+frames\s+(.*)$", text, re.MULTILINE)
    return {
        name: [(int(first), int(last)) for first, last in re.findall(r"(\d+)-(\d+)", stretches)]
        for name, stretches in lines
    }


def clip_starts(ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Where, from 0, whole clips begin in stretches of frames; no frame is in two clips.

    Published stretches are not always in order, and some share a frame.

    >>> clip_starts([(1, 95), (95, 140)])
    [0, 40, 95]
    """
    starts: list[int] = []
    free = 0
    for first, last in sorted(ranges):
        starts += range(max(first - 1, free), last - FRAMES + 1, FRAMES)
        free = max(free, last)
    return starts


def decoded(video: bytes) -> Images:
    """The luma of an AVI file's frames, (T, H, W, 1), stretched from 16..235 to 0..255.

    A file that is torn yields the frames before that.

    Raises:
        RequestError: the decoder is not installed.
        ValueError: it is no video.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise RequestError(f"kth needs a video decoder, the extra `video`: {INSTALL}") from error
    frames: list[Images] = []
    try:
        with av.open(io.BytesIO(video), mode="r") as container:
            for frame in container.decode(video=0):
                # In the decoder's own format: the luma's rows come first, and nothing is converted.
                planes = frame.to_ndarray(format="yuv420p")
                frames.append(_STRETCHED[planes[: frame.height]])
    except (av.error.FFmpegError, IndexError) as error:
        if not frames:
            raise ValueError(f"no frame can be decoded ({error})") from None
    if not frames:
        raise ValueError("it has no frames")
    return np.stack(frames)[..., None]


_STRETCHED = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
