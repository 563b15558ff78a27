from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.errors import RequestError
from bench.records.frame import load
from bench.report import pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.report.conftest import Results


@pytest.fixture
def trained(results: Results) -> Results:
    for seed in range(2):
        results.add("shared", seed=seed, losses=[100.0 + seed, 50.0, 40.0], images=True)
        results.add("mse", seed=seed, losses=[3.0, 2.0, 1.0], metrics={"mse": 0.1})
    results.add("optimal", status="diverged")
    results.add("optimal", seed=1, status="failed")
    return results


def test_a_report_is_four_tables_a_page_and_figures(trained: Results, tmp_path: Path) -> None:
    written = pages.write("grid", [trained.folder], tmp_path / "reports").paths
    names = {str(path.relative_to(tmp_path / "reports" / "grid")) for path in written}
    runs = {name for name in names if name.startswith("runs/")}
    assert len(runs) == 6
    assert names - runs >= {
        "table.md",
        "table.tex",
        "table.csv",
        "index.html",
        "figures/learning-curves.png",
        "figures/learning-curves.pdf",
    }
    assert all(path.stat().st_size > 0 for path in written)


def test_latex_alone_is_a_table_without_figures(trained: Results, tmp_path: Path) -> None:
    written = pages.write("grid", [trained.folder], tmp_path, ["latex"], caption="none").paths
    assert list(written) == [tmp_path / "grid" / "table.tex"]
    assert not (tmp_path / "grid" / "figures").exists()
    with pytest.raises(RequestError, match="--caption long: possible: full, short, none"):
        pages.write("grid", [trained.folder], tmp_path, ["latex"], caption="long")


def test_the_page_is_self_contained(trained: Results, tmp_path: Path) -> None:
    pages.write("grid", [trained.folder], tmp_path, ["html"])
    page = (tmp_path / "grid" / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"#][^"]*)"', page)
    beside = [source for source in sources if not source.startswith("data:")]
    assert len(beside) == 6
    assert all((tmp_path / "grid" / link).is_file() for link in beside)
    assert not re.search(r"https?://|url\(|@import|<script src", page)


def test_the_page_tells_what_was_lost(trained: Results, tmp_path: Path) -> None:
    pages.write("grid", [trained.folder], tmp_path, ["html"], expected=9)
    page = (tmp_path / "grid" / "index.html").read_text()
    assert "Partial: 5 of 9 runs are done." in page
    assert "diverged at step 17: distortion was not finite" in page
    assert "OutOfMemoryError: 1 &lt; 2" in page
    assert "3 decoders on 1 data set" in page
    assert "c0ffee" in page


def test_only_the_formats_asked_for_are_written(trained: Results, tmp_path: Path) -> None:
    written = pages.write("grid", [trained.folder], tmp_path, ["csv"]).paths
    assert [path.name for path in tmp_path.rglob("*.*")] == ["table.csv"]
    assert [path.name for path in written] == ["table.csv"]


def test_the_same_records_give_the_same_bytes(trained: Results, tmp_path: Path) -> None:
    first = pages.write("grid", [trained.folder], tmp_path / "1").paths
    second = pages.write("grid", [trained.folder], tmp_path / "2").paths
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_large_grid_says_what_is_not_shown(results: Results, tmp_path: Path) -> None:
    for index in range(61):
        results.add({"name": "shared", "sigma_lr": 2.0 + index}, metrics={"mse": 1.0})
    pages.write("grid", [results.folder], tmp_path, ["html"], run_pages="none")
    page = (tmp_path / "grid" / "index.html").read_text()
    assert "Curves and images are shown for the first 60 of 61 rows." in page
    assert "No run has a page of its own" in page


def test_folders_of_two_machines_make_one_table(new_results: Callable[[], Results]) -> None:
    here, there = new_results(), new_results()
    here.add(seed=0)
    here.add(seed=1, status="failed")
    there.add(seed=1)
    there.add(seed=2)
    records, _ = load([here.folder, there.folder])
    assert len(records) == 3
    assert set(records["status"]) == {"completed"}


@pytest.mark.parametrize("folder", ["runs", "nowhere"])
def test_no_records_is_said_in_one_line(tmp_path: Path, folder: str) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(RequestError, match=r"grid 'quick' has no finished run .* run quick"):
        pages.write("quick", [tmp_path / folder], tmp_path)


def test_an_unknown_format_is_said_in_one_line(trained: Results, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="pdf: possible: html, markdown, latex, csv"):
        pages.write("grid", [trained.folder], tmp_path, ["html", "pdf"])


def test_a_folder_that_cannot_be_written_is_said_in_one_line(
    trained: Results, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        pages.write("grid", [trained.folder], tmp_path / "file")


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_the_contrast_that_wcag_asks_for(theme: int) -> None:
    """4.5 to 1 (WCAG 2.1, 1.4.3) for every colour of text on every ground, light and dark."""
    css = (Path(pages.__file__).parent / "templates" / "page.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): #(\w{6})", css.split("@media")[theme]))

    def luminance(name: str) -> float:
        parts = [int(colours[name][i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(one), luminance(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    pairs = [(text, ground) for text in ("ink", "quiet", "link") for ground in ("paper", "raised")]
    for text, ground in [*pairs, ("best", "best-paper"), ("ink", "warn-paper")]:
        assert contrast(text, ground) >= 4.5, (text, ground)


def test_an_unknown_choice_of_run_pages_is_said_in_one_line(
    trained: Results, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="--run-pages al: did you mean 'all'"):
        pages.write("grid", [trained.folder], tmp_path, run_pages="al")
