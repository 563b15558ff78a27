"""The entry point of the command line."""

import contextlib
import errno
import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from bench.cli import (  # noqa: F401  (each registers its commands)
    inspect,
    report,
    run,
    status,
    translate,
)
from bench.cli.options import DONE, INTERRUPTED, SOME_FAILED, app, fail
from bench.errors import WRONG_REQUEST, RequestError

EXHAUSTED = {
    errno.ENOSPC: "the disk, or what standard output goes to, is full; make room",
    errno.EDQUOT: "the disk quota is used up; make room",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ENFILE: "the system has too many open files",
    errno.ENOMEM: "memory ran out; close other programs or raise the limit (ulimit -v)",
}
"""Limits of the machine that any command may meet, and what to do."""


FOLDERS = ("SIGMA_BENCH_CACHE", "SIGMA_BENCH_DATA", "SIGMA_BENCH_INCEPTION")
"""The variables that hold a path."""


def main() -> NoReturn:
    """Run a command; a wrong request is one line on standard error and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A scan for cycles among thousands of records finds none and takes seconds.
    gc.set_threshold(100_000, 20)
    _make_streams_safe()
    _make_folders_absolute()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        fail(f"{message} (see `sigma-bench --help`)", WRONG_REQUEST)
    except RequestError as error:
        fail(str(error), WRONG_REQUEST)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit:
        # typer exits with 1 where the reader has gone (`sigma-bench list grids | head`), and marks
        # that by a wrapper around standard output.
        if type(sys.stdout).__name__ != "PacifyFlushWrapper":
            raise
        code = DONE
    except MemoryError:
        fail(EXHAUSTED[errno.ENOMEM], SOME_FAILED)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        _drop_output()
        fail(EXHAUSTED[error.errno], SOME_FAILED)
    if code == INTERRUPTED:  # typer answers an interruption inside a command with this code
        fail("interrupted; the same command continues where it stopped", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else DONE)


def _make_streams_safe() -> None:
    """Print what the terminal's encoding lacks as `?`, and accept closed output streams."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _make_folders_absolute() -> None:
    """Fix what relative paths in the environment mean, before a plugin can change the folder."""
    for name in FOLDERS:
        if chosen := os.environ.get(name):
            with contextlib.suppress(FileNotFoundError):  # the working folder was removed
                os.environ[name] = os.path.abspath(os.path.expanduser(chosen))


def _drop_output() -> None:
    """Discard what is still buffered for standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
