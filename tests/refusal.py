"""What a refused request says."""

from collections.abc import Callable

import pytest

from bench.errors import RequestError


def refused(action: Callable[[], object]) -> str:
    """The one line with which `action` is refused."""
    with pytest.raises(RequestError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message
