"""The one error that is the user's to mend."""


class RequestError(Exception):
    """The request itself is wrong: one line that says what, where and what to do (exit code 2)."""
