"""How a grid is stopped: the parent takes note of a signal, its workers stop where they can."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from bench.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a grid politely: ^C, `kill` or a scheduler, a terminal that is gone."""


class Interruption:
    """While open, the first of `SIGNALS` is noted; a second raises KeyboardInterrupt.

    `fileno` becomes readable with the first, so that `multiprocessing.connection.wait` wakes up.
    What the process ignores already (`nohup`, a shell's background job) stays ignored.
    """

    def __init__(self) -> None:
        self.asked = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self._read, self._write = os.pipe()
        # Python lets the main thread alone set handlers; elsewhere they are its caller's business.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
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

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(self._write, b"\0")


class Stop:
    """A worker's answer to SIGTERM: training asks for it at each step, the rest ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._raises = False

    def install(self) -> None:
        """Hear SIGTERM, which the parent sends, and leave what a terminal sends to the parent."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._ask)
        # The parent blocked them so that none could meet a process without handlers.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a signal leaves with `Stopped`: nothing in it is worth waiting for."""
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
