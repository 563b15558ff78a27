"""A tracker in a thread of its own: a slow, broken or silent one costs the grid nothing."""

import queue
import threading
from collections.abc import Callable
from typing import Any

from bench.errors import one_line
from bench.execution.listeners import Listener

PATIENCE = 30.0
"""Seconds that the end of a grid waits for what a tracker has not sent yet."""

LATE = 2_000
"""Calls that may wait for a tracker before it is given up."""

GOES_ON = "the grid goes on without this tracker"

Call = tuple[str, tuple[Any, ...]]


class Background(Listener):
    """Forwards every call to `tracker`, in order, in a thread; only `close` waits.

    A tracker that raises, falls `late` calls behind, or is not done `patience` seconds after the
    grid's end is given up. That is told once, and the grid goes on.

    >>> class Loud(Listener):
    ...     def found(self, identity: str) -> None:
    ...         raise OSError("no server")
    >>> tracker = Background("loud", Loud(), print)
    >>> tracker.found("0123456789abcdef")
    >>> tracker.close()
    --track loud: OSError: no server; the grid goes on without this tracker
    """

    def __init__(
        self,
        name: str,
        tracker: Listener,
        tell: Callable[[str], None],
        *,
        patience: float = PATIENCE,
        late: int = LATE,
    ) -> None:
        self._name, self._tracker, self._tell, self._patience = name, tracker, tell, patience
        self._calls: queue.Queue[Call] = queue.Queue(late)
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        # A daemon: a library that hangs keeps no process from its end.
        self._thread = threading.Thread(target=self._work, name=f"track {name}", daemon=True)

    def close(self) -> None:
        self._forward("close")
        self._thread.join(0 if self._given_up.is_set() else self._patience)
        if self._thread.is_alive():
            self._give_up(f"not done {self._patience:g} s after the end; the records are complete")

    def _forward(self, name: str, *arguments: Any) -> None:
        if self._given_up.is_set():
            return
        if self._thread.ident is None:
            self._thread.start()
        try:
            self._calls.put_nowait((name, arguments))
        except queue.Full:
            self._give_up(f"{self._calls.maxsize:,} calls behind; {GOES_ON}")

    def _work(self) -> None:
        name = ""
        while name != "close" and not self._given_up.is_set():
            name, arguments = self._calls.get()
            try:
                getattr(self._tracker, name)(*arguments)
            except BaseException as error:  # a library may call sys.exit
                self._give_up(f"{one_line(error)}; {GOES_ON}")

    def _give_up(self, why: str) -> None:
        with self._lock:
            if self._given_up.is_set():
                return
            self._given_up.set()
        self._tell(f"--track {self._name}: {why}")


def _forwarding(name: str) -> Callable[..., None]:
    def forward(self: Background, *arguments: Any) -> None:
        self._forward(name, *arguments)

    forward.__name__ = name
    return forward


# Whatever a listener may be told, now and later; no list of it is kept here.
for _name in vars(Listener):
    if not _name.startswith("_") and _name not in vars(Background):
        setattr(Background, _name, _forwarding(_name))
