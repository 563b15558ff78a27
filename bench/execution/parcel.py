"""A run's files as bytes: how a run goes on in a store on another disk.

A parcel is the SHA-256 of a zip archive without compression, then the archive, whose members are
named from the store's folder. One that was cut or changed on its way is recognised: the archive's
own checksums are of its members alone, and a changed directory may leave one out.
"""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from bench.files import write_bytes
from bench.records.store import Store
from bench.run import CHECKPOINT, HISTORY, Run

RECORD = "record.json"


class Torn(Exception):
    """A parcel that did not arrive as it was packed."""


def to_begin(store: Store, run: Run) -> bytes:
    """What another store needs to compute `run`: a checkpoint, or weights of equal training.

    Empty where there is neither.
    """
    trained = store.find_weights(run)
    if trained is not None:
        return pack(store.folder, [store.weights_note(run), *_visible(trained)])
    folder = store.run_folder(run)
    return pack(store.folder, [folder / HISTORY, folder / CHECKPOINT])


def to_continue(store: Store, identity: str) -> bytes:
    """The checkpoint and the history of the run with this id, all that its store is for."""
    wanted = (HISTORY, CHECKPOINT)
    return pack(store.folder, [path for path in _of(store, identity) if path.name in wanted])


def of_finished(store: Store, identity: str) -> bytes:
    """What the run with this id has left in a store that is there for it alone."""
    return pack(store.folder, [path for path in _of(store, identity) if path.name != CHECKPOINT])


def _of(store: Store, identity: str) -> Iterator[Path]:
    """The files of a store without those of another run, whose weights this run was given."""
    for path in _visible(store.folder):
        if store.runs not in path.parents or identity in path.parts:
            yield path


def _visible(folder: Path) -> Iterator[Path]:
    """The files below a folder, without leases and those that are only half written."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield path


def pack(folder: Path, files: Iterable[Path]) -> bytes:
    """Those of the files that are there, named from `folder`; empty without any."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path in files:
            with contextlib.suppress(FileNotFoundError):
                archive.writestr(path.relative_to(folder).as_posix(), path.read_bytes())
        held = archive.namelist()
    return sealed(made.getvalue()) if held else b""


def sealed(archive: bytes) -> bytes:
    """A parcel of an archive."""
    return hashlib.sha256(archive).digest() + archive


def unpack(parcel: bytes, folder: Path) -> None:
    """Write a parcel's files below `folder`, each whole or not at all, a record last.

    An empty parcel has none.

    Raises:
        Torn: the parcel is damaged or names a place outside the folder; nothing was written.
        OSError: a file cannot be written.
    """
    if not parcel:
        return
    size = hashlib.sha256().digest_size
    seal, packed = parcel[:size], parcel[size:]
    if hashlib.sha256(packed).digest() != seal:
        raise Torn("its content does not have its checksum")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    places = {name: PurePosixPath(name) for name in files}
    if any(place.is_absolute() or ".." in place.parts for place in places.values()):
        raise Torn("it names a place outside the store")
    for name in sorted(files, key=lambda name: places[name].name == RECORD):
        write_bytes(folder / places[name], files[name])
