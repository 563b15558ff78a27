"""Every number of the README, docs/ and the references' page is that of a committed record.

Or it is listed in exceptions.yaml with the reason. `python -m tests.docs` writes the numbers anew.
"""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.docs.claims import Claim, Printed, Says, Tabled, changes, complaints, rewritten, told
from tests.docs.document import Span, numbers, sections
from tests.docs.pages import CLAIMS, Page, pages
from tests.docs.records import ROOT

PAGES = pages()


@cache
def claims_of(name: str) -> list[Claim]:
    return PAGES[name].all()


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def changed(text: str, place: int) -> str:
    """The text with another digit at a place."""
    return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_number_is_a_records_or_listed_with_its_reason(name: str) -> None:
    wrong = complaints(name, text_of(name), claims_of(name), PAGES[name].excepted)
    assert not wrong, "run `python -m tests.docs`, then mend by hand:\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_another_last_digit_of_any_claimed_number_is_found_and_mended(name: str) -> None:
    text, claims = text_of(name), claims_of(name)
    tried = 0
    for place in sections(text):
        own = [claim for claim in claims if claim.section == place.title]
        spans = [change.span for change in changes(place.text, own)]
        for number in numbers(place.text):
            if any(number in span for span in spans):
                wrong = changed(place.text, number.end - 1)
                around = place.text[number.start - 30 : number.end]
                assert complaints(name, wrong, own, None), around
                assert rewritten(wrong, own) == place.text
                tried += 1
    assert tried > {"docs/results.md": 600, "docs/protocol.md": 15, "README.md": 40}.get(name, 5)


def test_a_digit_of_the_printed_table_is_found_and_mended() -> None:
    text, claims = text_of("README.md"), claims_of("README.md")
    (printed,) = [claim for claim in claims if isinstance(claim, Printed)]
    (change,) = changes(text, [printed])
    digits = [change.span.start + m.start() for m in re.finditer(r"\d", printed.text)]
    for place in digits[::20]:
        (wrong, *_) = complaints("README.md", changed(text, place), claims, None)
        assert re.match(r"README\.md:\d+: '.*' must become '.*'", wrong)
        assert rewritten(changed(text, place), claims) == text


# -- the mechanism itself --------------------------------------------------------------------------

TEXT = """# Title

## One

The σ-VAE has -509 ± 55 nats in
two seeds, `x=3` and MNIST-5k.

| a | b |
|---|---:|
| `x` | 1.50 |

## Two

In 1984 nothing was measured.
"""


def says(text: str, holds: bool = True) -> Says:
    return Says("One", text, holds)


def test_a_wrong_line_is_told_with_what_it_must_become() -> None:
    claims: list[Claim] = [
        says(f"has {told('-510 ± 55')} nats in two"),
        Tabled("One", ("a", "b"), [("`x`", told("1.50")), ("`y`", told("2"))]),
    ]
    assert complaints("d.md", TEXT, claims, None) == [
        "d.md:5: 'has -509 ± 55 nats in' must become 'has -510 ± 55 nats in'",
        "d.md:11: '(nothing)' must become '| `y` | 2 |'",
    ]
    mended = rewritten(TEXT, claims)
    assert complaints("d.md", mended, claims, None) == []
    assert "-510 ± 55 nats in\ntwo seeds" in mended


@pytest.mark.parametrize(
    ("claim", "told_"),
    [
        (says(f"the VAE has {told('-509')}"), "nowhere"),
        (says(told("-509")), None),
        (says(f"{told('-509')} ± 55 nats"), "numbers by hand: ['55']"),
        (says(f"has {told('-509')}", holds=False), "the records say otherwise"),
        (Tabled("One", ("a", "c"), []), "no table has the heading | a | c |"),
        (Printed("One", "text", ""), "no block of text"),
    ],
)
def test_a_claim_that_cannot_stand_is_told(claim: Claim, told_: str | None) -> None:
    wrong = complaints("d.md", TEXT, [claim], None)
    assert any(told_ in line for line in wrong) if told_ else wrong


def test_a_number_without_a_record_needs_a_reason() -> None:
    claims: list[Claim] = [
        says(f"has {told('-509 ± 55')} nats"),
        Tabled("One", ("a", "b"), [("`x`", "1.50")]),
    ]
    (wrong,) = complaints("d.md", TEXT, claims, {})
    assert wrong.startswith("d.md:14: 1984 is in no claim and no exception")
    assert not complaints("d.md", TEXT, claims, {"Two": ()})
    assert not complaints("d.md", TEXT, claims, {"Two": ["In 1984"]})
    stale = complaints("d.md", TEXT, claims, {"Two": ["In 1984", "In 1985"]})
    assert stale == ["d.md: section 'Two' no longer says 'In 1985'"]


def test_what_is_a_number() -> None:
    text = "-3.5, 1,024 of 8-bit 28x28 `12` [a](b7.md) 2σ² 10⁻⁴ [0, 1] arXiv 1312.6114 v1.2.3 (7)."
    assert [text[span.start : span.end] for span in numbers(text)] == ["-3.5", "1,024", "7"]
    assert Span(2, 3) in Span(1, 3)
    assert Span(0, 3) not in Span(1, 3)


def test_a_page_without_a_list_has_no_exception() -> None:
    assert Page().excepted == {}
