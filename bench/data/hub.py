"""Data in the form of the library `datasets`: a local folder, or a name on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.data.fingerprint import Parts
from bench.data.folders import survey
from bench.data.images import Encoded, Images, channels_first, decode
from bench.errors import RequestError, one_line

if TYPE_CHECKING:
    import datasets

INSTALL = 'pip install "sigma-vae-bench[hf]"'
PIECE = 1024
"""Images that are held encoded at a time."""

VALIDATION = ("validation", "valid", "val")
"""What splits to validate with are called."""


class Place(NamedTuple):
    """What follows `hf:`, taken apart: `name` on the Hub or `folder`, and the column of images."""

    name: str
    folder: Path | None
    column: str

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of where the images are; not of what they are."""
        where = f"{self.folder or ''}\0{'' if self.folder else self.name}\0{self.column}"
        return hashlib.sha256(os.fsencode(where)).hexdigest()[:16]


def place_of(asked: str) -> Place:
    """The place that `NAME[#COLUMN]` means; a folder of that name comes before the Hub.

    >>> place_of("ylecun/mnist#image")
    Place(name='ylecun/mnist', folder=None, column='image')

    Raises:
        RequestError: it is no name of the Hub, and there is no such folder.
    """
    name, _, column = asked.partition("#")
    folder = Path(os.path.abspath(Path(name).expanduser()))
    if folder.is_dir():
        return Place(name, folder, column)
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name, re.ASCII):
        raise RequestError(f"hf:{name}: there is no such folder, and no name on the Hub is like it")
    return Place(name, None, column)


def files(place: Place) -> list[Path]:
    """The files of a local folder, by path.

    Raises:
        FileNotFoundError: the data are on the Hub, so only the cache can say whether they are here.
        RequestError: the folder cannot be listed.
    """
    if place.folder is None:
        raise FileNotFoundError(place.name)

    def refuse(error: OSError) -> None:
        raise RequestError(f"hf:{place.name}: cannot be listed ({error.strerror})") from None

    found = os.walk(place.folder, onerror=refuse)
    return sorted(Path(folder, name) for folder, _, names in found for name in names)


def read(place: Place, resolution: int | None) -> Parts:
    """The images of one column: those of the split `train`, and of `test` where there is one.

    A split `validation` validates where there is a `test`, and is the test part where there is
    none. A single split, whatever its name, has no test part. Channels and sizes are those of
    `bench.data.folders.read_folder`.

    Raises:
        RequestError: the library, the data or the column are missing, the splits are others, or an
            image does not fit.
    """
    where = f"hf:{place.name}"
    splits = _splits(where, place)
    train, validation, test = _roles(where, list(splits))
    used = [name for name in (train, validation, test) if name]
    column = _column(where, splits[train], place.column)
    encoded = {name: _encoded(where, splits[name], name, column) for name in used}
    channels, side = survey(where, (one for name in used for one in encoded[name]), resolution)
    read = {name: encoded[name].decoded(channels, side) for name in used}
    first = read[train]
    if validation:
        first = np.concatenate([first, read[validation]])
    empty = first[:0]
    return Parts(
        first,
        read[test] if test else empty,
        len(read[validation]) if validation else 0,
    )


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise RequestError(f"hf: the package datasets is not installed; {INSTALL}") from None
    return datasets


def _splits(where: str, place: Place) -> dict[str, datasets.Dataset]:
    """Every split by its name, downloaded or converted by the library if it has to be."""
    library = _library()
    if not sys.stderr.isatty():
        library.disable_progress_bars()
    try:
        if place.folder is None:
            found = library.load_dataset(place.name)
        elif any((place.folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
            found = library.load_from_disk(str(place.folder))
        else:
            found = library.load_dataset(str(place.folder))
    except Exception as error:  # of the library, its file formats and the network
        raise RequestError(f"{where} cannot be loaded: {one_line(error)}") from error
    return dict(found) if isinstance(found, dict) else {"train": found}


def _roles(where: str, names: list[str]) -> tuple[str, str, str]:
    """Which splits train, validate and test; empty for none."""
    if len(names) == 1:
        return names[0], "", ""
    validation = next((name for name in VALIDATION if name in names), "")
    if "train" not in names or not ("test" in names or validation):
        raise RequestError(
            f"{where} has the splits {', '.join(names)}; expected are `train` with `test`, "
            "`validation` or both, or a single one; save those wanted with `save_to_disk`"
        )
    return ("train", validation, "test") if "test" in names else ("train", "", validation)


def _column(where: str, split: datasets.Dataset, asked: str) -> str:
    """The column that is asked for, or the only one of images."""
    library = _library()
    kinds = {name: type(feature).__name__ for name, feature in split.features.items()}
    images = [name for name, one in split.features.items() if isinstance(one, library.Image)]
    told = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    if asked and asked not in images:
        raise RequestError(f"{where} has no column '{asked}' of images; its columns: {told}")
    if not asked and len(images) != 1:
        raise RequestError(
            f"{where} has {len(images) or 'no'} columns of images; its columns: {told}"
            + (f"; append one, as in {where}#{images[0]}" if images else "")
        )
    return asked or images[0]


@dataclass(frozen=True)
class _Split:
    """The image files in a column of a split, in its order."""

    where: str
    rows: datasets.Dataset
    column: str

    def __iter__(self) -> Iterator[Encoded]:
        number = 0
        for batch in self.rows.iter(batch_size=PIECE):
            for held in batch[self.column]:
                yield self._one(number, held)
                number += 1

    def _one(self, number: int, held: dict[str, Any] | None) -> Encoded:
        name = f"{self.where}[{number}]"
        if held is None:
            raise RequestError(f"{name} has no image; leave such rows out")
        content = held["bytes"]
        if content is None:  # the row holds a place alone
            try:
                content = Path(held["path"]).read_bytes()
            except OSError as error:
                raise RequestError(f"{name}: {one_line(error)}") from None
        return Encoded(name, content)

    def decoded(self, channels: int, side: int) -> Images:
        """(N, C, side, side)."""
        images = np.empty((len(self.rows), channels, side, side), np.uint8)
        piece: list[Encoded] = []
        done = 0
        for one in self:
            piece.append(one)
            if len(piece) == PIECE or done + len(piece) == len(images):
                read = channels_first(decode(piece, channels, side, None))
                images[done : done + len(piece)] = read
                done += len(piece)
                piece.clear()
        return images


def _encoded(where: str, split: datasets.Dataset, name: str, column: str) -> _Split:
    """The column as the files that it holds: our own reader decodes them."""
    library = _library()
    if column not in split.features:
        raise RequestError(f"{where}: the split {name} has no column '{column}'")
    only = split.select_columns([column]).with_format(None)
    return _Split(f"{where} {name}", only.cast_column(column, library.Image(decode=False)), column)
