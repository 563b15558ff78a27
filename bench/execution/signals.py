"""Stopping a grid by a signal: the parent notes it, the workers stop at their next step."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from types import FrameType, TracebackType
from typing import Any

from bench.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask to stop: ^C; `kill` or a batch scheduler; a closed terminal."""


class Interruption:
    """While open, the first of `SIGNALS` sets `asked`; a second raises KeyboardInterrupt.

    `fileno` becomes readable with the first, which wakes up `multiprocessing.connection.wait`.
    Signals that the process ignores (`nohup`, a shell's background job) stay ignored. Signals in
    `also` count as well, and `number` is that of the first signal, or 0.
    """

    def __init__(self, also: Sequence[int] = ()) -> None:
        self.asked, self.number = False, 0
        self._signals = (*SIGNALS, *also)
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self._read, self._write = os.pipe()
        # Only the main thread may set handlers; in another thread that is up to the caller.
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def wait(self, seconds: float) -> None:
        """Sleep for so long, or until the first signal; at once where that has come."""
        wait([self._read], seconds)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked, self.number = True, number
        os.write(self._write, b"\0")


class Stop:
    """Set by SIGTERM in a worker: training checks `asked` at each step, other work ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._raises = False

    def install(self) -> None:
        """Handle SIGTERM, which the parent sends, and leave a terminal's signals to the parent."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._ask)
        # The parent blocked them until this process has handlers.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that SIGTERM leaves with `Stopped`, as there is nothing in it to save."""
        self._raises = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._raises = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._raises:
            self._raises = False
            raise Stopped
