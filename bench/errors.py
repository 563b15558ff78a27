"""What ends work early without being a fault of the code."""


class RequestError(Exception):
    """The request itself is wrong: one line that says what, where and what to do (exit code 2)."""


class Stopped(Exception):
    """A run was left as somebody asked; what is in its folder is enough to go on."""


class Lost(Exception):
    """Another process has taken the run over: nothing more may be written in its folder."""
