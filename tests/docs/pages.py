"""Every page with numbers: what it claims, and which of its numbers are from no record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import yaml

from tests.docs import other_pages, results_models, results_paper, results_tuning, speed_page
from tests.docs.claims import Claim
from tests.docs.records import ROOT

Claims = Callable[[], Iterable[Claim]]


@dataclass(frozen=True)
class Page:
    """A document: the functions that yield its claims; None if other numbers are not looked at."""

    claims: Sequence[Claims] = ()
    excepted: Mapping[str, Sequence[str]] | None = field(default_factory=dict)

    def all(self) -> list[Claim]:
        return list(chain.from_iterable(claims() for claims in self.claims))


CLAIMS: dict[str, tuple[Claims, ...]] = {
    "README.md": (other_pages.of_readme,),
    "docs/results.md": (
        results_paper.of_table3,
        results_paper.of_fashion,
        results_paper.of_figure4,
        results_paper.of_decoders,
        results_tuning.of_learning_rates,
        results_models.of_hierarchies,
        results_models.of_videos,
        results_tuning.of_balances,
        results_models.of_diffusion,
        results_tuning.of_a_stuck_seed,
        results_tuning.of_precision,
    ),
    "docs/faq.md": (other_pages.of_questions,),
    "docs/regression.md": (other_pages.of_regression,),
    "docs/protocol.md": (other_pages.of_protocol,),
    "docs/speed.md": (speed_page.of_speed,),
    "results/reference/README.md": (other_pages.of_reference,),
}


def pages() -> dict[str, Page]:
    """The README, every page of docs/ and that of the references, by path."""
    excepted = yaml.safe_load((Path(__file__).parent / "exceptions.yaml").read_text())
    paths = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"),
             ROOT / "results" / "reference" / "README.md"]  # fmt: skip
    found = {}
    for path in sorted(paths):
        name = path.relative_to(ROOT).as_posix()
        listed = excepted.get(name, {})
        # A page that is a sentence is one whose other numbers are from no record.
        own = None if isinstance(listed, str) else {k: v.get("says", ()) for k, v in listed.items()}
        found[name] = Page(CLAIMS.get(name, ()), own)
    return found
