"""Files that are either whole or absent, their checksums, and where the cache lies.

No torch in here: `status`, `list` and `--dry-run` answer before torch could be imported.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import platformdirs
from pydantic_core import from_json

from bench.errors import RequestError

logger = logging.getLogger("sigma-bench")


def _umask() -> int:
    # It can only be read by setting it, which is safe while the process has one thread.
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
    """The one JSON text of a value: sorted keys, no spaces, no NaN; the text that gets hashed."""
    return CANONICAL.encode(value)


def digest(value: Any) -> str:
    """The sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under `path` whole and fsynced, or not at all.

    The bytes go to a temporary neighbour, which replaces `path` when the block ends well and is
    removed when it raises; a reader never sees half a file, a crash leaves the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            # mkstemp's files are their owner's alone; records and reports are for others too.
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
    # The rename is only durable once the folder itself is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_full(error: OSError) -> bool:
    """Whether a disk, or the user's share of it, has no room left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` for people and programs: indented, key order kept, no NaN."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be believed to the first free `<name>.bad[-N]` and return that."""
    for number in range(1, 10_000):
        target = path.with_name(f"{path.name}.bad" + (f"-{number}" if number > 1 else ""))
        if not target.exists():
            os.replace(path, target)
            return target
    raise OSError(f"too many files set aside beside {path}")


def sha256_now(path: Path) -> str:
    """The sha256 (hex) of what the file holds now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_file(path: Path) -> str:
    """The file's sha256 (hex), remembered in the cache under its path, size and time of change."""
    status = path.stat()
    identity = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}"
    memo = cache_root() / "sha256" / hashlib.sha256(identity.encode()).hexdigest()
    with contextlib.suppress(OSError):
        content = memo.read_bytes()
        known = content[:64].decode(errors="replace")
        if content == _memo(identity, known):
            return known
    found = sha256_now(path)
    # A cache that cannot be written costs time, never the answer.
    with contextlib.suppress(OSError):
        write_bytes(memo, _memo(identity, found))
    return found


def _memo(identity: str, sha256: str) -> bytes:
    """What remembers a checksum: itself, then a check of it and of the file that it is of."""
    return f"{sha256} {digest([identity, sha256])}\n".encode()


def checksum(record: Mapping[str, Any]) -> str:
    """sha256 of the record's canonical JSON without its own `checksum`."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return digest(content)


def read_checked(path: Path) -> dict[str, Any] | None:
    """A checksummed JSON file's content; None where there is none.

    A file that is torn or was edited is set aside with a warning, which makes its run undone.

    Raises:
        RequestError: it is there and cannot be read.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        text = b""
    except OSError as error:
        raise RequestError(
            f"{path}: cannot be read ({error.strerror}); make it readable, or move it away to have "
            "it made again"
        ) from None
    with contextlib.suppress(ValueError):
        record = from_json(text)
        if isinstance(record, dict) and record.get("checksum") == checksum(record):
            return record
    with contextlib.suppress(OSError):  # a reader of somebody else's folder may not rename
        moved = set_aside(path)
        logger.warning("%s is torn or was edited: set aside as %s", path, moved.name)
    return None


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    write_json(path, {**content, "checksum": checksum(content)})
