"""Prepared data on disk, verified on every load and rebuilt where verification fails.

A data set and a split seed have two files: the items in one array, in the order of the splits, and
a sidecar, written last, with their fingerprint and a signature of the files they were read from.
"""

import contextlib
import dataclasses
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.data.fingerprint import (
    Fingerprint,
    fingerprint_in_pieces,
    fingerprint_of,
    frames_of,
)
from bench.data.images import Images
from bench.data.sources import Source
from bench.data.splits import order
from bench.data.spool import folder, writing
from bench.devices import out_of_memory
from bench.errors import RequestError
from bench.files import atomic, exclusive, set_aside, write_json

VERSION = 2

PIECE = 1024
"""Images copied at once, each frame of a sequence being one."""

_log = logging.getLogger("sigma-bench")


class _Damaged(Exception):
    """A cached file does not have the content that its sidecar or the catalogue states."""


def remembered(source: Source, split_seed: int = 0) -> Fingerprint | None:
    """The fingerprint in the sidecar, if the source's files have not changed; reads no pixels."""
    # First, because a wrong path of the user's is an error, cached or not.
    signature = source.signature()
    with contextlib.suppress(_Damaged):
        return _stated(_file(source, split_seed), signature)
    return None


def images(source: Source, split_seed: int) -> tuple[Fingerprint, Images]:
    """The items of a data set in the order of its splits, the test split last: see `Parts`.

    They are mapped from the cache copy-on-write: all processes share one copy, and deleting the
    file is safe while it is mapped. What is missing is built from the source. The content hash is
    computed on every call; torn, edited and empty files are set aside with a warning. Any number of
    processes may call at once.

    Raises `RequestError` where the source cannot be read or the cache cannot be written.
    """
    # Another process may be writing now. Only the second check, under the lock, shows damage.
    with contextlib.suppress(_Damaged):
        if (found := _checked(source, split_seed)) is not None:
            return found
    file = _file(source, split_seed)
    with contextlib.ExitStack() as held:
        with writing():
            held.enter_context(exclusive(file))
        try:
            found = _checked(source, split_seed)
        except _Damaged as damage:
            _log.warning("cached data set aside and built again: %s", damage)
            with writing():
                for path in filter(Path.exists, (file, _sidecar(file))):
                    set_aside(path)
            found = None
        return found or _build(source, split_seed)


def _file(source: Source, split_seed: int) -> Path:
    chosen = f"-split{split_seed}" if split_seed else ""
    return folder() / f"{source.key}{chosen}.npy"


def _sidecar(file: Path) -> Path:
    return file.with_suffix(".json")


def _stated(file: Path, signature: str | None) -> Fingerprint | None:
    """The sidecar's fingerprint; None where there is none or the source's files have changed."""
    sidecar = _sidecar(file)
    try:
        said = json.loads(sidecar.read_bytes())
        if said["version"] != VERSION or signature not in (said["signature"], None):
            return None
        return Fingerprint(**said["facts"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"{sidecar} cannot be read ({error})") from error


def _checked(source: Source, split_seed: int) -> tuple[Fingerprint, Images] | None:
    file = _file(source, split_seed)
    stated = _stated(file, source.signature())
    if stated is None:
        return None
    try:
        found = np.lib.format.open_memmap(file, mode="c")
        if len(found) != stated.train + stated.test:
            raise ValueError(f"{len(found)} {stated.sizes.noun}s")
        published = _in_pieces(found, np.argsort(order(stated, split_seed)))
        pieces = itertools.chain(published, [found[stated.train :]])
        facts = fingerprint_in_pieces(found, stated.sizes, pieces)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, IndexError) as error:
        if out_of_memory(error):
            raise
        raise _Damaged(f"{file} cannot be read ({error})") from error
    if facts != stated or source.pinned not in (facts, None):
        raise _Damaged(f"{file} holds {facts.content}, not {(source.pinned or stated).content}")
    return facts, found


def _build(source: Source, split_seed: int) -> tuple[Fingerprint, Images]:
    file = _file(source, split_seed)
    # Before reading, so that files which change meanwhile are noticed the next time.
    signature = source.signature()
    parts = source.read()
    facts = fingerprint_of(parts)
    if source.pinned not in (facts, None):
        raise RequestError(
            f"{source.name}: {', '.join(map(str, source.files()))} are not the published files: "
            f"content hash {facts.content}, expected {source.pinned.content}; fetch or install "
            "them again"
        )
    said = {"version": VERSION, "facts": dataclasses.asdict(facts), "signature": signature}
    shape = (facts.train + facts.test, *parts.train.shape[1:])
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with writing():
        with atomic(file) as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for piece in _in_pieces(parts.train, order(facts, split_seed)):
                stream.write(piece.data)
            stream.write(parts.test.data)
        write_json(_sidecar(file), said)
        return facts, np.lib.format.open_memmap(file, mode="c")


def _in_pieces(items: Images, rows: npt.NDArray[np.intp]) -> Iterator[Images]:
    """The items `rows`, about `PIECE` images at a time, copied."""
    step = max(1, PIECE // frames_of(items))
    return (items[rows[start : start + step]] for start in range(0, len(rows), step))
