"""The user's own image files: a folder of images, or one of clips, which are folders of frames."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.data.fingerprint import FEWEST_FRAMES, Parts, Sizes
from bench.data.images import (
    APPEND,
    File,
    allowed_side,
    channels_and_sizes,
    channels_first,
    decode,
)
from bench.errors import RequestError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")

_log = logging.getLogger("sigma-bench")


def folder_files(folder: Path) -> list[Path]:
    """The image files below a folder by relative path, without hidden ones.

    Raises `RequestError` where the folder or images in it are missing.
    """
    found = _images_below(f"folder:{folder}", folder)
    # Strings sort and split faster than paths, and `describe` waits for this.
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]


def read_folder(folder: Path, resolution: int | None) -> Parts:
    """Read every image below a folder, in the order of the relative paths; there is no test part.

    One channel where all of them are grey, else RGB. Without a resolution asked for, all must be
    squares of 28, 32, 64 or 128; with one, the largest centred square is cut out and resized.
    Raises `RequestError` that names the file which does not fit.
    """
    paths = folder_files(folder)
    channels, side = survey(f"folder:{folder}", paths, resolution)
    images = channels_first(decode(paths, channels, side, None))
    return Parts(images, images[:0])


def inspect_folder(folder: Path, resolution: int | None) -> Sizes:
    """How many images a folder holds, by their headers; raises what `read_folder` raises."""
    paths = folder_files(folder)
    survey(f"folder:{folder}", paths, resolution)
    return Sizes(len(paths), 0)


def clip_files(folder: Path) -> list[Path]:
    """The image files of all clips; raises what `read_clips` raises of their places."""
    return [path for clip in _clips(folder) for path in clip]


def read_clips(folder: Path, resolution: int | None) -> Parts:
    """Read the clips below a folder: each folder that holds image files is one, its files frames.

    Clips and frames are in the natural order of their names: frame2 comes before frame10. All clips
    are cut to the length of the shortest, with a warning. Channels and sizes are those of
    `read_folder`. Raises `RequestError` for an image outside of a clip and a clip of one frame, and
    what `read_folder` raises.
    """
    clips = _cut_clips(folder)
    paths = [path for clip in clips for path in clip]
    channels, side = survey(f"clips:{folder}", paths, resolution)
    images = channels_first(decode(paths, channels, side, None))
    videos = images.reshape(len(clips), -1, *images.shape[1:])
    return Parts(videos, videos[:0])


def inspect_clips(folder: Path, resolution: int | None) -> Sizes:
    """How many clips a folder holds, by their headers; raises what `read_clips` raises."""
    clips = _cut_clips(folder)
    survey(f"clips:{folder}", [path for clip in clips for path in clip], resolution)
    return Sizes(len(clips), 0, frames=len(clips[0]))


def _clips(folder: Path) -> list[list[Path]]:
    frames = defaultdict(list)
    for path in _images_below(f"clips:{folder}", folder):
        place, _, name = path.rpartition(os.sep)
        frames[place].append(name)
    if str(folder) in frames:
        raise RequestError(
            f"clips:{folder}: {frames[str(folder)][0]} is in no clip; give each clip a folder of "
            "its own, or use folder:PATH for images"
        )
    places = sorted(frames, key=lambda place: [_natural(name) for name in place.split(os.sep)])
    return [[Path(place, name) for name in sorted(frames[place], key=_natural)] for place in places]


def _natural(name: str) -> tuple[list[str | int], str]:
    """A key that orders numbers in names by value, and equal numbers as text."""
    pieces = re.split(r"([0-9]+)", name)
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def _cut_clips(folder: Path) -> list[list[Path]]:
    """All clips at the length of the shortest."""
    clips = _clips(folder)
    shortest = min(clips, key=len)
    place, length = shortest[0].parent, len(shortest)
    if length < FEWEST_FRAMES:
        raise RequestError(
            f"clips:{folder}: {place} has one frame; a clip has {FEWEST_FRAMES} or more"
        )
    if dropped := sum(len(clip) - length for clip in clips):
        _log.warning(
            "clips:%s: cut to the %d frames of the shortest clip, %s: %d frames are dropped",
            *(folder, length, place, dropped),
        )
    return [clip[:length] for clip in clips]


def _images_below(where: str, folder: Path) -> list[str]:
    if not folder.is_dir():
        raise RequestError(f"{where}: there is no such folder")
    found = [
        path
        for path in _files_below(where, str(folder))
        if path.lower().endswith(SUFFIXES) and not os.path.basename(path).startswith(".")
    ]
    if not found:
        raise RequestError(f"{where}: no {', '.join(SUFFIXES)} files in it or below it")
    return found


def _files_below(where: str, folder: str) -> Iterator[str]:
    """Regular files, those behind links too: opening a pipe would wait for ever."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files_below(where, entry.path)
                elif entry.is_file():
                    yield entry.path
    except OSError as error:
        raise RequestError(f"{where}: cannot be listed ({error.strerror})") from None


def survey(where: str, paths: Iterable[File], resolution: int | None) -> tuple[int, int]:
    """The channels and the side that the images get; raises what `read_folder` raises."""
    channels, sizes = channels_and_sizes(paths)
    if resolution is not None:
        return channels, resolution
    (width, height), path = next(iter(sizes.items()))
    if len(sizes) > 1 or width != height:
        *_, ((width, height), path) = sizes.items()
        raise RequestError(
            f"{path} is {width}x{height}: images of one square size are expected; {APPEND} to "
            "have all cropped and resized"
        )
    return channels, allowed_side(where, None, width)
