"""What ends work early without being a fault of the code."""

import difflib
from collections.abc import Sequence

WRONG_REQUEST = 2
"""The exit code of a command that ends with a `RequestError`."""


class RequestError(Exception):
    """The request itself is wrong: one line that says what, where and what to do."""


class Stopped(Exception):
    """A run was left as somebody asked; what is in its folder is enough to go on."""


class Lost(Exception):
    """Another process has taken the run over: nothing more may be written in its folder."""


def one_line(error: BaseException) -> str:
    """An error's type and message on one line.

    >>> one_line(ValueError("no\\n  good"))
    'ValueError: no good'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())


def nearest(word: str, possible: Sequence[str]) -> str:
    """`did you mean 'optimal'?` where something is near, else what is possible."""
    near = difflib.get_close_matches(str(word), possible, n=1)
    return f"did you mean '{near[0]}'?" if near else f"possible: {', '.join(possible)}"
