"""Markdown documents as people read them: their sections, tables and the numbers in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

NUMBER = re.compile(
    r"(?<![\w.,/^-])(?<![\w)]·)[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w⁻]|-[a-zA-Z]|\.\d|,\d)"
)
"""A number that stands alone: not `MNIST-5k`, `8-bit`, `28x28`, `2σ²`, `10⁻⁴` or a version."""

_FENCE = re.compile(r"^```.*?^```[^\n]*$", re.DOTALL | re.MULTILINE)
_HIDDEN = (
    _FENCE,
    re.compile(r"`[^`]*`"),
    re.compile(r"(?<=\])\([^)]*\)"),
    re.compile(r"https?://\S+"),
    re.compile(r"<!--.*?-->", re.DOTALL),
    re.compile(r"\[-?[01], 1\]|arXiv \d{4}\.\d{4,5}"),
    re.compile(
        r"σ = 1(?!\d|[.,]\d)|95 % interval|8 bits"
        r"|Tables? [1-3](?: (?:to|and) [1-3])?|Fig(?:ure|\.) 4"
    ),
)
"""What holds no number that could be a result: code, the targets of links, comments, ranges of
data, and what is a name: a paper's, the σ of the decoder `gaussian`, the level of an interval."""

_HEADING = re.compile(r"^#{1,3} +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """The text from a heading to the next, and where in the document it begins."""

    title: str
    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Span:
    """Characters of a document, from `start` to before `end`."""

    start: int
    end: int

    def __contains__(self, other: Span) -> bool:
        return self.start <= other.start and other.end <= self.end


def hidden(text: str) -> str:
    """The text of equal length with blanks in place of what `_HIDDEN` names."""
    for pattern in _HIDDEN:
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text


def numbers(text: str) -> list[Span]:
    """Where a document has numbers."""
    return [Span(*found.span()) for found in NUMBER.finditer(hidden(text))]


def sections(text: str) -> Iterator[Section]:
    """The sections of a document; what is before the first heading has the title ''."""
    code = _FENCE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    heads = [("", 0)] + [(found[1].strip(), found.start()) for found in _HEADING.finditer(code)]
    ends = [start for _, start in heads[1:]] + [len(text)]
    for (title, start), end in zip(heads, ends, strict=True):
        yield Section(title, start, text[start:end])


def section(text: str, title: str) -> Section:
    """The section of a title, which no other has."""
    (found,) = [one for one in sections(text) if one.title == title]
    return found


def line_of(text: str, place: int) -> int:
    """The number of the line that holds a character, from 1."""
    return text.count("\n", 0, place) + 1


def tables(text: str) -> Iterator[Span]:
    """Where a text has tables, each with its heading."""
    for found in re.finditer(r"(?:^\|.*\n)+", text, re.MULTILINE):
        yield Span(*found.span())
