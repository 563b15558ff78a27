"""Images that live inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

WIDTH = 720
"""Pixels of the width of a thumbnail, twice what a page shows it at."""
COLOURS = 64


@dataclass(frozen=True)
class Picture:
    """What an image shows, and its content as a data URI."""

    caption: str
    uri: str
    title: str = ""


def data_uri(path: Path) -> str:
    """A PNG file as a data URI."""
    return _uri(path.read_bytes())


def thumbnail(path: Path) -> str:
    """A PNG file at `WIDTH` pixels and in `COLOURS` colours, as a data URI of some 30 kB."""
    content = io.BytesIO()
    with Image.open(path) as image:
        small = image.convert("RGB")
        small.thumbnail((WIDTH, WIDTH))
        small.quantize(COLOURS, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return _uri(content.getvalue())


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
