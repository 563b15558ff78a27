"""What installed packages add by entry points."""

from importlib import metadata
from typing import Any

from bench.errors import RequestError, one_line


def added(group: str) -> dict[str, metadata.EntryPoint]:
    """The entry points of a group, by name."""
    return {point.name: point for point in metadata.entry_points(group=group)}


def imported(point: metadata.EntryPoint, asked: str) -> Any:
    """What an entry point names.

    Raises `RequestError`, which begins with what was `asked`, where the import fails.
    """
    try:
        return point.load()
    except Exception as error:  # whatever an import may raise
        raise RequestError(f"{asked}: {point.value} fails at import: {one_line(error)}") from error
