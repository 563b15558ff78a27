"""Small pieces of text that people read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(count: int | str, noun: str) -> str:
    """`1 run`, `2 runs`, `1 or 5 epochs`."""
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"


def plain(value: Any) -> str:
    """A setting's value as a person writes it: a whole number has no decimals."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:g}"
    return str(value)


def setting(value: Any) -> str:
    """A setting's value in a list of differences: `none` for nothing, a hash's first digits."""
    if value is None or value in ("", [], ()):
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else plain(value)
    return text[:8] if re.fullmatch(r"[0-9a-f]{16,}", text) else text


def divergence(found: Mapping[str, Any]) -> str:
    """`diverged at step 17: distortion was not finite`, of the part of a record that tells it."""
    # A record need not have a reason.
    reason = found.get("reason", f"{found['what']} was not finite")
    return f"diverged at step {found['step']:.0f}: {reason}"


def words(values: Sequence[str], joint: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f" {joint} ".join([*([", ".join(values[:-1])] if values[:-1] else []), *values[-1:]])
