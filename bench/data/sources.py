"""From the name of a data set to where its images come from."""

import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.data import folders, hub, user_files
from bench.data.binary import Binarised, binarise, sizes_of, split_binarised
from bench.data.catalog import PUBLISHED
from bench.data.fingerprint import Fingerprint, Parts, Sizes, fingerprint_of
from bench.data.images import APPEND, CHOICES, RESOLUTIONS
from bench.data.splits import permutation
from bench.errors import RequestError, nearest


@dataclass(frozen=True)
class Source:
    """A data set that is not read yet.

    `key` names it in the cache, `files` lists the files that it is read from, and `pinned` is the
    fingerprint that it must have, where that is known. `inspect`, of the user's own files, counts
    the items by their headers; it raises what `read` raises. `frames` of a sequence, 1 for images,
    is None where only the files tell.
    """

    name: str
    key: str
    files: Callable[[], Iterable[Path]]
    read: Callable[[], Parts]
    pinned: Fingerprint | None = None
    inspect: Callable[[], Sizes] | None = None
    frames: int | None = None

    def signature(self) -> str | None:
        """A hash of the files' paths, sizes and times of change; `None` where one is missing.

        Raises `RequestError` where what is missing was named by the user.
        """
        try:
            facts = [(str(path), os.stat(path)) for path in self.files()]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RequestError(
                f"{self.name}: {error.filename} cannot be read ({error.strerror})"
            ) from None
        lines = [f"{path}\0{status.st_size}\0{status.st_mtime_ns}" for path, status in facts]
        return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()


class Kind(NamedTuple):
    """How data of the user's own are found, looked at by their headers, and read."""

    files: Callable[[Path], list[Path]]
    inspect: Callable[[Path, int | None], Sizes]
    read: Callable[[Path, int | None], Parts]


KINDS = {
    "npz": Kind(user_files.npz_files, user_files.inspect_npz, user_files.read_npz),
    "folder": Kind(folders.folder_files, folders.inspect_folder, folders.read_folder),
    "clips": Kind(folders.clip_files, folders.inspect_clips, folders.read_clips),
}
"""The user's own, by the word before the path."""


class Registered(NamedTuple):
    """A data set made by code, at a resolution or its own; `source` is the code's sha256."""

    read: Callable[[int | None], Parts]
    source: str


REGISTERED: dict[str, Registered] = {}
"""The data sets of the plugins loaded in this process, by name."""


def names() -> tuple[str, ...]:
    """The names of data sets that need no path."""
    return (*PUBLISHED, *REGISTERED)


def note(name: str) -> str:
    """What a reader of numbers on a data set must know, empty where that is nothing."""
    published = PUBLISHED.get(stem(name))
    return published.note if published else ""


def resolve(name: str) -> Source:
    """The source of a data set; raises `RequestError` for an unknown name.

    `mnist@28` and `mnist` are one data set, and its name is `mnist`. `mnist[:5000]` is `mnist` cut
    down, see `_cut`, and `mnist@static` is black and white, see `binarise`.
    """
    whole, kept = _split_cut(name)
    grey, how = split_binarised(whole)
    source = _whole(grey) if how is None else _binarised(_whole(grey), how)
    if kept is None:
        return source
    return Source(
        f"{source.name}[:{kept}]",
        f"{source.key}-first{kept}",
        source.files,
        functools.partial(_cut, source, kept),
        inspect=functools.partial(_cut_sizes, source, kept)
        if source.pinned or source.inspect
        else None,
        frames=source.frames,
    )


def _binarised(source: Source, how: Binarised) -> Source:
    name = f"{source.name}@{how}"

    def sizes() -> Sizes:
        return sizes_of(name, _known_sizes(source))

    return Source(
        name,
        f"{source.key}-{how}",
        source.files,
        lambda: binarise(name, how, _published(source)[1]),
        inspect=sizes if source.pinned or source.inspect else None,
        frames=source.frames,
    )


def stem(name: str) -> str:
    """A name less what may follow it: `mnist` of `mnist@32[:5000]`, be that known here or not."""
    return re.split(r"[@\[]", name, maxsplit=1)[0]


def _split_cut(name: str) -> tuple[str, int | None]:
    match = re.search(r"\[:(\d{1,9})\]$", name)
    return (name, None) if match is None else (name[: match.start()], int(match[1]))


