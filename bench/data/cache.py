"""Prepared images on disk: checked before they are believed, built again where they fail.

One dataset is two files: the images of both parts in one array, and a sidecar, written last, with
what they are and what they were read from.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import filelock
import numpy as np

from bench.data.parts import Facts, Parts, facts_of
from bench.data.sources import Source
from bench.errors import RequestError
from bench.files import atomic, cache_root, set_aside, write_json

VERSION = 1

_log = logging.getLogger("sigma-bench")


class _Damaged(Exception):
    """A cached file is not what it says or was meant to be."""


def recall(source: Source) -> Facts | None:
    """What the sidecar says of a dataset whose files have not changed since; reads no images."""
    # Asked first: a path that the user named wrongly is an error, cached or not.
    signature = source.signature()
    with contextlib.suppress(_Damaged):
        return _stated(source, signature)
    return None


def parts(source: Source) -> tuple[Facts, Parts]:
    """The images of a dataset from the cache, or from its source, which also fills the cache.

    The content hash is computed anew on every call. Files that are torn, edited or empty are set
    aside with a warning. Any number of processes may call at once. Raises `RequestError` where the
    source cannot be read or the cache not be written.
    """
    # Only the second look, with nobody writing, tells damage from another process's work.
    with contextlib.suppress(_Damaged):
        if (found := _checked(source)) is not None:
            return found
    with _alone(source):
        try:
            found = _checked(source)
        except _Damaged as damage:
            _log.warning("cached data set aside and built again: %s", damage)
            with _writing():
                for path in filter(Path.exists, _paths(source)):
                    set_aside(path)
            found = None
        return found or _build(source)


def _paths(source: Source) -> tuple[Path, Path]:
    folder = cache_root() / "data"
    return folder / f"{source.key}.npy", folder / f"{source.key}.json"


def _stated(source: Source, signature: str | None) -> Facts | None:
    """The sidecar's facts; `None` where there are none or the source's files have changed."""
    _, sidecar = _paths(source)
    try:
        said = json.loads(sidecar.read_bytes())
        if said["version"] != VERSION or signature not in (said["signature"], None):
            return None
        return Facts(**said["facts"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"{sidecar} cannot be read ({error})") from error


def _checked(source: Source) -> tuple[Facts, Parts] | None:
    file, _ = _paths(source)
    stated = _stated(source, source.signature())
    if stated is None:
        return None
    try:
        with file.open("rb") as stream:
            images = np.lib.format.read_array(stream, allow_pickle=False)
        found = Parts(images[: stated.train], images[stated.train :])
        facts = facts_of(found)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise _Damaged(f"{file} cannot be read ({error})") from error
    if facts != stated or source.pinned not in (facts, None):
        raise _Damaged(f"{file} holds {facts.content}, not {(source.pinned or stated).content}")
    return facts, found


def _build(source: Source) -> tuple[Facts, Parts]:
    file, sidecar = _paths(source)
    # Taken before reading: files that change meanwhile are noticed the next time.
    signature = source.signature()
    found = source.read()
    facts = facts_of(found)
    if source.pinned not in (facts, None):
        raise RequestError(
            f"{source.name}: {', '.join(map(str, source.files()))} are not the published files: "
            f"content hash {facts.content}, expected {source.pinned.content}; fetch or install "
            "them again"
        )
    said = {"version": VERSION, "facts": dataclasses.asdict(facts), "signature": signature}
    with _writing():
        with atomic(file) as stream:
            np.lib.format.write_array(stream, np.concatenate(found), allow_pickle=False)
        write_json(sidecar, said)
    return facts, found


@contextlib.contextmanager
def _alone(source: Source) -> Iterator[None]:
    file, _ = _paths(source)
    with contextlib.ExitStack() as held:
        with _writing():
            file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(filelock.FileLock(file.with_suffix(".lock")))
        yield


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"the data cache {cache_root() / 'data'} cannot be written ({error}); set "
            "SIGMA_BENCH_CACHE to a folder that can"
        ) from error
