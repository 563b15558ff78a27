from __future__ import annotations

import csv
import html.parser
import io
import math
import re
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report import formats

if TYPE_CHECKING:
    from bench.report import Table
    from tests.bench.report.conftest import Results

AWKWARD = "npz:/tmp/a_b&c<d>|50%.npz"


@pytest.fixture
def table(results: Results) -> Table:
    """Three decoders: one that is no likelihood, one with a diverged seed, one with one seed."""
    for seed in range(3):
        common = {"fd_efficientnet_lite0": 120.5 + seed, "mse": 0.0123 + seed * 1e-4}
        results.add("mse", seed=seed, dataset=AWKWARD, metrics=common)
        metrics = common | {"neg_log_p": -896.1 - 3 * seed, "iwae_64": 905.25 + seed}
        status = "completed" if seed else "diverged"
        results.add("optimal", seed=seed, dataset=AWKWARD, metrics=metrics, status=status)
    results.add("gaussian", dataset=AWKWARD, metrics={"neg_log_p": 740.5, "sigma": 1.0})
    return results.table("a_grid")


class Cells(html.parser.HTMLParser):
    """The text of every table cell, row by row; footnote marks in square brackets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.open = True
            self.rows[-1].append("")
        if tag == "sup":
            self.rows[-1][-1] += " ["

    def handle_endtag(self, tag: str) -> None:
        if tag == "sup":
            self.rows[-1][-1] += "]"
        self.open &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.rows[-1][-1] += data


def from_markdown(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if not line.startswith("| ---")]
    return [[re.sub(r"\\(.)", r"\1", cell).strip() for cell in row] for row in rows]


def from_latex(text: str) -> list[list[str]]:
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith("\\\\")]
    rows = [re.split(r"(?<!\\)&", line.removesuffix("\\\\")) for line in lines]
    symbols = {value: key for key, value in formats.LATEX.items()} | {"$-$": "-"}
    longest_first = sorted(symbols, key=len, reverse=True)

    def plain(cell: str) -> str:
        marked = re.sub(r"\\textsuperscript\{([\d,]+)\}", r" [\1]", cell)
        return re.sub("|".join(map(re.escape, longest_first)), lambda m: symbols[m[0]], marked)

    return [[plain(cell).strip() for cell in row] for row in rows]


def test_every_text_format_has_the_same_cells(table: Table) -> None:
    shown = formats.layout(table)
    expected = [list(shown.headers), *([str(cell) for cell in line] for line in shown.lines)]
    assert from_markdown(formats.markdown(table)) == expected
    assert from_latex(formats.latex(table)) == expected
    cells = Cells(formats.html(table)).rows
    assert [[cell.strip() for cell in row] for row in cells] == expected


def test_the_cells_are_the_frames_numbers(table: Table) -> None:
    header, *lines = from_markdown(formats.markdown(table))
    columns = formats.default_columns(table)
    assert len(header) == len(columns)
    for line, (_, row) in zip(lines, table.frame.iterrows(), strict=True):
        for column, text in zip(columns, line, strict=True):
            if column not in table.metrics:
                continue
            numbers = re.sub(r"\[\d+\]|±\?", "", text).replace("±", " ").split()
            if math.isnan(row[column]):
                assert not numbers
                continue
            half = row[f"{column}_half_width"]
            assert float(numbers[0]) == pytest.approx(row[column], abs=0.05 * half, rel=5e-4)
            if len(numbers) == 2:
                assert float(numbers[1]) == pytest.approx(half, rel=0.05)
            assert ("±?" in text) == math.isnan(half)


def test_the_csv_gives_the_frame_back_to_the_last_digit(table: Table) -> None:
    read = list(csv.DictReader(io.StringIO(formats.csv(table))))
    rows = table.frame.to_dict("records")
    assert [list(line) for line in read] == [list(table.frame.columns)] * len(rows)
    for line, row in zip(read, rows, strict=True):
        assert line["dataset"] == AWKWARD
        assert tuple(line["ids"].split()) == row["ids"]
        for column in table.frame.select_dtypes("number"):
            assert (
                line[column] == "" if pd.isna(row[column]) else float(line[column]) == row[column]
            )


def test_special_characters_are_inert(table: Table) -> None:
    assert "a_b&c<d>" not in formats.html(table)
    assert "a_b&c<d>" not in formats.latex(table)
    assert "a\\_b\\&c\\textless{}d\\textgreater{}|50\\%.npz" in formats.latex(table)


def test_diverged_and_missing_intervals_are_visible(table: Table) -> None:
    shown = formats.layout(table)
    rows = {
        line[0].text: dict(zip(shown.columns, map(str, line), strict=True)) for line in shown.lines
    }
    assert rows["optimal"]["n"] == "2 (1 diverged)"
    assert rows["gaussian"]["neg_log_p"] == "740.5 ±?"
    assert rows["mse"]["neg_log_p"] == "[1]"
    assert "not a likelihood" in shown.footnotes[0]


@pytest.mark.parametrize("width", [40, 80, 120, 160])
def test_a_narrow_terminal_loses_columns_but_no_row_and_no_digit(table: Table, width: int) -> None:
    text = formats.console(table, width)
    for part in ("-901 ± 19", "740.5 ±?", "2 (1 diverged)", "optimal", "Training: 10 epochs"):
        assert part in " ".join(text.split())
    if width >= 120:
        assert max(map(len, text.splitlines())) <= width


def test_notes_of_a_column_left_out_hang_on_the_row(table: Table) -> None:
    shown = formats.layout(table, ["decoder", "n"])
    assert [line[0].notes for line in shown.lines] == [(1, 2), (), (2,)]


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (-896.13, 3.21, "-896.1 ± 3.2"),
        (-896.13, 321.0, "-896 ± 321"),
        (0.0123456, 0.00042, "0.01235 ± 0.00042"),
        (740.5, math.nan, "740.5 ±?"),
        (1.0, 0.0, "1.000"),
        (0.0, math.nan, "0.000 ±?"),
        (7.23e-6, 9.4e-7, "7.2e-06 ± 9.4e-07"),
        (123456.7, math.nan, "123457 ±?"),
    ],
)
def test_a_number_has_the_digits_that_its_interval_allows(
    mean: float, half: float, text: str
) -> None:
    assert formats.with_interval(mean, half) == text


@given(st.floats(-1e8, 1e8))
def test_a_number_without_interval_keeps_four_digits(value: float) -> None:
    assert float(formats.significant(value)) == pytest.approx(value, rel=5.1e-4, abs=1e-300)
