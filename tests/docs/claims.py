"""What a document claims of the committed records, and whether it says so.

A claim is a piece of a sentence, a table or a printed block as the records give it. It is found in
its section by its words; then its numbers must be those of the records, or are written anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.docs.document import NUMBER, Section, Span, hidden, line_of, numbers, section, tables

OPEN, CLOSE = "\x02", "\x03"
"""Around each number of a claim that comes from a record."""

_SLOT = re.compile(f"{OPEN}(.*?){CLOSE}")


def slot(text: str) -> str:
    """A word or words that come from records."""
    return f"{OPEN}{text}{CLOSE}"


def told(text: str) -> str:
    """A text whose numbers come from records."""
    return NUMBER.sub(lambda found: slot(found[0]), text)


def bare(text: str) -> str:
    return text.replace(OPEN, "").replace(CLOSE, "")


@dataclass(frozen=True)
class Change:
    """What a place of a document must become; a claim that is not found has no new text."""

    span: Span
    new: str | None
    why: str = ""


class Claim(Protocol):
    """Something that a section says."""

    @property
    def section(self) -> str: ...

    def find(self, place: Section) -> Iterator[Change]:
        """Where the section says it, each with what the records say there."""


@dataclass(frozen=True)
class Says:
    """A piece of a sentence; where `holds` is false the records contradict its words."""

    section: str
    text: str
    holds: bool = True

    def find(self, place: Section) -> Iterator[Change]:
        literals = _SLOT.split(self.text)[::2]
        if loose := [number for text in literals for number in NUMBER.findall(hidden(text))]:
            yield Change(Span(place.start, place.start), None, f"numbers by hand: {loose}")
        slots = _SLOT.findall(self.text)
        kinds = [
            NUMBER.pattern if NUMBER.fullmatch(one) else r"[^|.,;:*()\[\]]+?\b" for one in slots
        ]
        pattern = _spaced(literals[0]) + "".join(
            f"({kind}){_spaced(text)}" for kind, text in zip(kinds, literals[1:], strict=True)
        )
        found = list(re.finditer(pattern, place.text))
        if len(found) != 1:
            how = "nowhere" if not found else f"in {len(found)} places"
            yield Change(Span(place.start, place.start), None, f"{how}: {bare(self.text)!r}")
            return
        start, end = found[0].span()
        if not self.holds:
            why = f"the records say otherwise: {bare(self.text)!r}"
            yield Change(Span(place.start + start, place.start + start), None, why)
        parts, place_of = [], start
        for group, new in enumerate(slots, start=1):
            # Words that are there already keep their line breaks.
            old = found[0][group]
            kept = old if old.split() == new.split() else new
            parts += [place.text[place_of : found[0].start(group)], kept]
            place_of = found[0].end(group)
        parts.append(place.text[place_of:end])
        yield Change(Span(place.start + start, place.start + end), "".join(parts))


def _spaced(text: str) -> str:
    """A pattern of a text, however its lines break."""
    pieces = [re.escape(piece) for piece in re.split(r"\s+", text)]
    return r"\s+".join(pieces)


@dataclass(frozen=True)
class Tabled:
    """A table, found by its heading: the cells of the heading and of each line."""

    section: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def find(self, place: Section) -> Iterator[Change]:
        heading = _row(self.heads)
        for span in tables(place.text):
            head, sides, *_ = place.text[span.start : span.end].splitlines()
            if head == heading:
                lines = [head, sides, *map(_row, self.rows)]
                where = Span(place.start + span.start, place.start + span.end)
                yield Change(where, "\n".join(lines) + "\n")
                return
        yield Change(Span(place.start, place.start), None, f"no table has the heading {heading}")


def _row(cells: Iterable[str]) -> str:
    return bare(f"| {' | '.join(cells)} |")


@dataclass(frozen=True)
class Printed:
    """A block of code of a language that shows what a command prints."""

    section: str
    language: str
    text: str

    def find(self, place: Section) -> Iterator[Change]:
        found = re.search(rf"^```{self.language}\n(.*?)^```$", place.text, re.DOTALL | re.MULTILINE)
        if found is None:
            why = f"no block of {self.language}"
            yield Change(Span(place.start, place.start), None, why)
            return
        yield Change(Span(place.start + found.start(1), place.start + found.end(1)), self.text)


def changes(text: str, claims: Iterable[Claim]) -> list[Change]:
    """What each claim wants of a document, whether it is there already or not."""
    return [change for claim in claims for change in claim.find(section(text, claim.section))]


def rewritten(text: str, claims: Sequence[Claim]) -> str:
    """The document with the records' numbers in every claim that is found."""
    # One after the other, as a sentence may be part of a longer claim.
    for claim in claims:
        for change in claim.find(section(text, claim.section)):
            if change.new is not None:
                text = text[: change.span.start] + change.new + text[change.span.end :]
    return text


def complaints(
    name: str, text: str, claims: Sequence[Claim], excepted: Mapping[str, Sequence[str]] | None
) -> list[str]:
    """What is wrong with the numbers of a document, a line each, and how to mend it.

    Arguments:
        excepted: by section, phrases whose numbers are from no record; no phrase means all of the
            section. None accepts every number that is part of no claim.
    """
    wrong, known = list[str](), list[Span]()
    for change in changes(text, claims):
        at = f"{name}:{line_of(text, change.span.start)}"
        if change.new is None:
            wrong.append(f"{at}: {change.why}")
            continue
        known.append(change.span)
        old = text[change.span.start : change.span.end]
        if old != change.new:
            wrong += _differences(name, line_of(text, change.span.start), old, change.new)
    if excepted is None:
        return wrong
    for title, phrases in excepted.items():
        place = section(text, title)
        if not phrases:
            known.append(Span(place.start, place.end))
        for phrase in phrases:
            found = list(re.finditer(_spaced(phrase), place.text))
            known += [Span(place.start + m.start(), place.start + m.end()) for m in found]
            if not found:
                wrong.append(f"{name}: section {title!r} no longer says {phrase!r}")
    for number in numbers(text):
        if not any(number in span for span in known):
            said = text[number.start : number.end]
            around = " ".join(text[max(0, number.start - 40) : number.end + 30].split())
            line = line_of(text, number.start)
            wrong.append(f"{name}:{line}: {said} is in no claim and no exception: …{around}…")
    return wrong


def _differences(name: str, line: int, old: str, new: str) -> Iterator[str]:
    """The lines that must change, each with what it must become."""
    before, after = old.splitlines(), new.splitlines()
    for index in range(max(len(before), len(after))):
        was = before[index] if index < len(before) else "(nothing)"
        must = after[index] if index < len(after) else "(nothing)"
        if was != must:
            yield f"{name}:{line + index}: {was!r} must become {must!r}"
