"""Download one file, verified, from the first of several addresses that has it."""

import contextlib
import logging
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import progress as bars
from rich.console import Console

from bench.errors import RequestError

SECONDS_OF_SILENCE = 30
CHUNK = 1 << 20

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes received and, where known, the bytes in total."""


def download(
    urls: Sequence[str],
    target: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download `target` from the first of `urls` that yields it with the right checksum.

    An address starts with http, https, file, or gdrive: (a Google Drive id follows). The bytes go
    to a temporary file in the same folder, renamed to `target` once verified, so a cut connection,
    wrong bytes or a kill leave `target` as it was. A file that is there with the right checksum is
    not downloaded again; without a checksum, any file there is accepted.

    Raises `RequestError` that names every address tried and why it failed.
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    known = f"sha256:{sha256}" if sha256 else f"md5:{md5}" if md5 else None

    def transfer(url: str, output: str, _: Any) -> None:
        _transfer(url, Path(output), target.name, progress)

    failures = []
    for url in urls:
        try:
            pooch.retrieve(url, known, target.name, target.parent, downloader=transfer)
        # A wrong checksum is a ValueError, every failure of a connection an OSError.
        except (OSError, ValueError) as error:
            failures.append(f"{url}: {error}")
        else:
            return target
    raise RequestError(
        f"cannot download {target} ({'; '.join(failures)}); try again, or put the file "
        "there yourself"
    )


def _transfer(url: str, output: Path, label: str, progress: Progress | None) -> None:
    scheme, _, rest = url.partition(":")
    if scheme == "gdrive":
        _from_google_drive(rest, output, quiet=progress is None)
    elif scheme == "file":
        shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlsplit(url).path), output)
    else:
        import pooch

        bar = _Bar(label, progress) if progress else False
        # Otherwise a server may compress, requests undoes that, and a .gz fails its checksum.
        headers = {"Accept-Encoding": "identity"}
        pooch.HTTPDownloader(bar, CHUNK, timeout=SECONDS_OF_SILENCE, headers=headers)(
            url, str(output), None
        )


def _from_google_drive(identity: str, output: Path, *, quiet: bool) -> None:
    try:
        import gdown
    except ModuleNotFoundError as error:
        raise RequestError("these files are on Google Drive: pip install gdown") from error
    try:
        gdown.download(id=identity, output=str(output), quiet=quiet)
    except Exception as error:  # gdown's own errors have no common class
        raise OSError(error) from error


class _Bar:
    """The progress bar that pooch expects, passed on to a `Progress`."""

    def __init__(self, label: str, progress: Progress) -> None:
        self.label = label
        self.progress = progress
        self.total = 0
        self.done = 0

    def update(self, size: int) -> None:
        self.done += size
        done = min(self.done, self.total) if self.total else self.done
        self.progress(self.label, done, self.total or None)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        """Nothing to do: the caller that made the `Progress` ends it."""


@contextlib.contextmanager
def console_progress() -> Iterator[Progress]:
    """A bar for each file on standard error; only its last state where that is no terminal."""
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def show(label: str, done: int, total: int | None) -> None:
            if label not in tasks:
                tasks[label] = shown.add_task(label, total=total)
            shown.update(tasks[label], completed=done, total=total)

        yield show
