"""Files that are either whole or absent, their checksums, locks, and the cache's folder."""

import contextlib
import errno
import hashlib
import importlib.util
import json
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import filelock
import platformdirs
from pydantic_core import from_json

from bench.errors import RequestError

logger = logging.getLogger("sigma-bench")


def packaged(package: str, *inside: str) -> Path:
    """A file inside an installed package, which is not imported.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    # Found, not imported: an import may take seconds of other libraries.
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed")
    return Path(found.submodule_search_locations[0], *inside)


def _umask() -> int:
    # It is read by setting it, which is safe while the process has only one thread.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _umask()


def cache_root() -> Path:
    """Where prepared data, feature statistics and downloads are kept (`SIGMA_BENCH_CACHE`)."""
    chosen = os.environ.get("SIGMA_BENCH_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("sigma-vae-bench"))


CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    """The JSON text of a value that is hashed: sorted keys, no spaces, no NaN."""
    return CANONICAL.encode(value)


def digest(value: Any) -> str:
    """The sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under `path` whole and fsynced, or not at all.

    The bytes go to a temporary file in the same folder, which replaces `path` at the end of the
    block and is removed if the block raises. A reader never sees half a file; after a crash the old
    one is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            # Only the owner may read mkstemp's files; records and reports are for others too.
            os.chmod(name, 0o666 & ~_UMASK)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename survives a power failure only once the folder itself is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_full(error: OSError) -> bool:
    """Whether a disk, or the user's quota on it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_bytes(path: Path, content: bytes) -> None:
    """Write the file whole or not at all."""
    with atomic(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` indented, in its key order, without NaN."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def set_aside(path: Path) -> Path:
    """Rename a damaged file to the first free `<name>.bad[-N]` and return that."""
    for number in range(1, 10_000):
        target = path.with_name(f"{path.name}.bad" + (f"-{number}" if number > 1 else ""))
        if not target.exists():
            os.replace(path, target)
            return target
    raise OSError(f"too many files {path.name}.bad-N in {path.parent}")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time work on `path`; the others wait for the lock file next to it.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        yield


def sha256_now(path: Path) -> str:
    """The sha256 (hex) of the file's present content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_file(path: Path) -> str:
    """The file's sha256 (hex), remembered in the cache under its path, size and time of change."""
    status = path.stat()
    if stat.S_ISFIFO(status.st_mode):
        raise OSError(errno.EINVAL, "Is a pipe", str(path))
    identity = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    memo = cache_root() / "sha256" / f"{digest(identity)}.json"
    # Without a cache that can be read and written, the sum is only computed more often.
    with contextlib.suppress(RequestError):
        known = read_checked(memo)
        if known is not None and known.get("file") == identity:
            return str(known["sha256"])
    found = sha256_now(path)
    with contextlib.suppress(OSError):
        write_checked(memo, {"file": identity, "sha256": found})
    return found


def checksum(record: Mapping[str, Any]) -> str:
    """sha256 of the record's canonical JSON without its own `checksum`."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return digest(content)


Content = dict[str, Any]
FaultOf = Callable[[Path, bytes, Content], str]
"""Says of a file's path, bytes and content what is wrong with it; empty for nothing."""


def _no_fault(path: Path, text: bytes, content: Content) -> str:
    return ""


def read_checked(path: Path, fault_of: FaultOf = _no_fault) -> Content | None:
    """The content of a JSON file that `write_checked` wrote; None where there is none.

    A file that is torn, was edited or has a fault is set aside with a warning, and counts as
    absent.

    Raises:
        RequestError: the file exists and cannot be read.
    """
    try:
        # What is no file, such as a folder or a pipe that would make the reader wait, is damage.
        text = path.read_bytes() if stat.S_ISREG(path.stat().st_mode) else b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RequestError(
            f"{path}: cannot be read ({error.strerror}); make it readable, or move it away to have "
            "it made again"
        ) from None
    fault = "is torn or was edited"
    with contextlib.suppress(ValueError):
        content = from_json(text)
        if isinstance(content, dict) and content.get("checksum") == checksum(content):
            fault = fault_of(path, text, content)
            if not fault:
                return content
    try:
        done = f"set aside as {set_aside(path).name}"
    except OSError:  # a reader of somebody else's folder may not rename
        done = "left out"
    logger.warning("%s %s: %s", path, fault, done)
    return None


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON together with its checksum."""
    write_json(path, {**content, "checksum": checksum(content)})
