"""Reports of all grids of a folder of results, and the page that joins them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.errors import RequestError
from bench.report import figures, site
from bench.report.figures import learning
from tests.bench.report.conftest import Results, realistic

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def folder(new_results: Callable[[], Results], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of the bundled grid `quick`, with a run lost, and of a grid that nobody bundles."""
    monkeypatch.setattr(figures, "KINDS", (learning,))  # one kind of figure is like another here
    results = new_results().folder.parent
    quick = Results(results / "quick")
    for seed in range(2):
        quick.add("shared", seed=seed, losses=[9.0, 3.0], metrics={"neg_log_p": -900.0 - seed})
        quick.add("optimal", seed=seed, losses=[9.0, 4.0], metrics={"neg_log_p": -500.0 - seed})
    realistic(Results(results / "of #mine"))
    return results


def test_one_page_joins_the_reports_of_all_grids(folder: Path, tmp_path: Path) -> None:
    made = site.write([folder], tmp_path, run_pages="none")
    assert not made.failed
    assert not made.left_out
    assert {path.relative_to(tmp_path).as_posix() for path in made.paths} >= {
        "index.html", "index.md", "quick/index.html", "quick/table.md", "of #mine/index.html",
    }  # fmt: skip
    page = (tmp_path / "index.html").read_text()
    for told in (
        "MNIST-5k",  # of the description in quick.yaml
        "2 decoders on 1 data set (mnist5k)",
        "Partial: 4 of 18 runs are done.",
        "Lowest -log p: shared",
        "No grid file of this name is bundled.",
        "c0ffee",
        "a CPU",
    ):
        assert told in page, told
    assert page.count('src="data:image/png') == 2
    # It asks for nothing elsewhere, and its links lead to files.
    assert not re.search(r"https?://|url\(|@import|<script", page)
    links = set(re.findall(r'href="([^"#][^"]*index.html)"', page))
    assert links == {"quick/index.html", "of%20%23mine/index.html"}
    text = (tmp_path / "index.md").read_text()
    assert "## [quick](quick/index.html)" in text
    assert "- runs: 4 runs completed." in text


def test_the_same_records_give_the_same_page(folder: Path, tmp_path: Path) -> None:
    first, second = (site.write([folder], tmp_path / name, run_pages="none") for name in "ab")
    assert [p.read_bytes() for p in first.paths] == [p.read_bytes() for p in second.paths]


def test_a_grid_in_two_folders_is_one(
    folder: Path, new_results: Callable[[], Results], tmp_path: Path
) -> None:
    there = new_results().folder.parent
    Results(there / "quick").add("shared", seed=2, metrics={"neg_log_p": -901.0})
    site.write([folder, there], tmp_path, ["markdown"])
    text = (tmp_path / "index.md").read_text()
    assert text.count("\n## ") == 2
    assert "with 3 seeds" in text
    assert "(quick/table.md)" in text
    assert not list(tmp_path.rglob("*.html"))


def test_what_is_no_grid_and_what_cannot_be_read_is_told_and_the_rest_is_written(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "published").mkdir()
    (folder / ".hidden").mkdir()
    shutil.copytree(folder / "quick", folder / "broken")
    for record in (folder / "broken").rglob("record.json"):
        record.write_text("{")
    (folder / "empty" / "runs").mkdir(parents=True)
    made = site.write([folder], tmp_path, ["markdown"])
    assert made.left_out == (
        f"{folder / 'published'}: left out, no grid's folder (it has no runs/)",
    )
    assert [line.split(":")[0] for line in made.failed] == ["broken", "empty"]
    assert all("no finished run" in line for line in made.failed)
    assert "quick" in (tmp_path / "index.md").read_text()


@pytest.mark.parametrize(
    ("formats", "told"), [(["docx"], "possible: html"), (["html"], "no folder of a grid")]
)
def test_a_request_that_cannot_be_met_is_one_line(
    tmp_path: Path, formats: list[str], told: str
) -> None:
    with pytest.raises(RequestError, match=told):
        site.write([tmp_path], tmp_path / "out", formats)


def test_a_folder_that_cannot_be_written_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        site.write([folder], tmp_path / "file", ["markdown"])
