"""The entry point of the command line."""

import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from bench.cli import inspect, report, run  # noqa: F401  (each registers its commands)
from bench.cli.options import DONE, INTERRUPTED, WRONG_REQUEST, app, fail
from bench.errors import RequestError


def main() -> NoReturn:
    """Run a command; a wrong request is one line on standard error and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Records are no garbage: to search thousands of them for it again and again is lost time.
    gc.set_threshold(100_000, 20)
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        fail(f"{message} (see `sigma-bench --help`)", WRONG_REQUEST)
    except RequestError as error:
        fail(str(error), WRONG_REQUEST)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # `sigma-bench list grids | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    if code == INTERRUPTED:  # typer answers an interruption inside a command with this code
        fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else DONE)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