def _cut(source: Source, kept: int) -> Parts:
    """`kept` items of the published training part, and the same share of the other parts.

    They are the first of a permutation that the content decides, so each cut holds the smaller
    ones, whatever the split seed.
    """
    facts, parts = _published(source)
    sizes = _shares(source.name, facts.sizes, kept)

    def first(count: int, among: int) -> npt.NDArray[np.intp]:
        return permutation(among, facts.content, 0)[:count]

    own = facts.train - facts.validation
    validation = own + first(sizes.validation, facts.validation)
    train = np.concatenate([first(sizes.train - sizes.validation, own), validation])
    return Parts(parts.train[train], parts.test[first(sizes.test, facts.test)], sizes.validation)


def _published(source: Source) -> tuple[Fingerprint, Parts]:
    """The parts as they are read, which have the known content where one is known."""
    parts = source.read()
    facts = fingerprint_of(parts)
    if source.pinned not in (facts, None):
        raise RequestError(f"{source.name}: the raw files are not the published ones; fetch again")
    return facts, parts


def _cut_sizes(source: Source, kept: int) -> Sizes:
    return _shares(source.name, _known_sizes(source), kept)


def _known_sizes(source: Source) -> Sizes:
    if source.pinned is not None:
        return source.pinned.sizes
    assert source.inspect is not None
    return source.inspect()


def _shares(name: str, sizes: Sizes, kept: int) -> Sizes:
    if not 0 < kept <= sizes.train:
        raise RequestError(
            f"{name}[:{kept}]: choose a number of {sizes.noun}s from 1 to {sizes.train}, which it "
            "has"
        )
    test, validation = (math.ceil(n * kept / sizes.train) for n in (sizes.test, sizes.validation))
    return Sizes(kept, test, validation, sizes.frames)


def _whole(name: str) -> Source:
    stem, resolution = parse(name)
    kind, _, place = stem.partition(":")
    if kind in KINDS and place:
        path = Path(os.path.abspath(Path(place).expanduser()))
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise RequestError(f"{name!r}: no path has such characters; check the name") from None
        own = KINDS[kind]
        key = _keyed(kind, hashlib.sha256(os.fsencode(path)).hexdigest()[:16], resolution)
        return Source(
            name,
            key,
            functools.partial(own.files, path),
            functools.partial(own.read, path, resolution),
            inspect=functools.partial(own.inspect, path, resolution),
        )
    if kind == "hf" and place:
        there = hub.place_of(place)
        return Source(
            name,
            _keyed("hf", there.digest, resolution),
            functools.partial(hub.files, there),
            functools.partial(hub.read, there, resolution),
        )
    if stem in REGISTERED:
        read_own, code = REGISTERED[stem]
        digest = hashlib.sha256(f"{stem}\0{code}".encode()).hexdigest()[:16]
        # Its only file is the code, whose content is part of the key.
        return Source(
            name,
            _keyed("plugin", digest, resolution),
            list,
            functools.partial(read_own, resolution),
        )
    if stem not in PUBLISHED:
        known = [*names(), *(f"{kind}:PATH" for kind in KINDS), "hf:NAME"]
        raise RequestError(
            f"unknown dataset '{name}'; {nearest(stem, known)}; {APPEND} to have images resized, "
            "then @static or @resampled to have grey ones binarised"
        )
    published = PUBLISHED[stem]
    if resolution in (None, published.native):
        read_native = functools.partial(published.read, published.native)
        return Source(
            stem,
            stem,
            published.files,
            read_native,
            published.pinned,
            frames=published.frames,
        )
    return Source(
        name,
        name,
        published.files,
        functools.partial(published.read, resolution),
        frames=published.frames,
    )


def _keyed(kind: str, digest: str, resolution: int | None) -> str:
    return f"{kind}-{digest}" + (f"@{resolution}" if resolution else "")


def parse(name: str) -> tuple[str, int | None]:
    """The name of a data set and the resolution behind it, as in `mnist@32`, or None."""
    match = re.search(r"@(\d+)$", name)
    if match is None:
        return name, None
    resolution = int(match[1])
    if resolution not in RESOLUTIONS:
        raise RequestError(f"dataset '{name}': the resolution behind @ is {CHOICES}")
    return name[: match.start()], resolution
